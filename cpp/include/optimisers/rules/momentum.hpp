// momentum.hpp: gradient descent with heavy-ball momentum (Polyak 1964)
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Momentum {
  double eta = 0.01;
  double rho = 0.9;

  static constexpr Text text{.name = "Momentum",
                             .summary = "Gradient descent with heavy-ball momentum.",
                             .update = "v ← ρ v + η dx\ndx ← v",
                             .notes =
                                 "η enters the velocity, as in Optimisers.jl; torch.optim.SGD multiplies by the "
                                 "learning rate on the way out, which differs once the rate is changed.",
                             .reference = "Polyak 1964, USSR Comput. Math. Math. Phys. 4(5)"};
  static constexpr std::tuple fields{Field{"eta", &Momentum::eta, Range::nonnegative, "learning rate"},
                                     Field{"rho", &Momentum::rho, Range::unit, "decay of the velocity"}};
  static constexpr std::array slots{Slot<Momentum>{"v"}};
  friend bool operator==(const Momentum&, const Momentum&) = default;

  template <class R>
  struct Step {
    R eta, rho;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), R(rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& v) {
    v = k.rho * v + k.eta * dx;
    dx = v;
  }
};

}  // namespace optimisers::inline OPT_ABI
