// write_tensors.cpp: arrays into a safetensors file, each read once: checksum and write piece by piece.
#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "device.hpp"
#include "files/checksum.hpp"
#include "files/json.hpp"
#include "files/tensors.hpp"
#include "files/wire.hpp"
#include "memory/overlap.hpp"

namespace optimisers::inline OPT_ABI::files {
namespace {

std::int64_t bytes_of(const ArrayView& a) { return size_of(a) * size_of(a.dtype); }

// Wide elements first, so that every array is aligned to its elements.
std::vector<std::size_t> order_of(std::span<const NamedArray> arrays) {
  std::vector<std::size_t> order(arrays.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(real_dtype(arrays[a].array.dtype)) > size_of(real_dtype(arrays[b].array.dtype));
  });
  return order;
}

class Writer {
 public:
  Writer(const std::string& path, std::span<const NamedArray> arrays, const std::string& manifest,
         const std::string& data)
      : path_(path),
        arrays_(arrays),
        order_(order_of(arrays)),
        sums_(arrays.size()),
        manifest_(manifest),
        data_(data) {}

  void write() {
    check_names();
    const std::uint64_t header_bytes = header().size();  // checksums have one length
    if (header_bytes > largest_header)
      refuse("saving \"" + path_ + "\": names and shapes of " + std::to_string(arrays_.size()) + " arrays take " +
             std::to_string(header_bytes) + " bytes, a safetensors file has at most " + std::to_string(largest_header) +
             " for them; save parts of the model to several files");
    NewFile file(path_);
    std::uint64_t at = 8 + header_bytes;
    for (const std::size_t i : order_) at = write_array(file, at, arrays_[i].array, sums_[i]);
    const std::string text = header();
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(header_bytes >> (8 * i));
    file.write(0, length, sizeof length);
    file.write(sizeof length, text.data(), text.size());
    file.commit();
  }

 private:
  void check_names() const {
    std::unordered_set<std::string_view> known;
    for (const NamedArray& a : arrays_) {
      if (!json::is_utf8(a.name)) refuse("saving \"" + path_ + "\": the name of an array is not UTF-8: " + a.name);
      if (a.name == "__metadata__" || !known.insert(a.name).second)
        refuse("saving \"" + path_ + "\": two arrays would be called \"" + a.name + "\"; names must differ");
    }
  }

  static std::string shape_json(const ArrayView& a, bool on_the_wire) {
    std::string text = "[";
    for (int axis = 0; axis < a.ndim; ++axis) text += (axis > 0 ? "," : "") + std::to_string(a.shape[axis]);
    if (on_the_wire && a.dtype == DType::complex128) text += a.ndim > 0 ? ",2" : "2";
    return text + "]";
  }

  // {"name": ["dtype", shape, "checksum"]}
  std::string table() const {
    std::string text = "{";
    for (const std::size_t i : order_) {
      const ArrayView& a = arrays_[i].array;
      text += (text.size() > 1 ? "," : "") + json::quoted(arrays_[i].name) + ":[\"" + std::string(name_of(a.dtype)) +
              "\"," + shape_json(a, false) + ",\"" + checksum_text(sums_[i]) + "\"]";
    }
    return text + "}";
  }

  std::string header() const {
    const std::string arrays = table();
    std::string text = "{\"__metadata__\":{\"format\":\"optimisers\",\"format_version\":\"" +
                       std::to_string(format_version) + "\",\"checksum\":\"" +
                       checksum_text(header_checksum(arrays, manifest_, data_)) +
                       "\",\"arrays\":" + json::quoted(arrays) + ",\"manifest\":" + json::quoted(manifest_) +
                       ",\"data\":" + json::quoted(data_) + "}";
    std::uint64_t begin = 0;
    for (const std::size_t i : order_) {
      const ArrayView& a = arrays_[i].array;
      const std::uint64_t end = begin + std::uint64_t(bytes_of(a));
      text += "," + json::quoted(arrays_[i].name) + ":{\"dtype\":\"" + std::string(wire_name(a.dtype)) +
              "\",\"shape\":" + shape_json(a, true) + ",\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(end) + "]}";
      begin = end;
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  }

  // Returns where the next one begins.
  std::uint64_t write_array(NewFile& file, std::uint64_t at, const ArrayView& a, std::uint32_t& sum) {
    const std::int64_t item = size_of(a.dtype), piece = piece_bytes / item, size = size_of(a);
    const bool as_it_is = a.device == on_host && is_contiguous(a) && std::endian::native == std::endian::little;
    sum = 0;
    for (std::int64_t begin = 0; begin < size; begin += piece) {
      const std::int64_t n = std::min(piece, size - begin);
      const std::byte* from = as_it_is ? a.data + begin * item : gathered(a, begin, n);
      sum = crc32(from, std::size_t(n * item), sum);
      file.write(at, from, std::size_t(n * item));
      at += std::uint64_t(n * item);
    }
    return at;
  }

  const std::byte* gathered(const ArrayView& a, std::int64_t begin, std::int64_t n) {
    const std::int64_t item = size_of(a.dtype);
    buffer_.resize(std::size_t(piece_bytes));
    std::byte* to = buffer_.data();
    if (a.device != on_host) {
      accelerator().copy(to, on_host, a.data + begin * item, a.device, std::size_t(n * item));
    } else {
      for_each_run(a, begin, n, [&](const std::byte* from, std::int64_t step, std::int64_t count) {
        if (step == item) std::memcpy(to, from, std::size_t(count * item)), to += count * item;
        else
          for (; count > 0; --count, from += step, to += item) std::memcpy(to, from, std::size_t(item));
      });
    }
    to_little_endian(buffer_.data(), n, a.dtype);
    return buffer_.data();
  }

  const std::string& path_;
  std::span<const NamedArray> arrays_;
  std::vector<std::size_t> order_;
  std::vector<std::uint32_t> sums_;
  const std::string &manifest_, &data_;
  std::vector<std::byte> buffer_;
};

}  // namespace

void write_tensors(const std::string& path, std::span<const NamedArray> arrays, const std::string& manifest,
                   const std::string& data) {
  Writer(path, arrays, manifest, data).write();
}

}  // namespace optimisers::inline OPT_ABI::files
