// tensors.hpp: safetensors files with a checksum for the header and for each array, read without belief.
//
// After eight bytes with its length comes a header in JSON, then the arrays without gaps. The header's `__metadata__`
// has the format's version, a checksum of what follows, `arrays` with dtype, shape and checksum of each array, and the
// texts `manifest` and `data`. What the format has no name for, complex128, is stored as float64 with one axis more.
#pragma once
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "files/disk.hpp"
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::files {

inline constexpr int format_version = 1;

// An array that is to be written; where it is on an accelerator, contiguous.
struct NamedArray {
  std::string name;
  ArrayView array;
};

// All of a file but what is in the arrays; `manifest` and `data` are JSON, of the optimiser's and of whoever calls.
// Throws FileError, and Error(value) for names that are not UTF-8 or come twice.
void write_tensors(const std::string& path, std::span<const NamedArray> arrays, const std::string& manifest,
                   const std::string& data);

struct Tensor {
  std::string name;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes behind the header
  std::uint32_t checksum = 0;
};

// The header has been checked: its checksum, that it says the same twice, and that arrays lie in the file one after the
// other, each of the length that its shape says.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path);
  const std::string& path() const { return file_.path(); }
  const std::string& manifest() const { return manifest_; }
  const std::string& data() const { return data_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }  // as they lie in the file
  const Tensor* find(const std::string& name) const;
  // Throws Error(value) where the checksum is another one. `to` null: only compares.
  void read(const Tensor& tensor, std::byte* to) const;
  void read_rest() const;    // compares the checksums of what was not read
  std::string what() const;  // what messages begin with: `loading: "path"`

 private:
  std::string header();
  void read_header(const std::string& text);
  void check_metadata(const std::map<std::string, std::string>& metadata);
  void read_table(const std::string& text);
  void check_intervals();

  OldFile file_;
  std::string manifest_, data_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::uint64_t begin_ = 0;  // of the arrays
  mutable std::vector<bool> read_;
};

}  // namespace optimisers::inline OPT_ABI::files
