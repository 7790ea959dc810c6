// tensors.cpp: the header of a safetensors file read and checked, and its arrays with their checksums.
#include "files/tensors.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "files/checksum.hpp"
#include "files/json.hpp"
#include "files/wire.hpp"

namespace optimisers::inline OPT_ABI::files {
namespace {

std::optional<DType> dtype_from_wire(std::string_view name) {
  const auto found = std::find(wire_names.begin(), wire_names.end(), name);
  if (found == wire_names.end()) return std::nullopt;
  return static_cast<DType>(found - wire_names.begin());
}

std::uint32_t checksum_from(const std::string& text, const json::Reader& reader) {
  std::uint32_t sum = 0;
  for (const char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) reader.fail("has \"" + text + "\" for a checksum");
    sum = sum << 4 | std::uint32_t(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  if (text.size() != 8) reader.fail("has \"" + text + "\" for a checksum");
  return sum;
}

// Bytes of an array of this shape; throws where there can be no such array.
std::uint64_t bytes_of(const std::vector<std::int64_t>& shape, DType dtype, const json::Reader& reader) {
  std::int64_t bytes = size_of(dtype);
  bool empty = false;
  for (const std::int64_t n : shape) {
    if (n != 0 && bytes > (std::int64_t(1) << 58) / n) reader.fail("has an axis of length " + std::to_string(n));
    empty |= n == 0;
    if (n != 0) bytes *= n;
  }
  return empty ? 0 : std::uint64_t(bytes);
}

Tensor read_entry(json::Reader& reader, const std::string& name) {
  Tensor tensor;
  tensor.name = name;
  int seen = 0;
  reader.object([&](const std::string& key) {
    ++seen;
    if (key == "dtype") {
      const std::string wire = reader.string();
      const auto dtype = dtype_from_wire(wire);
      if (!dtype) reader.fail("has an array of an unknown dtype, " + wire);
      tensor.dtype = *dtype;
    } else if (key == "shape") {
      reader.array([&] { tensor.shape.push_back(reader.integer(0, std::int64_t(1) << 58)); });
      if (tensor.shape.size() > std::size_t(max_ndim) + 1) reader.fail("has an array of too many axes");
    } else if (key == "data_offsets") {
      std::vector<std::uint64_t> ends;
      reader.array([&] { ends.push_back(std::uint64_t(reader.integer(0, std::numeric_limits<std::int64_t>::max()))); });
      if (ends.size() != 2 || ends[0] > ends[1]) reader.fail("has an array without a beginning and an end");
      tensor.begin = ends[0], tensor.end = ends[1];
    } else {
      reader.fail("says \"" + key + "\" of an array");
    }
  });
  if (seen != 3) reader.fail("lacks dtype, shape or data_offsets of \"" + name + "\"");
  if (tensor.end - tensor.begin != bytes_of(tensor.shape, tensor.dtype, reader))
    reader.fail("gives \"" + name + "\" another length than its shape has");
  return tensor;
}

// ["dtype", shape, "checksum"]
Tensor read_row(json::Reader& reader, const std::string& name) {
  Tensor tensor;
  tensor.name = name;
  int part = 0;
  reader.array([&] {
    if (++part == 1) {
      const auto dtype = dtype_from_name(reader.string());
      if (!dtype) reader.fail("has an unknown dtype for \"" + name + "\"");
      tensor.dtype = *dtype;
    } else if (part == 2) {
      reader.array([&] { tensor.shape.push_back(reader.integer()); });
    } else {
      tensor.checksum = checksum_from(reader.string(), reader);
    }
  });
  if (part != 3) reader.fail("has " + std::to_string(part) + " parts for \"" + name + "\"");
  return tensor;
}

}  // namespace

std::string TensorFile::what() const { return "loading \"" + path() + "\": "; }

TensorFile::TensorFile(const std::string& path) : file_(path) {
  const std::string text = header();
  read_header(text);
  check_intervals();
  read_.assign(tensors_.size(), false);
}

// Its text, once its checksum holds.
std::string TensorFile::header() {
  unsigned char length[8];
  if (file_.size() < sizeof length)
    refuse(what() + "the file has " + std::to_string(file_.size()) + " bytes; it is no safetensors file, or was cut");
  file_.read(0, length, sizeof length);
  std::uint64_t bytes = 0;
  for (std::size_t i = sizeof length; i-- > 0;) bytes = bytes << 8 | length[i];
  if (bytes > largest_header || bytes > file_.size() - sizeof length)
    refuse(what() + "the header would have " + std::to_string(bytes) + " bytes, the file has " +
           std::to_string(file_.size()) + ", and a header at most " + std::to_string(largest_header) +
           "; it is no safetensors file, or was cut or damaged");
  std::string text(std::size_t(bytes), '\0');
  file_.read(sizeof length, text.data(), text.size());
  begin_ = sizeof length + bytes;
  if (text.empty() || text[0] != '{') refuse(what() + "this is no safetensors file, or a damaged one");
  return text;
}

void TensorFile::read_header(const std::string& text) {
  json::Reader reader(text, what() + "the header");
  std::map<std::string, std::string> metadata;
  reader.object([&](const std::string& key) {
    if (key == "__metadata__") {
      reader.object([&](const std::string& name) { metadata[name] = reader.string(); });
      return;
    }
    by_name_.emplace(key, tensors_.size());
    tensors_.push_back(read_entry(reader, key));
  });
  reader.end();
  check_metadata(metadata);
}

void TensorFile::check_metadata(const std::map<std::string, std::string>& metadata) {
  const auto text = [&](const char* name) {
    const auto found = metadata.find(name);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (text("format") != "optimisers") refuse(what() + "this is no file that optimisers saved");
  if (text("format_version") != std::to_string(format_version))
    refuse(what() + "the file is of format " + text("format_version") + ", this version of optimisers reads format " +
           std::to_string(format_version) + "; load it with the version that wrote it, or a newer one");
  manifest_ = text("manifest");
  data_ = text("data");
  const std::string found = checksum_text(header_checksum(text("arrays"), manifest_, data_));
  if (text("checksum") != found)
    refuse(what() + "the header's checksum is " + found + ", and was " + text("checksum") +
           " when it was written: the file was damaged or changed; take an older one");
  read_table(text("arrays"));
}

void TensorFile::read_table(const std::string& text) {
  json::Reader reader(text, what() + "the table of arrays");
  std::size_t known = 0;
  reader.object([&](const std::string& name) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) reader.fail("has \"" + name + "\", which is not in the file");
    Tensor& tensor = tensors_[found->second];
    const Tensor wire = std::exchange(tensor, read_row(reader, name));
    tensor.begin = wire.begin, tensor.end = wire.end;
    std::vector<std::int64_t> shape = tensor.shape;
    if (tensor.dtype == DType::complex128) shape.push_back(2);
    if (wire_name(tensor.dtype) != wire_name(wire.dtype) || shape != wire.shape)
      reader.fail("has another dtype or shape for \"" + name + "\" than the header");
    if (tensor.shape.size() > std::size_t(max_ndim)) reader.fail("has an array of too many axes");
    ++known;
  });
  reader.end();
  if (known != tensors_.size()) reader.fail("lacks some arrays");
}

void TensorFile::check_intervals() {
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& tensor = tensors_[i];
    by_name_[tensor.name] = i;
    if (tensor.begin != end)
      refuse(what() + "\"" + tensor.name + "\" begins at byte " + std::to_string(tensor.begin) +
             " of the arrays, the one before it ends at " + std::to_string(end) + "; the file is damaged");
    end = tensor.end;
  }
  if (file_.size() - begin_ != end)
    refuse(what() + "the arrays have " + std::to_string(end) + " bytes, the file has " +
           std::to_string(file_.size() - begin_) + " for them; it was cut or damaged");
}

const Tensor* TensorFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void TensorFile::read(const Tensor& tensor, std::byte* to) const {
  std::vector<std::byte> piece(
      to == nullptr ? std::size_t(std::min(std::uint64_t(piece_bytes), tensor.end - tensor.begin)) : 0);
  std::uint32_t sum = 0;
  for (std::uint64_t at = tensor.begin; at < tensor.end; at += std::uint64_t(piece_bytes)) {
    const auto n = std::size_t(std::min(std::uint64_t(piece_bytes), tensor.end - at));
    std::byte* into = to == nullptr ? piece.data() : to + (at - tensor.begin);
    file_.read(begin_ + at, into, n);
    sum = crc32(into, n, sum);
  }
  if (sum != tensor.checksum)
    refuse(what() + "the checksum of \"" + tensor.name + "\" is " + checksum_text(sum) + ", and was " +
           checksum_text(tensor.checksum) + " when it was written: the file is damaged; take an older one");
  read_[std::size_t(&tensor - tensors_.data())] = true;
  if (to != nullptr) to_little_endian(to, size_of(tensor.shape), tensor.dtype);
}

void TensorFile::read_rest() const {
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (!read_[i]) read(tensors_[i], nullptr);
}

}  // namespace optimisers::inline OPT_ABI::files
