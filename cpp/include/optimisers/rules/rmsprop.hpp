// rmsprop.hpp: RMSProp, plain and centred (Tieleman & Hinton 2012; Graves 2013)
// Centred: the variance q - abs2(l) is clamped at 0, which rounding can undercut.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct RMSProp {
  double eta = 1e-3;
  double rho = 0.9;
  double epsilon = 1e-8;
  bool centred = false;

  static constexpr Text text{
      .name = "RMSProp",
      .summary = "Gradients divided by a running root mean square; centred, by a running standard deviation.",
      .update =
          "q ← ρ q + (1−ρ) |dx|²\nplain: dx ← η dx / (√q + ε)\ncentred: l ← ρ l + (1−ρ) dx\n"
          "centred: dx ← η dx / (√max(q − |l|², 0) + ε)",
      .notes =
          "ρ is torch.optim.RMSprop's alpha, 0.99 there. The clamp at 0 is ours: PyTorch and Optimisers.jl take the "
          "root of a negative rounding error.",
      .reference = "Tieleman & Hinton 2012, lecture 6.5; Graves 2013, arXiv:1308.0850"};
  static constexpr std::tuple fields{
      Field{"eta", &RMSProp::eta, Range::nonnegative, "learning rate"},
      Field{"rho", &RMSProp::rho, Range::unit, "decay of the moments"},
      Field{"epsilon", &RMSProp::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"centred", &RMSProp::centred, Range::choice, "subtract the squared mean of the gradient", true}};
  static constexpr std::array slots{Slot<RMSProp>{.name = "q", .real = true},
                                    Slot<RMSProp>{.name = "l", .when = &RMSProp::centred}};
  friend bool operator==(const RMSProp&, const RMSProp&) = default;

  template <class R>
  struct Step {
    R eta, rho, rest, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), R(rho), R(1 - rho), root_epsilon<R>(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, real_t<T>& q) {
    q = k.rho * q + k.rest * abs2(dx);
    dx = (k.eta * dx) / (root(q) + k.epsilon);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, real_t<T>& q, T& l) {
    q = k.rho * q + k.rest * abs2(dx);
    l = k.rho * l + k.rest * dx;
    dx = (k.eta * dx) / (root(maximum(q - abs2(l), real_t<T>(0))) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
