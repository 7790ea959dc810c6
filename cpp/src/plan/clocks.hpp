// clocks.hpp: what one call does to the clocks of one leaf: which of its stages run, on the host and on accelerators.
#pragma once
#include <cstdint>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

// The stages of a leaf that run in a call.
struct Course {
  std::uint16_t first = 0, end = 0;
  bool no_gradient = false;  // the first of them starts from dx = 0
  bool writes = true;        // dx is subtracted in the end (false: a stage has not opened)
};

// Ticks one stage after the other until one does not open. `stages` answers for stage s:
//   gating(s), tick(s), open(s) after tick, miss(s) in place of tick where there is no gradient, flush(s, has_gradient)
//   in place of both where all stages are to open on what they hold.
// False: nothing is to be done for the leaf in this call.
template <class Stages>
OPT_FN bool advance(Stages&& stages, int count, bool has_gradient, Course& course, bool flush = false) {
  int s = 0;
  if (!has_gradient) {  // only a gating stage takes note of a missing gradient
    while (s < count && !(stages.gating(s) && (!flush || stages.flush(s, false)))) ++s;
    if (s == count || !(flush || stages.miss(s))) return false;
    course.no_gradient = true;
    course.first = static_cast<std::uint16_t>(s++);
  }
  course.end = static_cast<std::uint16_t>(count);
  for (; s < count; ++s) {
    if (flush && stages.gating(s)) {
      stages.flush(s, true);
      continue;
    }
    stages.tick(s);
    if (stages.gating(s) && !stages.open(s)) {
      course.end = static_cast<std::uint16_t>(s + 1);
      course.writes = false;
      break;
    }
  }
  return true;
}

}  // namespace optimisers::inline OPT_ABI
