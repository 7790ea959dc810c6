// wire.hpp: what writer and reader of safetensors files agree on.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "files/checksum.hpp"
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::files {

inline constexpr std::uint64_t largest_header = 100'000'000;        // the format's own limit
inline constexpr std::int64_t piece_bytes = std::int64_t(1) << 20;  // in the cache between checksum and copy

// In the order of DType; complex128 goes as two float64 along one axis more.
inline constexpr std::array<std::string_view, dtype_count> wire_names{
    "F16", "BF16", "F32", "F64", "C64", "F64", "BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"};
inline std::string_view wire_name(DType dtype) { return wire_names[static_cast<std::size_t>(dtype)]; }

inline std::string checksum_text(std::uint32_t sum) {
  std::string text(8, '0');
  for (std::size_t i = 8; i-- > 0; sum >>= 4) text[i] = "0123456789abcdef"[sum & 15];
  return text;
}
// Of what the header says beside the list of arrays that the format demands: other programs may write that anew.
inline std::uint32_t header_checksum(const std::string& arrays, const std::string& manifest, const std::string& data) {
  std::uint32_t sum = 0;
  for (const std::string* part : {&arrays, &manifest, &data})
    sum = crc32(part->c_str(), part->size() + 1,
                sum);  // with the 0 at its end, so that nothing moves from one to the next
  return sum;
}

// In place, both ways; nothing on most machines.
inline void to_little_endian(std::byte* elements, std::int64_t n, DType dtype) {
  if constexpr (std::endian::native != std::endian::little) {
    const std::int64_t unit = size_of(real_dtype(dtype)), units = n * size_of(dtype) / unit;
    for (std::int64_t i = 0; i < units; ++i) std::reverse(elements + i * unit, elements + (i + 1) * unit);
  }
}

}  // namespace optimisers::inline OPT_ABI::files
