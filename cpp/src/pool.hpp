// pool.hpp: threads that wait for parts of a job. Nothing here fails: where the system has no thread left, those there
// are do the work.
#pragma once
#include <atomic>
#include <cstddef>
#include <memory>

#include "optimisers/threads.hpp"

namespace optimisers::inline OPT_ABI {

// Where a thread's range of the parts begins.
int first_part(int parts, int thread, int threads);

// Part numbers are dealt out as ranges, one a thread. A thread that is through with its own takes parts of the others',
// so that nobody waits for one that the system has not let run yet: such a thread finds the round closed when it comes.
class Pool {
 public:
  explicit Pool(int workers);  // may throw std::bad_alloc, and starts what it can
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int wanted() const { return wanted_; }  // as many were asked for
  int size() const { return started_; }   // and are there, beside the caller
  // A job with fewer parts than there are threads wakes only the workers it needs.
  void run(int parts, Deal deal, void (*job)(void*, int), void* context) noexcept;

 private:
  struct Worker;
  struct Range;
  void start_missing() noexcept;
  bool all_taken() const;
  void take(std::size_t thread);
  bool enter();
  void leave();
  void work(int index);

  const int wanted_;
  int started_ = 0;
  int runs_to_retry_ = 0;  // before what could not be started is worth another try
  std::unique_ptr<Worker[]> workers_;
  std::unique_ptr<Range[]> ranges_;  // the caller's first
  std::atomic<unsigned> gate_;
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  Deal deal_ = Deal::taken;
  std::atomic<bool> stop_{false};  // a worker of a round that is over may still be looking
};

}  // namespace optimisers::inline OPT_ABI
