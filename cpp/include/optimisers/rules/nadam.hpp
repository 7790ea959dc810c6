// nadam.hpp: Adam with Nesterov momentum (Dozat 2016)
// Without the paper's momentum schedule, as in Optimisers.jl.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers {

struct NAdam {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;

  static constexpr Text text{
      .name = "NAdam",
      .summary = "Adam with Nesterov momentum.",
      .update = "m, v as in Adam\ndx ← η (β₁ m/(1−β₁ᵗ⁺¹) + (1−β₁) dx/(1−β₁ᵗ)) / (√(β₂ v/(1−β₂ᵗ)) + ε)",
      .notes =
          "Constant β₁ and the factor β₂ under the root, as in Optimisers.jl; torch.optim.NAdam has a momentum "
          "schedule and no such factor.",
      .reference = "Dozat 2016, ICLR workshop"};
  static constexpr std::tuple fields{
      Field{"eta", &NAdam::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &NAdam::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &NAdam::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<NAdam>{"m"}, Slot<NAdam>{.name = "v", .real = true}};
  friend bool operator==(const NAdam&, const NAdam&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, m_scale, dx_scale, v_scale, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.advance(beta);
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(eta * beta.first / (1 - c.beta1_t * beta.first)),
            R(eta * (1 - beta.first) / (1 - c.beta1_t)),
            R(beta.second / (1 - c.beta2_t)),
            R(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    dx = (k.m_scale * m + k.dx_scale * dx) / (root(k.v_scale * v) + k.epsilon);
  }
};

}  // namespace optimisers
