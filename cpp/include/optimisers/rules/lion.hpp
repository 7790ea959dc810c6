// lion.hpp: Lion, evolved sign momentum (Chen et al. 2023, arXiv:2302.06675)
// The paper's interpolation. Optimisers.jl up to 0.4.8 weighs the moment the other way round.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Lion {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};

  static constexpr Text text{.name = "Lion",
                             .summary = "The sign of an interpolated momentum.",
                             .update = "dx' ← η sign(β₁ m + (1−β₁) dx)\nm ← β₂ m + (1−β₂) dx\ndx ← dx'",
                             .notes =
                                 "The paper's update; Optimisers.jl up to 0.4.8 weighs the moment the other way round. "
                                 "The default β₂ is Optimisers.jl's, the paper's is 0.99.",
                             .reference = "Chen et al. 2023, arXiv:2302.06675"};
  static constexpr std::tuple fields{
      Field{"eta", &Lion::eta, Range::nonnegative, "learning rate: the size of every step"},
      Field{"beta", &Lion::beta, Range::unit, "weight of the moment in the step, and its decay"}};
  static constexpr std::array slots{Slot<Lion>{"m"}};
  friend bool operator==(const Lion&, const Lion&) = default;

  template <class R>
  struct Step {
    R eta, beta1, rest1, beta2, rest2;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), R(beta.first), R(1 - beta.first), R(beta.second), R(1 - beta.second)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m) {
    const T step = k.eta * sign(k.beta1 * m + k.rest1 * dx);
    m = k.beta2 * m + k.rest2 * dx;
    dx = step;
  }
};

}  // namespace optimisers::inline OPT_ABI
