// failure.hpp: from exceptions to values, at the boundary of calls that do not throw.
#pragma once
#include <new>

#include "environment.hpp"
#include "optimisers/result.hpp"

namespace optimisers::inline OPT_ABI {

// Whatever is being handled, as a Failure; never throws.
inline Failure current_failure() noexcept {
  try {
    try {
      throw;
    } catch (const Error& e) {
      return {e.kind(), e.what(), e.leaf()};
    } catch (const StackTooSmall& e) {
      return {ErrorKind::memory, e.what(), {}};
    } catch (const std::bad_alloc&) {
      return {ErrorKind::memory, "out of memory", {}};
    } catch (const std::exception& e) {
      return {ErrorKind::value, e.what(), {}};
    }
  } catch (...) {
    return {ErrorKind::memory, "out of memory", {}};  // short: needs no memory itself
  }
}

template <class F>
Result<> attempt(F&& f) noexcept {
  try {
    f();
    return {};
  } catch (...) {
    return current_failure();
  }
}

}  // namespace optimisers::inline OPT_ABI
