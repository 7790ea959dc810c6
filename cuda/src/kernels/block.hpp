// block.hpp: how kernels are written. A kernel is a struct with a Table (its argument), threads, phases and
//   struct Shared;
//   template <int Phase> OPT_FN static void run(const Table&, Shared&, unsigned block, int thread);
// All threads of a block go through a phase before any begins the next; what a thread keeps in between lies in Shared.
// So a GPU runs them with barriers between the phases, and the tests as loops on the host.
#pragma once
#include <atomic>
#include <cstdint>
#include <tuple>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// Counts callers up to n; true for the last, which sets the counter back. What the others wrote before is seen by it.
OPT_FN bool last_of(std::uint32_t* counter, std::uint32_t n) {
#ifdef __CUDA_ARCH__
  __threadfence();
  const bool last = atomicInc(counter, n - 1) == n - 1;
  __threadfence();
  return last;
#else
  const std::atomic_ref<std::uint32_t> count(*counter);
  const bool last = count.fetch_add(1) + 1 == n;
  if (last) count.store(0);
  return last;
#endif
}

OPT_FN void lower(std::uint32_t* to, std::uint32_t value) {
#ifdef __CUDA_ARCH__
  atomicMin(to, value);
#else
  const std::atomic_ref<std::uint32_t> least(*to);
  for (std::uint32_t now = least; value < now && !least.compare_exchange_weak(now, value);) {
  }
#endif
}

// Before the host is told of it.
OPT_FN void publish() {
#ifdef __CUDA_ARCH__
  __threadfence_system();
#endif
}

// f(0), f(1), ... f(N - 1), with what it indexes in registers: the compiler decides otherwise for long bodies.
template <int N, class F>
OPT_FN void each(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) { (f(I), ...); }(std::make_integer_sequence<int, N>{});
}

// f(a null pointer to the i-th type of the list), by halves.
template <class List, int Low = 0, int High = int(std::tuple_size_v<List>), class F>
OPT_FN void pick(int i, F&& f) {
  if constexpr (High - Low == 1) {
    f(static_cast<std::tuple_element_t<std::size_t(Low), List>*>(nullptr));
  } else {
    constexpr int middle = (Low + High) / 2;
    if (i < middle) pick<List, Low, middle>(i, f);
    else pick<List, middle, High>(i, f);
  }
}

}  // namespace optimisers::inline OPT_ABI::cuda
