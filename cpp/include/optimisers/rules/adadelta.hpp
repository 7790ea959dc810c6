// adadelta.hpp: AdaDelta (Zeiler 2012, arXiv:1212.5701)
// Has no learning rate: the ratio of the two running means sets the scale; one root serves both.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct AdaDelta {
  double rho = 0.9;
  double epsilon = 1e-8;

  static constexpr Text text{
      .name = "AdaDelta",
      .summary = "Steps in the units of the parameters: no learning rate.",
      .update = "a ← ρ a + (1−ρ) |dx|²\ndx ← dx √(Δ+ε) / √(a+ε)\nΔ ← ρ Δ + (1−ρ) |dx|²   (the new dx)",
      .notes = "As the paper and torch.optim.Adadelta with lr=1.",
      .reference = "Zeiler 2012, arXiv:1212.5701"};
  static constexpr std::tuple fields{
      Field{"rho", &AdaDelta::rho, Range::unit, "decay of the running means"},
      Field{"epsilon", &AdaDelta::epsilon, Range::nonnegative, "added under both roots"}};
  static constexpr std::array slots{Slot<AdaDelta>{.name = "a", .real = true},
                                    Slot<AdaDelta>{.name = "delta", .real = true}};
  friend bool operator==(const AdaDelta&, const AdaDelta&) = default;

  template <class R>
  struct Step {
    R rho, rest, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(rho), R(1 - rho), square_epsilon<R>(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, real_t<T>& a, real_t<T>& delta) {
    a = k.rho * a + k.rest * abs2(dx);
    dx = root((delta + k.epsilon) / (a + k.epsilon)) * dx;
    delta = k.rho * delta + k.rest * abs2(dx);
  }
};

}  // namespace optimisers::inline OPT_ABI
