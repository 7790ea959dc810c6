// threads.cpp: a small pool of std::threads. Not OpenMP: its runtime hangs in a forked
// child and clashes with other copies of itself in the process.
#include "optimisers/threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "optimisers/error.hpp"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define OPTIMISERS_FORK
#endif
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define OPTIMISERS_PAUSE() _mm_pause()
#else
#define OPTIMISERS_PAUSE() std::this_thread::yield()
#endif

namespace optimisers {
namespace {

constexpr int max_threads = 1024;
// About 20 microseconds of waiting awake: longer than the gap between the passes of one update, short enough
// that a program which does something else gets its processors back.
constexpr int spins = 4000;

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

// Where a thread's range of the parts begins.
int first_part(int parts, int thread, int threads) {
  return static_cast<int>(static_cast<std::int64_t>(parts) * thread / threads);
}

// Part numbers are dealt out as ranges, one a thread. A thread that is through with its own takes parts of the others',
// so that nobody waits for one that the system has not let run yet: such a thread finds the round closed when it comes.
class Pool {
 public:
  explicit Pool(int workers)
      : workers_(static_cast<std::size_t>(workers)), ranges_(static_cast<std::size_t>(workers) + 1) {
    for (auto& w : workers_) w = std::make_unique<Worker>();
    for (int i = 0; i < workers; ++i)
      workers_[static_cast<std::size_t>(i)]->thread = std::thread([this, i] { work(i); });
  }
  ~Pool() {
    stop_ = true;
    for (auto& w : workers_) wake(*w);
    for (auto& w : workers_) w->thread.join();
  }
  int size() const { return static_cast<int>(workers_.size()); }

  // A job with fewer parts than there are threads wakes only the workers it needs.
  void run(int parts, Deal deal, void (*job)(void*, int), void* context) {
    job_ = job;
    context_ = context;
    deal_ = deal;
    const int used = std::min(size() + 1, parts);
    for (int t = 0; t <= size(); ++t) {
      Range& range = ranges_[static_cast<std::size_t>(t)];
      range.next.store(first_part(parts, std::min(t, used), used), std::memory_order_relaxed);
      range.end = first_part(parts, std::min(t + 1, used), used);
    }
    gate_.store(0, std::memory_order_release);
    for (int i = 0; i + 1 < used; ++i) wake(*workers_[static_cast<std::size_t>(i)]);
    take(0);
    if (deal == Deal::fixed)
      while (!all_taken()) std::this_thread::yield();
    unsigned gate = gate_.fetch_or(closed, std::memory_order_acq_rel) | closed;
    for (int i = 0; i < spins && gate != closed; ++i) {
      OPTIMISERS_PAUSE();
      gate = gate_.load(std::memory_order_acquire);
    }
    for (; gate != closed; gate = gate_.load(std::memory_order_acquire)) gate_.wait(gate, std::memory_order_acquire);
  }

 private:
  struct alignas(64) Worker {
    std::atomic<unsigned> round{0};
    std::thread thread;
  };
  struct alignas(64) Range {
    std::atomic<int> next{0};
    int end = 0;
  };
  static constexpr unsigned closed = 1U << 31;  // and below it, how many workers are inside

  static void wake(Worker& worker) {
    worker.round.fetch_add(1, std::memory_order_release);
    worker.round.notify_one();
  }

  bool all_taken() const {
    return std::all_of(ranges_.begin(), ranges_.end(),
                       [](const Range& r) { return r.next.load(std::memory_order_relaxed) >= r.end; });
  }

  // Runs the parts of a thread's own range, and then, as far as they may be taken, of the next ones'.
  void take(std::size_t thread) {
    const std::size_t count = deal_ == Deal::fixed ? 1 : ranges_.size();
    for (std::size_t i = 0; i < count; ++i) {
      Range& range = ranges_[(thread + i) % ranges_.size()];
      if (range.next.load(std::memory_order_relaxed) >= range.end) continue;
      for (int part = range.next++; part < range.end; part = range.next++) job_(context_, part);
    }
  }

  bool enter() {
    unsigned gate = gate_.load(std::memory_order_relaxed);
    while ((gate & closed) == 0)
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed))
        return true;
    return false;
  }
  void leave() {
    if (gate_.fetch_sub(1, std::memory_order_acq_rel) == (closed | 1)) gate_.notify_one();
  }

  void work(int index) {
    std::atomic<unsigned>& round = workers_[static_cast<std::size_t>(index)]->round;
    unsigned seen = 0;
    while (true) {
      for (int i = 0; i < spins && round.load(std::memory_order_acquire) == seen; ++i) OPTIMISERS_PAUSE();
      round.wait(seen, std::memory_order_acquire);
      seen = round.load(std::memory_order_acquire);
      if (stop_) return;
      if (!enter()) continue;
      take(static_cast<std::size_t>(index) + 1);
      leave();
    }
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Range> ranges_;
  std::atomic<unsigned> gate_{closed};
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  Deal deal_ = Deal::taken;
  std::atomic<bool> stop_{false};  // a worker of a round that is over may still be looking
};

// The same ranges for a host's threads, which are one part each.
struct Ranges {
  int parts, count;
  void (*run)(void*, int);
  void* context;
  static void run_range(void* self, int index) {
    const Ranges& r = *static_cast<const Ranges*>(self);
    const int end = first_part(r.parts, index + 1, r.count);
    for (int part = first_part(r.parts, index, r.count); part < end; ++part) r.run(r.context, part);
  }
};

// One call at a time uses the pool; another that comes meanwhile runs its parts itself.
struct Threads {
  std::mutex mutex;
  std::unique_ptr<Pool> pool;
  std::atomic<int> count;
  std::mutex executor_mutex;
  Executor executor;

  Executor current_executor() {
    std::lock_guard lock(executor_mutex);
    return executor;
  }

  Threads() : count(initial_threads()) {
#ifdef OPTIMISERS_FORK
    // The child has none of the workers: forget them (their memory is lost, once per fork) and start anew.
    pthread_atfork(
        [] {
          get().mutex.lock();
          get().executor_mutex.lock();
        },
        [] {
          get().executor_mutex.unlock();
          get().mutex.unlock();
        },
        [] {
          (void)get().pool.release();
          get().executor_mutex.unlock();
          get().mutex.unlock();
        });
#endif
  }
  static Threads& get() {
    static Threads& threads = *new Threads;  // never destroyed: workers may outlive static destruction
    return threads;
  }
};

}  // namespace

int get_num_threads() {
  const Executor executor = Threads::get().current_executor();
  return executor.run != nullptr ? executor.threads : Threads::get().count.load();
}

void set_num_threads(int threads) {
  if (threads < 1 || threads > max_threads)
    throw Error(ErrorKind::value,
                "set_num_threads: expected an integer from 1 to 1024, got " + std::to_string(threads));
  auto& all = Threads::get();
  std::lock_guard lock(all.mutex);
  if (all.count != threads) all.pool.reset();
  all.count = threads;
}

void set_executor(const Executor& executor) {
  if (executor.threads < 1 || executor.threads > max_threads)
    throw Error(ErrorKind::value,
                "set_executor: expected threads from 1 to 1024, got " + std::to_string(executor.threads));
  auto& all = Threads::get();
  std::lock_guard lock(all.executor_mutex);
  all.executor = executor;
}

void detail::parallel(int parts, Deal deal, void (*run)(void*, int), void* context) {
  auto& all = Threads::get();
  if (const Executor executor = all.current_executor(); executor.run != nullptr && parts > 1) {
    Ranges ranges{parts, std::min(parts, executor.threads), run, context};
    return executor.run(executor.self, ranges.count, Ranges::run_range, &ranges);
  }
  std::unique_lock lock(all.mutex, std::defer_lock);
  if (parts > 1 && all.count > 1 && lock.try_lock()) {
    if (!all.pool || all.pool->size() != all.count - 1) all.pool = std::make_unique<Pool>(all.count - 1);
    return all.pool->run(parts, deal, run, context);
  }
  for (int part = 0; part < parts; ++part) run(context, part);
}

}  // namespace optimisers
