// lookahead.hpp: Lookahead, slow weights that follow the fast ones (Zhang et al. 2019, arXiv:1907.08610), a last stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Lookahead {
  std::int64_t n = 5;
  double weight = 0.5;

  static constexpr Text text{
      .name = "Lookahead",
      .summary = "After every n steps the parameter goes back part of the way to where it was then: the last stage.",
      .update = "every n-th step: a ← a + w (x − dx − a);  dx ← x − a   (a starts at x)",
      .notes =
          "The rules before it keep their state, as in the paper's experiments by default and in timm. a, in float32 "
          "for "
          "16-bit leaves, holds the slow weights; n is the paper's k and w its α.",
      .reference = "Zhang et al. 2019, arXiv:1907.08610"};
  static constexpr std::tuple fields{Field{"n", &Lookahead::n, Range::count, "steps of the fast weights"},
                                     Field{"weight", &Lookahead::weight, Range::nonnegative, "of the fast weights"}};
  static constexpr std::array slots{Slot<Lookahead>{.name = "a", .at_x = true}};
  friend bool operator==(const Lookahead&, const Lookahead&) = default;

  struct Clock {
    double steps = 0;
  };
  static constexpr std::array clock{"steps"};

  template <class R>
  struct Step {
    R weight;
    R meet;  // 1: fast and slow weights do
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.steps += 1;
    const bool meet = c.steps >= double(n);
    if (meet) c.steps = 0;
    return {R(weight), R(meet)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& a) {
    const bool meet = k.meet != 0;
    a = meet ? a + k.weight * (x - dx - a) : a;
    dx = meet ? x - a : dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
