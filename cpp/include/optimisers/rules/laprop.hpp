// laprop.hpp: LaProp, momentum of normalised gradients (Ziyin, Wang & Ueda 2020, arXiv:2002.04839)
// As the authors' code: the learning rate stands inside the momentum, whose bias is corrected by that of the rates.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct LaProp {
  double eta = 4e-4;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-15;

  static constexpr Text text{
      .name = "LaProp",
      .summary = "Momentum of gradients that are divided by their second moment first.",
      .update =
          "v ← β₂ v + (1−β₂) |dx|²\n"
          "m ← β₁ m + (1−β₁) η dx / (√(v/(1−β₂ᵗ)) + ε);  r ← β₁ r + (1−β₁) η\n"
          "dx ← m η/r   (constant η: m/(1−β₁ᵗ))",
      .notes =
          "As the authors' code; a learning rate that changes acts at once, since m/r is a mean of normalised "
          "gradients. Not in torch, optax or Optimisers.jl.",
      .reference = "Ziyin, Wang & Ueda 2020, arXiv:2002.04839"};
  static constexpr std::tuple fields{
      Field{"eta", &LaProp::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &LaProp::beta, Range::unit, "decay of the moment of normalised gradients and of the second moment"},
      Field{"epsilon", &LaProp::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<LaProp>{"m"}, Slot<LaProp>{.name = "v", .real = true}};
  friend bool operator==(const LaProp&, const LaProp&) = default;

  struct Clock {
    double rate = 0, beta2_t = 1, t = 0;
  };
  static constexpr std::array clock{"rate", "beta2_t", "t"};

  template <class R>
  struct Step {
    R beta1, rate, beta2, rest2, scale, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.rate = beta.first * c.rate + (1 - beta.first) * eta;
    c.beta2_t *= beta.second;
    c.t += 1;
    const double root_correction = std::sqrt(1 - c.beta2_t);
    return {R(beta.first),
            R((1 - beta.first) * eta * root_correction),
            R(beta.second),
            R(1 - beta.second),
            R(c.rate > 0 ? eta / c.rate : 0),
            root_epsilon<R>(epsilon * root_correction)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    v = k.beta2 * v + k.rest2 * abs2(dx);
    m = k.beta1 * m + (k.rate * dx) / (root(v) + k.epsilon);
    dx = k.scale * m;
  }
};

}  // namespace optimisers::inline OPT_ABI
