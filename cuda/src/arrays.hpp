// arrays.hpp: the host's views of arrays as kernels see them.
#pragma once
#include <vector>

#include "kernels/tables.hpp"
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// Appends the axes of an array that is not contiguous, neighbouring ones that continue one another as one.
void add_axes(const ArrayView& array, DeviceArray& out, std::vector<Axis>& axes);

inline DeviceArray device_array(const ArrayView& a, std::vector<Axis>& axes) {
  const auto at = reinterpret_cast<std::uintptr_t>(a.data);
  const auto is_multiple = [&](int bytes) { return (at & std::uintptr_t(bytes - 1)) == 0; };
  DeviceArray out{a.data, std::uint32_t(axes.size()), 0, a.dtype, is_multiple(size_of(a.dtype)), is_multiple(16)};
  if (!is_contiguous(a)) add_axes(a, out, axes);
  return out;
}

// The kernel that reads and writes such arrays: x of a leaf and, if it has one, its only gradient.
inline Access access_of(DType compute, const DeviceArray& x, const DeviceArray* dx) {
  const auto all = [&](DType dtype) {
    const auto is = [&](const DeviceArray& a) { return a.dtype == dtype && a.axis_count == 0 && a.aligned; };
    return is(x) && (dx == nullptr || is(*dx));
  };
  if (all(compute)) return Access::plain;
  if (compute == DType::float32 && all(DType::float16)) return Access::half;
  if (compute == DType::float32 && all(DType::bfloat16)) return Access::bhalf;
  return Access::any;
}

}  // namespace optimisers::inline OPT_ABI::cuda
