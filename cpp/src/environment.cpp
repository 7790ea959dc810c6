// environment.cpp: where a thread's stack ends, asked once a thread.
#include "environment.hpp"

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace optimisers::inline OPT_ABI {

constinit OPT_THREAD_LOCAL StackLimits stack_limits{0, 0, 0};

const char* StackTooSmall::what() const noexcept {
  return "the stack of this thread is too small: a call needs 96 KiB of it. Give the thread a larger one, or call from "
         "another thread";
}

namespace {

// Addresses [lowest, highest); both 0 where the system does not say.
struct Stack {
  std::uintptr_t lowest = 0, highest = 0;
};

Stack stack_of_this_thread() {
#if defined(__linux__)
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return {};
  void* lowest = nullptr;
  std::size_t size = 0;
  const bool known = pthread_attr_getstack(&attributes, &lowest, &size) == 0;
  pthread_attr_destroy(&attributes);
  if (!known) return {};
  return {reinterpret_cast<std::uintptr_t>(lowest), reinterpret_cast<std::uintptr_t>(lowest) + size};
#elif defined(__APPLE__)
  const auto highest = reinterpret_cast<std::uintptr_t>(pthread_get_stackaddr_np(pthread_self()));
  return {highest - pthread_get_stacksize_np(pthread_self()), highest};
#else
  return {};
#endif
}

}  // namespace

void look_at_stack(std::uintptr_t here) {
  if (stack_limits.highest == 0) {
    const Stack stack = stack_of_this_thread();
    if (stack.highest == 0 || stack.highest - stack.lowest < stack_needed) {
      if (stack.lowest <= here && here < stack.highest) throw StackTooSmall();
      return;
    }
    stack_limits = {stack.lowest + stack_needed, stack.highest - stack.lowest - stack_needed, stack.highest};
  }
  const bool is_here = stack_limits.lowest - stack_needed <= here && here < stack_limits.highest;
  if (is_here && here < stack_limits.lowest) throw StackTooSmall();  // elsewhere is a fibre's, which nobody knows
}

}  // namespace optimisers::inline OPT_ABI
