// adabelief.hpp: AdaBelief (Zhuang et al. 2020, arXiv:2010.07468)
// ε is added to s at every step, as the paper's algorithm 2 does, and once more to the root.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct AdaBelief {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-16;

  static constexpr Text text{
      .name = "AdaBelief",
      .summary = "Adam scaled by the belief in the gradient: the variance around its running mean.",
      .update = "m ← β₁ m + (1−β₁) dx\ns ← β₂ s + (1−β₂) |dx − m|² + ε   (the new m)\ndx ← η m̂ / (√(s/(1−β₂ᵗ)) + ε)",
      .notes = "As the paper; ε defaults to Optimisers.jl's 1e-16.",
      .reference = "Zhuang et al. 2020, arXiv:2010.07468"};
  static constexpr std::tuple fields{
      Field{"eta", &AdaBelief::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AdaBelief::beta, Range::unit, "decay of the first moment and of the variance"},
      Field{"epsilon", &AdaBelief::epsilon, Range::nonnegative, "added to the variance and to the denominator"}};
  static constexpr std::array slots{Slot<AdaBelief>{"m"}, Slot<AdaBelief>{.name = "s", .real = true}};
  friend bool operator==(const AdaBelief&, const AdaBelief&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, epsilon, scale, root_epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.advance(beta);
    const double root_correction = std::sqrt(1 - c.beta2_t);
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(epsilon),
            R(eta * root_correction / (1 - c.beta1_t)),
            optimisers::root_epsilon<R>(epsilon * root_correction)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& s) {
    m = k.beta1 * m + k.rest1 * dx;
    s = k.beta2 * s + k.rest2 * abs2(dx - m) + k.epsilon;
    dx = (k.scale * m) / (root(s) + k.root_epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
