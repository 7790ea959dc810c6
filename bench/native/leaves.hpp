// leaves.hpp: what every yardstick works on, and its even partition over threads.
#pragma once
#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

#define BENCH_API extern "C" __attribute__((visibility("default")))

namespace bench {

// The arrays of a model, as Python hands them over. Slot k of leaf i is slot[k * count + i].
struct Leaves {
  std::int64_t count;
  const std::int64_t* size;
  void* const* x;
  const void* const* dx;
  void* const* slot;

  std::int64_t total() const {
    std::int64_t n = 0;
    for (std::int64_t i = 0; i < count; ++i) n += size[i];
    return n;
  }
};

// Below this a second thread costs more than it saves.
inline constexpr std::int64_t worth_a_thread = 40'000;
inline constexpr std::int64_t grain = 16;  // elements: threads do not share a cache line

// run(leaf, begin, end) for pieces that together are all elements, in equal shares.
template <class Run>
void each_piece(const Leaves& leaves, int part, int parts, Run&& run) {
  const std::int64_t total = leaves.total(), share = ((total + parts - 1) / parts + grain - 1) / grain * grain;
  const std::int64_t lo = std::min(total, share * part), hi = std::min(total, lo + share);
  std::int64_t base = 0;
  for (std::int64_t i = 0; i < leaves.count && base < hi; base += leaves.size[i], ++i) {
    const std::int64_t begin = std::max(lo, base), end = std::min(hi, base + leaves.size[i]);
    if (begin < end) run(i, begin - base, end - base);
  }
}

template <class Run>
void on_threads(const Leaves& leaves, [[maybe_unused]] int threads, Run&& run) {
#ifdef _OPENMP
  const int parts = leaves.total() < worth_a_thread ? 1 : threads;
  if (parts > 1) {
#pragma omp parallel num_threads(parts)
    each_piece(leaves, omp_get_thread_num(), parts, run);
    return;
  }
#endif
  each_piece(leaves, 0, 1, run);
}

template <class T>
T* at(void* array, std::int64_t element) {
  return static_cast<T*>(array) + element;
}
template <class T>
const T* at(const void* array, std::int64_t element) {
  return static_cast<const T*>(array) + element;
}

// The sum of squares of all gradients: pieces of four thousand in float, their sums in double.
double sum_of_squares(const Leaves& leaves, int threads);

}  // namespace bench
