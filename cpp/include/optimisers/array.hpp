// array.hpp: a borrowed view of an array that somebody else owns: NumPy's, torch's, a C++ program's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "optimisers/dtype.hpp"

namespace optimisers::inline OPT_ABI {

// Where an array's memory is: here, or the number of an accelerator.
inline constexpr std::int8_t on_host = -1;

// How many axes an array may have, as in NumPy. Whoever makes a view of somebody's array refuses more.
inline constexpr int max_ndim = 64;

// Shape and strides are borrowed as well: they must live as long as the view. Any alignment is allowed.
struct ArrayView {
  std::byte* data = nullptr;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;  // null: C order without gaps
  std::int64_t stride_unit = 1;           // bytes per unit of `strides`: 1, or the item size
  std::int32_t ndim = 0;
  DType dtype = DType::float32;
  bool writable = true;
  bool present = false;  // false: there is no array here (a missing gradient)
  std::int8_t device = on_host;
};

constexpr std::int64_t size_of(std::span<const std::int64_t> shape) {
  std::int64_t n = 1;
  for (const std::int64_t axis : shape) n *= axis;
  return n;
}
constexpr std::int64_t size_of(const ArrayView& a) {
  return size_of(std::span(a.shape, static_cast<std::size_t>(a.ndim)));
}
std::vector<std::int64_t> c_strides(std::span<const std::int64_t> shape, std::int64_t unit = 1);

inline bool is_aligned(const ArrayView& a) {  // to its elements' reals
  return (reinterpret_cast<std::uintptr_t>(a.data) & (static_cast<std::uintptr_t>(size_of(real_dtype(a.dtype))) - 1)) ==
         0;
}

// Elements in C order without gaps.
constexpr bool is_contiguous(const ArrayView& a) {
  if (a.strides == nullptr) return true;
  std::int64_t expected = size_of(a.dtype);
  for (int i = a.ndim - 1; i >= 0; --i) {
    if (a.shape[i] == 0) return true;
    if (a.shape[i] != 1 && a.strides[i] * a.stride_unit != expected) return false;
    expected *= a.shape[i];
  }
  return true;
}

// Bytes [lo, hi) that hold the array's elements; lo == hi for an empty array.
struct Extent {
  std::uintptr_t lo, hi;
};
Extent extent_of(const ArrayView& a);

std::string shape_text(std::span<const std::int64_t> shape);  // "(3, 5)", "(3,)", "()"

// What an array shares with an earlier one: all its elements, with the axes in the order given (empty: the same).
struct Alias {
  std::uint32_t first;    // index of the first array with this memory; its own index when there is none
  std::vector<int> axes;  // axis i of the first array is axis axes[i] of this one
};

// What an array is called in messages, by its place in a list: asked when there is something to say.
using NameOf = std::function<std::string(std::size_t)>;

// One entry per array. Throws Error(value), naming both places, where arrays share some elements without being
// axis permutations of each other, and naming the place where an array overlaps itself. Disjoint strided views
// of one buffer are fine. Arrays of size 0 alias nothing. `call` is what messages begin with.
std::vector<Alias> find_aliases(std::span<const ArrayView> arrays, const NameOf& name_of, std::string_view call);

}  // namespace optimisers::inline OPT_ABI
