// nesterov.hpp: Nesterov's accelerated gradient, in the form that keeps x at the look-ahead point
// The sign of v is Optimisers.jl's: v holds the negative of the usual velocity's update.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Nesterov {
  double eta = 0.001;
  double rho = 0.9;

  static constexpr Text text{.name = "Nesterov",
                             .summary = "Gradient descent with Nesterov momentum.",
                             .update = "dx' ← −ρ² v + (1+ρ) η dx   (v before the step)\nv ← ρ v − η dx\ndx ← dx'",
                             .notes = "The velocity carries the opposite sign of Momentum's, as in Optimisers.jl.",
                             .reference = "Nesterov 1983; Sutskever et al. 2013, ICML"};
  static constexpr std::tuple fields{Field{"eta", &Nesterov::eta, Range::nonnegative, "learning rate"},
                                     Field{"rho", &Nesterov::rho, Range::unit, "decay of the velocity"}};
  static constexpr std::array slots{Slot<Nesterov>{"v"}};
  friend bool operator==(const Nesterov&, const Nesterov&) = default;

  template <class R>
  struct Step {
    R eta, rho, rho_squared, eta_ahead;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), R(rho), R(rho * rho), R((1 + rho) * eta)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& v) {
    const T ahead = k.eta_ahead * dx - k.rho_squared * v;
    v = k.rho * v - k.eta * dx;
    dx = ahead;
  }
};

}  // namespace optimisers::inline OPT_ABI
