// environment.hpp: what a call needs of the thread that makes it: floating point as programs start with it, whatever
// the caller has made of it, and enough stack. The thread gets its own environment back afterwards.
#pragma once
#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

// Rounding to nearest, subnormal numbers as they are, no traps; flags of exceptions are the caller's again, too. Only
// what arithmetic is done with: a few nanoseconds.
class DefaultFloats {
 public:
  DefaultFloats() noexcept : callers_(read()) {
    if (!is_default(callers_)) set_default();
  }
  ~DefaultFloats() { give_back(callers_); }
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
  using Control = unsigned;
  static constexpr Control start = 0x1f80, flags = 0x3f;
  static Control read() noexcept { return _mm_getcsr(); }
  static void write(Control control) noexcept { _mm_setcsr(control); }
  // Without a look whether it changed: reading waits for all arithmetic under way, which writing does not.
  static void give_back(Control control) noexcept { write(control); }
  static void set_default() noexcept { write(start); }
  static bool is_default(Control control) noexcept { return (control & ~flags) == start; }
#elif defined(__aarch64__) && defined(__GNUC__)
  struct Control {
    std::uint64_t control, status;
    bool operator==(const Control&) const = default;
  };
  static Control read() noexcept {
    Control c;
    asm volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(c.control), "=r"(c.status));
    return c;
  }
  static void write(Control c) noexcept {
    asm volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(c.control), "r"(c.status) : "memory");
  }
  static void give_back(Control c) noexcept {
    if (read() != c) write(c);
  }
  static void set_default() noexcept { write({0, 0}); }
  static bool is_default(Control c) noexcept { return c.control == 0; }
#else
  struct Control {
    std::fenv_t environment;
  };
  static Control read() noexcept {
    Control c;
    std::fegetenv(&c.environment);
    return c;
  }
  static void give_back(const Control& c) noexcept { std::fesetenv(&c.environment); }
  static void set_default() noexcept { std::fesetenv(FE_DFL_ENV); }  // not everywhere the address of one
  static bool is_default(const Control&) noexcept { return false; }
#endif
  const Control callers_;
};

// The same for what reads and prints numbers: the C library looks at all of the environment.
class DefaultNumbers {
 public:
  DefaultNumbers() noexcept {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultNumbers() { std::fesetenv(&callers_); }
  DefaultNumbers(const DefaultNumbers&) = delete;
  DefaultNumbers& operator=(const DefaultNumbers&) = delete;

 private:
  std::fenv_t callers_;
};

// ---- stack

class StackTooSmall : public std::bad_alloc {
 public:
  const char* what() const noexcept override;
};

// What an update takes at most, in buffers and frames (docs and public headers say 96 KiB, with what leads here).
inline constexpr std::size_t stack_needed = std::size_t(80) << 10;

// Calls may begin in [lowest, lowest + room) of this thread's stack, which ends at `highest`; all 0 before the first.
struct StackLimits {
  std::uintptr_t lowest, room, highest;
};
extern constinit OPT_THREAD_LOCAL StackLimits stack_limits;
void look_at_stack(std::uintptr_t here);  // throws StackTooSmall

// Below a thread's stack is other memory: running over its end need not be a crash.
inline void require_stack() {
#if defined(__GNUC__)
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (here - stack_limits.lowest >= stack_limits.room) [[unlikely]]
    look_at_stack(here);
#endif
}

// For the length of a call that computes.
class Call {
 public:
  Call() { require_stack(); }

 private:
  DefaultFloats floats_;
};

}  // namespace optimisers::inline OPT_ABI
