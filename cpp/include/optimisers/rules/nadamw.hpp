// nadamw.hpp: NAdam with decoupled weight decay (Dozat 2016; Loshchilov & Hutter 2019)
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct NAdamW {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double lambda = 0;
  double epsilon = 1e-8;

  static constexpr Text text{
      .name = "NAdamW",
      .summary = "Adam with Nesterov momentum and decoupled weight decay.",
      .update = "m, v as in Adam\ndx ← η ((β₁ m/(1−β₁ᵗ⁺¹) + (1−β₁) dx/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε) + λ x)",
      .notes =
          "optax.nadamw, whose default λ is 1e-4. Unlike NAdam, nothing multiplies v̂. timm and AlgoPerf divide "
          "β₁ m + (1−β₁) dx by 1−β₁ᵗ as a whole; torch.optim.NAdam has a schedule of momentum, NAdam(pytorch=True).",
      .reference = "Dozat 2016, ICLR workshop; Loshchilov & Hutter 2019, arXiv:1711.05101"};
  static constexpr std::tuple fields{
      Field{"eta", &NAdamW::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &NAdamW::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &NAdamW::lambda, Range::nonnegative, "weight decay, times the learning rate"},
      Field{"epsilon", &NAdamW::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<NAdamW>{"m"}, Slot<NAdamW>{.name = "v", .real = true}};
  friend bool operator==(const NAdamW&, const NAdamW&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, m_scale, dx_scale, epsilon, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.advance(beta);
    const double root_correction = std::sqrt(1 - c.beta2_t), rate = eta * root_correction;
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(rate * beta.first / (1 - c.beta1_t * beta.first)),
            R(rate * (1 - beta.first) / (1 - c.beta1_t)),
            root_epsilon<R>(epsilon * root_correction),
            R(eta * lambda)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    dx = (k.m_scale * m + k.dx_scale * dx) / (root(v) + k.epsilon) + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
