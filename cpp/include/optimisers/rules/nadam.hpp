// nadam.hpp: Adam with Nesterov momentum (Dozat 2016)
// Without the paper's momentum schedule, as in Optimisers.jl; with `pytorch` as in PyTorch, which has it.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct NAdam {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;
  bool pytorch = false;
  double momentum_decay = 4e-3;

  static constexpr Text text{
      .name = "NAdam",
      .summary = "Adam with Nesterov momentum.",
      .update =
          "m, v as in Adam\ndx ← η (β₁ m/(1−β₁ᵗ⁺¹) + (1−β₁) dx/(1−β₁ᵗ)) / (√(β₂ v/(1−β₂ᵗ)) + ε)\n"
          "pytorch: dx ← η (μₜ₊₁ m/(1−μ₁⋯μₜ₊₁) + (1−μₜ) dx/(1−μ₁⋯μₜ)) / (√v̂ + ε),  μₜ = β₁ (1 − ½·0.96^(ψt))",
      .notes =
          "Constant β₁ and the factor β₂ under the root, as in Optimisers.jl. pytorch=True is torch.optim.NAdam, with "
          "the paper's momentum schedule (ψ is momentum_decay) and without that factor; the clock beta1_t is then "
          "the product of the μ.",
      .reference = "Dozat 2016, ICLR workshop"};
  static constexpr std::tuple fields{
      Field{"eta", &NAdam::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &NAdam::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &NAdam::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"pytorch", &NAdam::pytorch, Range::choice, "as torch.optim.NAdam computes it"},
      Field{"momentum_decay", &NAdam::momentum_decay, Range::nonnegative, "of the momentum schedule of pytorch"}};
  static constexpr std::array slots{Slot<NAdam>{"m"}, Slot<NAdam>{.name = "v", .real = true}};
  friend bool operator==(const NAdam&, const NAdam&) = default;

  struct Clock {
    double beta1_t = 1, beta2_t = 1, t = 0;
  };
  static constexpr std::array clock{"beta1_t", "beta2_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, m_scale, dx_scale, v_scale, epsilon;
  };
  OPT_FN double momentum_at(double t) const {
    return pytorch ? beta.first * (1 - 0.5 * std::pow(0.96, t * momentum_decay)) : beta.first;
  }
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.t += 1;
    const double mu = momentum_at(c.t), next_mu = momentum_at(c.t + 1);
    c.beta1_t *= mu;
    c.beta2_t *= beta.second;
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(eta * next_mu / (1 - c.beta1_t * next_mu)),
            R(eta * (1 - mu) / (1 - c.beta1_t)),
            R((pytorch ? 1 : beta.second) / (1 - c.beta2_t)),
            root_epsilon<R>(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    dx = (k.m_scale * m + k.dx_scale * dx) / (root(k.v_scale * v) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
