// portions.hpp: a list of leaves in equal portions, for the threads to take.
#pragma once
#include <algorithm>
#include <cstddef>

#include "optimisers/threads.hpp"

namespace optimisers::inline OPT_ABI {

inline constexpr int parts_a_thread = 16;  // for others to take when it is late

// How many portions are worth their while for work of some ten nanoseconds a leaf.
inline std::size_t portion_count(std::size_t leaves) {
  constexpr std::size_t worth_a_thread = 2048;
  const std::size_t wanted = leaves / worth_a_thread;
  if (wanted < 2) return 1;  // not asked how many there are, which takes a lock
  const std::size_t threads = std::min(wanted, std::size_t(get_num_threads()));
  return threads < 2 ? 1 : threads * parts_a_thread;
}

// f(portion, begin, end) for each; must not throw.
template <class F>
void in_portions(std::size_t leaves, std::size_t portions, F&& f) {
  const auto run = [&](int p) {
    const std::size_t portion = std::size_t(p);
    f(portion, leaves * portion / portions, leaves * (portion + 1) / portions);
  };
  if (portions == 1) run(0);
  else parallel(int(portions), run);
}

}  // namespace optimisers::inline OPT_ABI
