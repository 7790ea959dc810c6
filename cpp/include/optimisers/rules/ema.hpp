// ema.hpp: a moving average of the parameter, as the last stage (Polyak & Juditsky 1992; Ruppert 1988)
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Ema {
  double rho = 0.999;

  static constexpr Text text{
      .name = "Ema",
      .summary = "Keeps a moving average of the parameter beside it: the last stage.",
      .update = "a ← ρ a + (1−ρ) (x − dx)   (a starts at x);  dx stays",
      .notes =
          "The average is a slot, in float32 for 16-bit leaves, where an average in the leaf's own type would stand "
          "still. torch.optim.swa_utils' EMA with decay ρ, in the sweep of the step. lerp_ averages whole models.",
      .reference = "Polyak & Juditsky 1992, SIAM J. Control Optim. 30"};
  static constexpr std::tuple fields{Field{"rho", &Ema::rho, Range::unit, "decay of the average"}};
  static constexpr std::array slots{Slot<Ema>{.name = "a", .at_x = true}};
  friend bool operator==(const Ema&, const Ema&) = default;

  template <class R>
  struct Step {
    R rho, rest;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(rho), R(1 - rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& a) {
    a = k.rho * a + k.rest * (x - dx);
  }
};

}  // namespace optimisers::inline OPT_ABI
