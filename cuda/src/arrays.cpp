// arrays.cpp: from views to what kernels read.
#include "arrays.hpp"

namespace optimisers::cuda {

DeviceArray device_array(const ArrayView& a, std::vector<Axis>& axes) {
  const auto at = reinterpret_cast<std::uintptr_t>(a.data);
  DeviceArray out{
      a.data,      std::uint32_t(axes.size()), 0, a.dtype, at % std::uintptr_t(size_of(real_dtype(a.dtype))) == 0,
      at % 16 == 0};
  // Complex numbers are read as one piece: their alignment on a device is that of the whole.
  if (is_complex_dtype(a.dtype)) out.aligned = at % std::uintptr_t(size_of(a.dtype)) == 0;
  if (is_contiguous(a)) return out;
  out.wide = false;
  for (int i = a.ndim - 1; i >= 0; --i) {
    const std::int64_t size = a.shape[i], stride = a.strides[i] * a.stride_unit;
    if (size == 1) continue;
    if (stride % size_of(a.dtype) != 0) out.aligned = false;
    if (out.axis_count > 0 && axes.back().stride * axes.back().size == stride) {
      axes.back().size *= size;
      continue;
    }
    axes.push_back({size, stride});
    ++out.axis_count;
  }
  return out;
}

Access access_of(DType compute, const DeviceArray& x, const DeviceArray* dx) {
  const auto all = [&](DType dtype) {
    const auto is = [&](const DeviceArray& a) { return a.dtype == dtype && a.axis_count == 0 && a.aligned; };
    return is(x) && (dx == nullptr || is(*dx));
  };
  if (all(compute)) return Access::plain;
  if (compute == DType::float32 && all(DType::float16)) return Access::half;
  if (compute == DType::float32 && all(DType::bfloat16)) return Access::bhalf;
  return Access::any;
}

}  // namespace optimisers::cuda
