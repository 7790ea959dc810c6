// signum.hpp: Signum, the sign of a momentum (Bernstein et al. 2018, arXiv:1802.04434)
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Signum {
  double eta = 1e-3;
  double rho = 0.9;

  static constexpr Text text{
      .name = "Signum",
      .summary = "The sign of a momentum; with ρ = 0 the sign of the gradient.",
      .update = "m ← ρ m + (1−ρ) dx\ndx ← η sign(m)",
      .notes = "The paper's default η is 1e-4. optax.sign_sgd is ρ = 0. Complex: sign(z) = z/|z|.",
      .reference = "Bernstein et al. 2018, arXiv:1802.04434"};
  static constexpr std::tuple fields{
      Field{"eta", &Signum::eta, Range::nonnegative, "learning rate: the size of every step"},
      Field{"rho", &Signum::rho, Range::unit, "decay of the momentum"}};
  static constexpr std::array slots{Slot<Signum>{"m"}};
  friend bool operator==(const Signum&, const Signum&) = default;

  template <class R>
  struct Step {
    R eta, rho, rest;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), R(rho), R(1 - rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m) {
    m = k.rho * m + k.rest * dx;
    dx = k.eta * sign(m);
  }
};

}  // namespace optimisers::inline OPT_ABI
