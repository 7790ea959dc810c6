// failing.cpp: operator new and pthread_create of the test program.
#include "failing.hpp"

#include <cerrno>
#include <cstdlib>
#include <new>

#if defined(__linux__) && !defined(__SANITIZE_THREAD__)
#include <dlfcn.h>
#include <pthread.h>
#define REFUSE_THREADS
#endif

namespace optimisers::test::failing {

thread_local int allocations_until_failure = -1, allocations = 0;
int threads_until_failure = -1, threads_started = 0;

bool can_refuse_threads() {
#ifdef REFUSE_THREADS
  return true;
#else
  return false;
#endif
}

namespace {
bool fails() {
  ++allocations;
  return allocations_until_failure >= 0 && allocations_until_failure-- == 0;
}
}  // namespace

}  // namespace optimisers::test::failing

void* operator new(std::size_t bytes) {
  void* block = optimisers::test::failing::fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto a = static_cast<std::size_t>(alignment);
  void* block = optimisers::test::failing::fails() ? nullptr : std::aligned_alloc(a, (bytes + a) / a * a);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
// Those that do not throw, too (stable_sort takes its buffer from them): memory must not come from one allocator and go
// to another.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return optimisers::test::failing::fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& nothrow) noexcept { return operator new(bytes, nothrow); }
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, std::align_val_t alignment) { return operator new(bytes, alignment); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

#ifdef REFUSE_THREADS
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* with) {
  using namespace optimisers::test::failing;
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_until_failure == 0) return EAGAIN;
  if (threads_until_failure > 0) --threads_until_failure;
  ++threads_started;
  return create(thread, attributes, run, with);
}
#endif
