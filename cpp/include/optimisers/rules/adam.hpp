// adam.hpp: Adam (Kingma & Ba 2015, arXiv:1412.6980)
// The bias corrections are folded into the step's scalars, which leaves one root and one division an element:
//   η m̂ / (√v̂ + ε) = scale · m / (√v + ε √(1−β₂ᵗ)),  scale = η √(1−β₂ᵗ) / (1−β₁ᵗ).
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Adam {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;

  static constexpr Text text{
      .name = "Adam",
      .summary = "Adaptive moment estimation.",
      .update = "m ← β₁ m + (1−β₁) dx\nv ← β₂ v + (1−β₂) |dx|²\ndx ← η (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)",
      .notes =
          "As the paper and torch.optim.Adam. β₁ᵗ, β₂ᵗ are running products, so they stay right when β is adjusted.",
      .reference = "Kingma & Ba 2015, arXiv:1412.6980"};
  static constexpr std::tuple fields{
      Field{"eta", &Adam::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &Adam::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &Adam::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<Adam>{"m"}, Slot<Adam>{.name = "v", .real = true}};
  friend bool operator==(const Adam&, const Adam&) = default;

  struct Clock {
    double beta1_t = 1, beta2_t = 1, t = 0;
    OPT_FN void advance(Pair decay) {
      t += 1;
      beta1_t *= decay.first;
      beta2_t *= decay.second;
    }
  };
  static constexpr std::array clock{"beta1_t", "beta2_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, scale, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.advance(beta);
    const double root_correction = std::sqrt(1 - c.beta2_t);
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(eta * root_correction / (1 - c.beta1_t)),
            root_epsilon<R>(epsilon * root_correction)};
  }
  // The two moments, for the rules that share them.
  template <class T, class K>
  OPT_FN static void moments(const K& k, T dx, T& m, real_t<T>& v) {
    m = k.beta1 * m + k.rest1 * dx;
    v = k.beta2 * v + k.rest2 * abs2(dx);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    moments(k, dx, m, v);
    dx = (k.scale * m) / (root(v) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
