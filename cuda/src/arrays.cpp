// arrays.cpp: the axes of strided arrays.
#include "arrays.hpp"

namespace optimisers::inline OPT_ABI::cuda {

void add_axes(const ArrayView& a, DeviceArray& out, std::vector<Axis>& axes) {
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
}

}  // namespace optimisers::inline OPT_ABI::cuda
