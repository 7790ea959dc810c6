// disk.hpp: files of the operating system: one that is read, and one that takes another's place all at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI {

class OldFile {
 public:
  explicit OldFile(const std::string& path);  // throws FileError; so does whatever the system refuses below
  ~OldFile();
  OldFile(const OldFile&) = delete;
  std::uint64_t size() const { return size_; }
  // Throws where the file has become shorter.
  void read(std::uint64_t at, void* to, std::size_t bytes) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int handle_ = -1;
  std::uint64_t size_ = 0;
};

// Written beside its place, as `path`.part; takes it in commit(), and until then, whatever happens, what stood there
// stands there. Keeps the mode of the file it replaces, and follows a symbolic link. A second writer to the same path
// is refused; what a killed one has left is written over.
class NewFile {
 public:
  explicit NewFile(const std::string& path);
  ~NewFile();  // without commit(), nothing is left
  NewFile(const NewFile&) = delete;
  void write(std::uint64_t at, const void* from, std::size_t bytes);
  void commit();  // on the disk, then in its place, then the folder on the disk

 private:
  std::string path_, part_;
  int handle_ = -1;
  bool mine_ = false;
};

}  // namespace optimisers::inline OPT_ABI
