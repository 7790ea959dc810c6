// overlap.hpp: walking an array's elements in C order, and exact tests for shared memory.
#pragma once
#include <algorithm>

#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI {

bool share_memory(const ArrayView& a, const ArrayView& b);  // some byte belongs to elements of both
bool same_view(const ArrayView& a, const ArrayView& b);     // the same elements at the same indices

// An interval that holds each of the array's bytes, or its place moved by a multiple of the period. Columns of one
// matrix lie between one another, but are intervals apart when folded to one row.
Extent folded(const ArrayView& a, std::int64_t period);

// Elements [begin, begin + n) in C order, as runs of constant stride: f(first element, stride in bytes, count).
template <class F>
void for_each_run(const ArrayView& a, std::int64_t begin, std::int64_t n, F&& f) {
  const std::int64_t item = size_of(a.dtype);
  if (a.strides == nullptr || a.ndim == 0) {
    if (n > 0) f(a.data + begin * item, item, n);
    return;
  }
  // Axes that continue one another are walked as one.
  std::int64_t shape[max_ndim], stride[max_ndim];
  int ndim = 0;
  for (int i = 0; i < a.ndim; ++i) {
    if (a.shape[i] == 1) continue;
    const std::int64_t s = a.strides[i] * a.stride_unit;
    if (ndim > 0 && stride[ndim - 1] == s * a.shape[i]) {
      shape[ndim - 1] *= a.shape[i];
      stride[ndim - 1] = s;
    } else {
      shape[ndim] = a.shape[i];
      stride[ndim++] = s;
    }
  }
  if (ndim == 0) {
    if (n > 0) f(a.data, item, n);
    return;
  }
  std::int64_t index[max_ndim], rest = begin;
  std::byte* p = a.data;
  for (int i = ndim - 1; i >= 0; --i) {
    index[i] = shape[i] == 0 ? 0 : rest % shape[i];
    rest = shape[i] == 0 ? 0 : rest / shape[i];
    p += index[i] * stride[i];
  }
  const int inner = ndim - 1;
  while (n > 0) {
    const std::int64_t run = std::min(n, shape[inner] - index[inner]);
    f(p, stride[inner], run);
    n -= run;
    p += run * stride[inner];
    index[inner] += run;
    for (int i = inner; i > 0 && index[i] == shape[i]; --i) {
      p += stride[i - 1] - index[i] * stride[i];
      index[i] = 0;
      ++index[i - 1];
    }
  }
}

}  // namespace optimisers::inline OPT_ABI
