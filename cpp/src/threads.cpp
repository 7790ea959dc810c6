// threads.cpp: the threads of this process: how many, whose, and what becomes of them when it forks or ends.
#include "optimisers/threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <thread>

#include "environment.hpp"
#include "optimisers/error.hpp"
#include "pool.hpp"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <unistd.h>
#define OPTIMISERS_FORK
#endif

namespace optimisers::inline OPT_ABI {
namespace {

constexpr int max_threads = 1024;

int processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int initial_threads() {
  if (const char* text = std::getenv("OPTIMISERS_NUM_THREADS"); text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (*end != '\0' || n < 1 || n > max_threads)
      throw Error(ErrorKind::value,
                  std::string("OPTIMISERS_NUM_THREADS must be an integer from 1 to 1024, got \"") + text + "\"");
    return static_cast<int>(n);
  }
  return std::min(processors(), max_threads);
}

// The same ranges for a host's threads, which are one part each.
struct Ranges {
  int parts, count;
  void (*run)(void*, int);
  void* context;
  static void run_range(void* self, int index) {
    const DefaultFloats floats;
    const Ranges& r = *static_cast<const Ranges*>(self);
    const int end = first_part(r.parts, index + 1, r.count);
    for (int part = first_part(r.parts, index, r.count); part < end; ++part) r.run(r.context, part);
  }
};

// One call at a time uses the pool; another that comes meanwhile runs its parts itself.
struct Threads {
  std::mutex mutex;
  Pool* pool = nullptr;
  long owner = 0;             // the process whose threads those of the pool are
  std::atomic<int> count{0};  // 0: not asked for yet
  std::mutex executor_mutex;
  Executor executor;

  Executor current_executor() {
    std::lock_guard lock(executor_mutex);
    return executor;
  }

  int wanted() {
    if (const int known = count.load()) return known;
    int none = 0;
    count.compare_exchange_strong(none, initial_threads());
    return count.load();
  }

  // With the mutex held; null where there is no memory for one.
  Pool* current_pool() noexcept {
    if (pool != nullptr && pool->wanted() != count - 1) end_pool();
    if (pool == nullptr && count > 1) try {
        pool = new Pool(count - 1);
        owner = process();
      } catch (const std::bad_alloc&) {
        return nullptr;
      }
    return pool;
  }

  void end_pool() noexcept {
    delete pool;
    pool = nullptr;
  }

  static long process() {
#ifdef OPTIMISERS_FORK
    return static_cast<long>(getpid());
#else
    return 0;
#endif
  }
};

// Not destroyed: functions that run at exit may still update. (Not every platform has mutexes that are there before the
// program runs.)
Threads& here() {
  alignas(Threads) static std::byte memory[sizeof(Threads)];
  static Threads& made = *new (memory) Threads;
  return made;
}

#ifdef OPTIMISERS_FORK
// What must be known of before anybody forks, and what ends when this code is unloaded: a plugin's dlclose unmaps what
// the workers run. Not in a process that was cloned without a word to anybody, which has no workers to wait for.
struct Loaded {
  Loaded() {
    (void)here();  // a fork meets no half-made one
    // The child has none of the workers: it forgets them (their memory is lost, once a fork) and starts anew.
    pthread_atfork(
        [] {
          here().mutex.lock();
          here().executor_mutex.lock();
        },
        [] {
          here().executor_mutex.unlock();
          here().mutex.unlock();
        },
        [] {
          here().pool = nullptr;
          here().executor_mutex.unlock();
          here().mutex.unlock();
        });
  }
  ~Loaded() {
    std::unique_lock lock(here().mutex, std::try_to_lock);  // at exit another thread may be in the middle of a call
    if (lock && here().owner == Threads::process()) here().end_pool();
  }
};
const Loaded loaded;
#endif

}  // namespace

int get_num_threads() {
  const Executor executor = here().current_executor();
  return executor.run != nullptr ? executor.threads : here().wanted();
}

void set_num_threads(int threads) {
  if (threads < 1 || threads > max_threads)
    throw Error(ErrorKind::value,
                "set_num_threads: expected an integer from 1 to 1024, got " + std::to_string(threads));
  std::lock_guard lock(here().mutex);
  if (here().count != threads) here().end_pool();
  here().count = threads;
}

void shutdown_threads() {
  std::lock_guard lock(here().mutex);
  here().end_pool();
}

void set_executor(const Executor& executor) {
  if (executor.threads < 1 || executor.threads > max_threads)
    throw Error(ErrorKind::value,
                "set_executor: expected threads from 1 to 1024, got " + std::to_string(executor.threads));
  std::lock_guard lock(here().executor_mutex);
  here().executor = executor;
}

void detail::parallel(int parts, Deal deal, void (*run)(void*, int), void* context) {
  if (const Executor executor = here().current_executor(); executor.run != nullptr && parts > 1) {
    Ranges ranges{parts, std::min(parts, executor.threads), run, context};
    return executor.run(executor.self, ranges.count, Ranges::run_range, &ranges);
  }
  std::unique_lock lock(here().mutex, std::defer_lock);
  if (parts > 1 && here().wanted() > 1 && lock.try_lock())
    if (Pool* pool = here().current_pool()) return pool->run(parts, deal, run, context);
  for (int part = 0; part < parts; ++part) run(context, part);
}

}  // namespace optimisers::inline OPT_ABI
