// portions.hpp: a list of leaves in equal portions, one a thread.
#pragma once
#include <algorithm>
#include <cstddef>

#include "optimisers/threads.hpp"

namespace optimisers {

// How many threads are worth their while for work of some ten nanoseconds a leaf.
inline std::size_t portion_count(std::size_t leaves) {
  constexpr std::size_t worth_a_thread = 2048;
  if (leaves < 2 * worth_a_thread) return 1;
  return std::min(leaves / worth_a_thread, std::size_t(get_num_threads()));
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

}  // namespace optimisers
