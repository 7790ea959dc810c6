// made_once.hpp: values that are made when they are first needed, and then stay.
#pragma once
#include <atomic>
#include <memory>
#include <type_traits>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::detail {

// What `make` returns, the first time: one value for each place in the program that calls this. Threads that come at
// once may each make one, and one is kept: there is no lock that a fork could leave locked in the child. It is never
// destroyed: functions that run at exit may still ask for it.
template <class Make>
OPT_HIDDEN const auto& made_once(Make make) {
  using T = std::remove_cvref_t<decltype(make())>;
  static constinit std::atomic<const T*> kept{nullptr};
  if (const T* known = kept.load(std::memory_order_acquire)) return *known;
  auto made = std::make_unique<const T>(make());
  const T* winner = nullptr;
  if (kept.compare_exchange_strong(winner, made.get(), std::memory_order_acq_rel)) winner = made.release();
  return *winner;
}

}  // namespace optimisers::inline OPT_ABI::detail
