// threads.hpp: the one thread pool. Static partition, safe after fork, serial when one thread is set.
#pragma once
#include <type_traits>

namespace optimisers {

// 1 to 1024. Starts as OPTIMISERS_NUM_THREADS, else the number of processors this process may run on.
void set_num_threads(int threads);
int get_num_threads();

namespace detail {
void parallel(int parts, void (*run)(void* context, int part), void* context);
}

// run(part) for part = 0 .. parts-1, each once, and waits. run must not throw.
template <class F>
void parallel(int parts, F&& run) {
  using Run = std::remove_reference_t<F>;
  detail::parallel(
      parts, [](void* f, int part) { (*static_cast<Run*>(f))(part); },
      const_cast<void*>(static_cast<const void*>(&run)));
}

}  // namespace optimisers
