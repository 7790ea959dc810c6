// error.hpp: the one exception type, with the kind of fault, so that each language maps it to its own classes.
#pragma once
#include <stdexcept>
#include <string>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

enum class ErrorKind {
  value,       // right kind of object, wrong value: range, shape, structure, overlap, length, unknown field
  type,        // wrong kind of object
  non_finite,  // a norm that must be finite is not
  busy,        // the state is in use by the same thread further up the stack
  memory,      // on an accelerator; on the host std::bad_alloc is thrown, and this is what is reported
  device,      // an accelerator failed
  file,        // the operating system refused something about a file (FileError)
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Error(ErrorKind kind, const std::string& message, const std::string& leaf)
      : std::runtime_error(message), kind_(kind), leaf_(leaf) {}
  ErrorKind kind() const noexcept { return kind_; }
  const char* leaf() const noexcept { return leaf_.what(); }  // its name; "" if it is about no one leaf

 private:
  ErrorKind kind_;
  std::runtime_error leaf_{""};  // a string whose copies, like those of any exception, do not throw
};

// What the operating system refused about a file: its error number, and which file.
class FileError : public Error {
 public:
  FileError(const std::string& message, int code, const std::string& path)
      : Error(ErrorKind::file, message), code_(code), path_(path) {}
  int code() const noexcept { return code_; }
  const char* path() const noexcept { return path_.what(); }

 private:
  int code_;
  std::runtime_error path_;
};

}  // namespace optimisers::inline OPT_ABI
