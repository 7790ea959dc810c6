// threads.hpp: the one thread pool. Safe after fork, serial when one thread is set.
#pragma once
#include <type_traits>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

// 1 to 1024. Starts as OPTIMISERS_NUM_THREADS, else the number of processors this process may run on. While an
// executor is set, get_num_threads() is its number. They are started when there is work for them, with 1 MiB of stack
// each; where the system has no more, those there are do it. A thread that makes a call needs 96 KiB of stack.
// Throws Error(value): out of range; get_num_threads, and what else asks first: OPTIMISERS_NUM_THREADS is no such
// number (set_num_threads overrules it).
void set_num_threads(int threads);
int get_num_threads();

// Ends the pool's threads, when the call that uses them is over; the next call with work for several starts new ones.
// For programs that must not have any: before a fork, or a sandbox. What was linked into a plugin ends its threads by
// itself when that is unloaded, and at exit.
void shutdown_threads();

// A host program's own threads, in place of the pool. run() calls part(context, i) for i = 0 .. parts-1, each once,
// on any threads, returns when all have returned, and must not throw. Results never depend on who runs the parts.
struct Executor {
  void (*run)(void* self, int parts, void (*part)(void* context, int index), void* context) = nullptr;
  void* self = nullptr;
  int threads = 1;  // 1 to 1024: the work of an update is cut into at most so many parts
};
// From the next update on, in the whole process; Executor{} is the pool again. A call that is under way keeps the
// executor it began with, which must outlive it. Its threads need 96 KiB of stack, too, and may have any floating-point
// environment. Throws Error(value) for a number of threads out of range.
void set_executor(const Executor& executor);

// Each thread has neighbouring parts, the same in every call. taken: whoever is done takes parts of the others. fixed:
// nobody does, for what decides where memory lies.
enum class Deal { taken, fixed };

namespace detail {
void parallel(int parts, Deal deal, void (*run)(void* context, int part), void* context);
}

// run(part) for part = 0 .. parts-1, each once, and waits. run must not throw. With more parts than threads, a thread
// that the system holds up keeps the others from finishing for one part at most.
template <class F>
void parallel(int parts, F&& run, Deal deal = Deal::taken) {
  using Run = std::remove_reference_t<F>;
  detail::parallel(
      parts, deal, [](void* f, int part) { (*static_cast<Run*>(f))(part); },
      const_cast<void*>(static_cast<const void*>(&run)));
}

}  // namespace optimisers::inline OPT_ABI
