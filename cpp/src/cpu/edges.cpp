// edges.cpp: from arrays of any type and strides to blocks of a compute type, and back.
#include "cpu/edges.hpp"

#include <cstring>

#include "cpu/convert.hpp"
#include "cpu/dispatch.hpp"
#include "cpu/kernels.hpp"
#include "memory/overlap.hpp"

namespace optimisers::inline OPT_ABI::cpu {
namespace {

template <class To, class From>
void load_run(const std::byte* p, std::int64_t stride, std::int64_t n, std::byte* to) {
  for (std::int64_t i = 0; i < n; ++i) {
    From a;
    std::memcpy(&a, p + i * stride, sizeof a);
    const To b = convert<To>(a);
    std::memcpy(to + i * std::int64_t(sizeof b), &b, sizeof b);
  }
}
template <class To, class From>
void store_run(const std::byte* from, std::int64_t stride, std::int64_t n, std::byte* p) {
  for (std::int64_t i = 0; i < n; ++i) {
    From a;
    std::memcpy(&a, from + i * std::int64_t(sizeof a), sizeof a);
    const To b = convert<To>(a);
    std::memcpy(p + i * stride, &b, sizeof b);
  }
}

bool same_domain(DType a, DType b) { return is_trainable(a) && is_complex_dtype(a) == is_complex_dtype(b); }

}  // namespace

void load(const ArrayView& a, bool contiguous, std::int64_t begin, std::int64_t n, DType compute, std::byte* to) {
  const std::byte* p = a.data + begin * size_of(a.dtype);
  if (contiguous && is_aligned(a) && same_domain(a.dtype, compute)) {
    kernels().widen[real_index(a.dtype)][real_index(compute) - 2](p, to, n * reals(compute));
    return;
  }
  with_compute(compute, [&](auto c) {
    with_dtype(a.dtype, [&](auto s) {
      using C = decltype(c);
      using S = decltype(s);
      if constexpr (is_complex<C> || !is_complex<S>)
        for_each_run(a, begin, n, [&](const std::byte* run, std::int64_t stride, std::int64_t count) {
          load_run<C, S>(run, stride, count, to);
          to += count * std::int64_t(sizeof(C));
        });
    });
  });
}

void store(const ArrayView& a, bool contiguous, std::int64_t begin, std::int64_t n, DType compute,
           const std::byte* from) {
  if (contiguous && is_aligned(a)) {
    kernels().narrow[real_index(compute) - 2][real_index(a.dtype)](from, a.data + begin * size_of(a.dtype),
                                                                   n * reals(compute));
    return;
  }
  with_compute(compute, [&](auto c) {
    with_dtype(a.dtype, [&](auto s) {
      using C = decltype(c);
      using S = decltype(s);
      if constexpr (!std::is_integral_v<S> && is_complex<C> == is_complex<S>)
        for_each_run(a, begin, n, [&](std::byte* run, std::int64_t stride, std::int64_t count) {
          store_run<S, C>(from, stride, count, run);
          from += count * std::int64_t(sizeof(C));
        });
    });
  });
}

void load(const ArrayView& array, std::int64_t begin, std::int64_t n, DType compute, std::byte* to) {
  load(array, is_contiguous(array), begin, n, compute, to);
}

}  // namespace optimisers::inline OPT_ABI::cpu
