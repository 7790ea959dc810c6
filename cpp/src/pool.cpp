// pool.cpp: a small pool of threads. Not OpenMP: its runtime hangs in a forked child and clashes with other copies of
// itself in the process.
#include "pool.hpp"

#include <algorithm>
#include <cstdint>
#include <thread>

#include "environment.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define OPTIMISERS_PTHREADS
#endif
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#define OPTIMISERS_PAUSE() _mm_pause()
#else
#define OPTIMISERS_PAUSE() std::this_thread::yield()
#endif

namespace optimisers::inline OPT_ABI {
namespace {

// About 20 microseconds of waiting awake: longer than the gap between the passes of one update, short enough
// that a program which does something else gets its processors back.
constexpr int spins = 4000;
constexpr unsigned closed = 1U << 31;  // and below it, how many workers are inside
constexpr int runs_between_tries = 1000;

}  // namespace

#ifdef OPTIMISERS_PTHREADS
// The default would be what `ulimit -s` says: gigabytes of address space for many threads, or too little (128 KiB with
// musl).
constexpr std::size_t stack_size = std::size_t(1) << 20;

class PoolThread {
 public:
  bool start(void* (*run)(void*), void* with) noexcept {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    (void)pthread_attr_setstacksize(&attributes, stack_size);
    const bool done = pthread_create(&thread_, &attributes, run, with) == 0;
    pthread_attr_destroy(&attributes);
    return done;
  }
  void join() { pthread_join(thread_, nullptr); }

 private:
  pthread_t thread_{};
};
#else
class PoolThread {
 public:
  bool start(void* (*run)(void*), void* with) noexcept {
    try {
      thread_ = std::thread(run, with);
      return true;
    } catch (const std::exception&) {  // std::system_error: no thread; std::bad_alloc
      return false;
    }
  }
  void join() { thread_.join(); }

 private:
  std::thread thread_;
};
#endif

int first_part(int parts, int thread, int threads) {
  return static_cast<int>(static_cast<std::int64_t>(parts) * thread / threads);
}

struct alignas(64) Pool::Worker {
  std::atomic<unsigned> round{0};
  PoolThread thread;
  Pool* pool = nullptr;
  int index = 0;

  void wake() {
    round.fetch_add(1, std::memory_order_release);
    round.notify_one();
  }
  static void* work(void* self) {
    const Worker& worker = *static_cast<Worker*>(self);
    worker.pool->work(worker.index);
    return nullptr;
  }
};

struct alignas(64) Pool::Range {
  std::atomic<int> next{0};
  int end = 0;
};

Pool::Pool(int workers)
    : wanted_(workers),
      workers_(std::make_unique<Worker[]>(static_cast<std::size_t>(workers))),
      ranges_(std::make_unique<Range[]>(static_cast<std::size_t>(workers) + 1)),
      gate_(closed) {
  start_missing();
}

Pool::~Pool() {
  stop_ = true;
  for (int i = 0; i < started_; ++i) workers_[static_cast<std::size_t>(i)].wake();
  for (int i = 0; i < started_; ++i) workers_[static_cast<std::size_t>(i)].thread.join();
}

void Pool::start_missing() noexcept {
  for (; started_ < wanted_; ++started_) {
    Worker& worker = workers_[static_cast<std::size_t>(started_)];
    worker.pool = this;
    worker.index = started_;
    if (!worker.thread.start(&Worker::work, &worker)) break;
  }
  runs_to_retry_ = runs_between_tries;
}

void Pool::run(int parts, Deal deal, void (*job)(void*, int), void* context) noexcept {
  if (started_ < wanted_ && --runs_to_retry_ == 0) start_missing();
  job_ = job;
  context_ = context;
  deal_ = deal;
  const int used = std::min(size() + 1, parts);
  for (int t = 0; t <= wanted_; ++t) {
    Range& range = ranges_[static_cast<std::size_t>(t)];
    range.next.store(first_part(parts, std::min(t, used), used), std::memory_order_relaxed);
    range.end = first_part(parts, std::min(t + 1, used), used);
  }
  gate_.store(0, std::memory_order_release);
  for (int i = 0; i + 1 < used; ++i) workers_[static_cast<std::size_t>(i)].wake();
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

bool Pool::all_taken() const {
  return std::all_of(ranges_.get(), ranges_.get() + wanted_ + 1,
                     [](const Range& r) { return r.next.load(std::memory_order_relaxed) >= r.end; });
}

// Runs the parts of a thread's own range, and then, as far as they may be taken, of the next ones'.
void Pool::take(std::size_t thread) {
  const std::size_t threads = static_cast<std::size_t>(wanted_) + 1, count = deal_ == Deal::fixed ? 1 : threads;
  for (std::size_t i = 0; i < count; ++i) {
    Range& range = ranges_[(thread + i) % threads];
    if (range.next.load(std::memory_order_relaxed) >= range.end) continue;
    for (int part = range.next++; part < range.end; part = range.next++) job_(context_, part);
  }
}

bool Pool::enter() {
  unsigned gate = gate_.load(std::memory_order_relaxed);
  while ((gate & closed) == 0)
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  return false;
}

void Pool::leave() {
  if (gate_.fetch_sub(1, std::memory_order_acq_rel) == (closed | 1)) gate_.notify_one();
}

void Pool::work(int index) {
  const DefaultFloats floats;  // a new thread has those of the one that made it
  std::atomic<unsigned>& round = workers_[static_cast<std::size_t>(index)].round;
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

}  // namespace optimisers::inline OPT_ABI
