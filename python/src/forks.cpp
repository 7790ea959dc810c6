// forks.cpp: counts forks, in the child.
#include "forks.hpp"

#include <atomic>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace optimisers::python {
namespace {
std::atomic<unsigned> forks{0};
}

void watch_forks() {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
#endif
}

unsigned fork_count() { return forks.load(); }

}  // namespace optimisers::python
