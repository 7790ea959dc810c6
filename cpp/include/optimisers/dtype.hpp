// dtype.hpp: element types of arrays, which of them leaves may have, and the type arithmetic runs in.
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "optimisers/math.hpp"

namespace optimisers::inline OPT_ABI {

enum class DType : std::uint8_t {
  float16,
  bfloat16,
  float32,
  float64,
  complex64,
  complex128,  // what a leaf may be
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,  // gradients only: converted
};
inline constexpr int dtype_count = 15;

struct DTypeInfo {
  std::string_view name;
  int size;
};
inline constexpr std::array<DTypeInfo, dtype_count> dtype_table{{
    {"float16", 2},
    {"bfloat16", 2},
    {"float32", 4},
    {"float64", 8},
    {"complex64", 8},
    {"complex128", 16},
    {"bool", 1},
    {"int8", 1},
    {"int16", 2},
    {"int32", 4},
    {"int64", 8},
    {"uint8", 1},
    {"uint16", 2},
    {"uint32", 4},
    {"uint64", 8},
}};

constexpr std::string_view name_of(DType d) { return dtype_table[static_cast<std::size_t>(d)].name; }
namespace detail {
// Four bits a dtype, for hot loops and for GPUs, whose code has no memory of a table that is made here.
inline constexpr std::uint64_t size_exponents = [] {
  static_assert(dtype_count <= 16);
  std::uint64_t exponents = 0;
  for (std::size_t i = 0; i < dtype_table.size(); ++i)
    exponents |= std::uint64_t(std::bit_width(unsigned(dtype_table[i].size)) - 1) << 4 * i;
  return exponents;
}();
}  // namespace detail
constexpr int size_of(DType d) { return 1 << (detail::size_exponents >> 4 * unsigned(d) & 15); }
constexpr bool is_trainable(DType d) { return d <= DType::complex128; }
constexpr bool is_complex_dtype(DType d) { return d == DType::complex64 || d == DType::complex128; }
constexpr std::optional<DType> dtype_from_name(std::string_view name) {
  for (std::size_t i = 0; i < dtype_table.size(); ++i)
    if (dtype_table[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

// Bit patterns of the 16-bit floats; arithmetic never happens in them.
struct Half {
  std::uint16_t bits;
};
struct BHalf {
  std::uint16_t bits;
};

// The compute type of a leaf: its own for 32 and 64 bits, float32 for the 16-bit floats.
constexpr DType compute_dtype(DType leaf) {
  return leaf == DType::float16 || leaf == DType::bfloat16 ? DType::float32 : leaf;
}
constexpr DType real_dtype(DType d) {
  return d == DType::complex64 ? DType::float32 : d == DType::complex128 ? DType::float64 : d;
}
constexpr DType complex_dtype(DType d) {
  return d == DType::float32 ? DType::complex64 : d == DType::float64 ? DType::complex128 : d;
}

// Compute types in table order: float32, float64, complex64, complex128.
inline constexpr int compute_count = 4;
constexpr int compute_index(DType d) { return static_cast<int>(d) - static_cast<int>(DType::float32); }

}  // namespace optimisers::inline OPT_ABI
