// threads.cpp: a small pool of std::threads with static partition. Not OpenMP: its runtime hangs in a forked
// child and clashes with other copies of itself in the process.
#include "optimisers/threads.hpp"

#include <algorithm>
#include <atomic>
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

// Each worker waits for its round number to change, runs its parts of the job and counts itself done. A job with
// fewer parts than there are threads wakes only the workers it needs.
class Pool {
 public:
  explicit Pool(int workers) : workers_(static_cast<std::size_t>(workers)) {
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

  // Parts beyond the number of threads are dealt out in turn; the caller takes part 0 and its share.
  void run(int parts, void (*job)(void*, int), void* context) {
    job_ = job;
    context_ = context;
    parts_ = parts;
    const int needed = std::min(size(), parts - 1);
    left_.store(needed, std::memory_order_relaxed);
    for (int i = 0; i < needed; ++i) wake(*workers_[static_cast<std::size_t>(i)]);
    for (int part = 0; part < parts; part += size() + 1) job(context, part);
    for (int i = 0; i < spins && left_.load(std::memory_order_acquire) != 0; ++i) OPTIMISERS_PAUSE();
    for (int n = left_.load(std::memory_order_acquire); n != 0; n = left_.load(std::memory_order_acquire))
      left_.wait(n, std::memory_order_acquire);
  }

 private:
  struct alignas(64) Worker {
    std::atomic<unsigned> round{0};
    std::thread thread;
  };

  static void wake(Worker& worker) {
    worker.round.fetch_add(1, std::memory_order_release);
    worker.round.notify_one();
  }

  void work(int index) {
    std::atomic<unsigned>& round = workers_[static_cast<std::size_t>(index)]->round;
    unsigned seen = 0;
    while (true) {
      for (int i = 0; i < spins && round.load(std::memory_order_acquire) == seen; ++i) OPTIMISERS_PAUSE();
      round.wait(seen, std::memory_order_acquire);
      seen = round.load(std::memory_order_acquire);
      if (stop_) return;
      for (int part = index + 1; part < parts_; part += size() + 1) job_(context_, part);
      if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
    }
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int> left_{0};
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int parts_ = 0;
  bool stop_ = false;
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

void detail::parallel(int parts, void (*run)(void*, int), void* context) {
  auto& all = Threads::get();
  if (const Executor executor = all.current_executor(); executor.run != nullptr && parts > 1)
    return executor.run(executor.self, parts, run, context);
  std::unique_lock lock(all.mutex, std::defer_lock);
  if (parts > 1 && all.count > 1 && lock.try_lock()) {
    if (!all.pool || all.pool->size() != all.count - 1) all.pool = std::make_unique<Pool>(all.count - 1);
    return all.pool->run(parts, run, context);
  }
  for (int part = 0; part < parts; ++part) run(context, part);
}

}  // namespace optimisers
