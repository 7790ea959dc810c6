// ademamix.hpp: AdEMAMix, Adam with a second, slow moment (Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137)
// The weight of the slow moment and its decay grow over `warmup` steps, as the authors' schedulers have them.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct AdEMAMix {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double lambda = 0;
  double epsilon = 1e-8;
  double beta_slow = 0.9999;
  double weight = 2;
  double warmup = 0;

  static constexpr Text text{
      .name = "AdEMAMix",
      .summary = "Adam with a slow moment of the gradient beside the fast one.",
      .update =
          "m, v as in Adam;  s ← β₃ s + (1−β₃) dx;  β₃ is beta_slow, α weight\n"
          "dx ← η ((m/(1−β₁ᵗ) + α s) / (√(v/(1−β₂ᵗ)) + ε) + λ x)\n"
          "t < warmup: α grows linearly from 0, β₃ from β₁ so that its half-life does",
      .notes =
          "The authors' betas=(β₁, β₂, β₃) and alpha; their alpha_warmup and beta3_warmup are one number here, as the "
          "paper has it. Without a warm-up the slow moment makes early steps of long trainings diverge. bitsandbytes "
          "defaults to α = 5.",
      .reference = "Pagliardini, Ablin & Grangier 2024, arXiv:2409.03137"};
  static constexpr std::tuple fields{
      Field{"eta", &AdEMAMix::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AdEMAMix::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &AdEMAMix::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &AdEMAMix::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"beta_slow", &AdEMAMix::beta_slow, Range::unit, "decay of the slow moment"},
      Field{"weight", &AdEMAMix::weight, Range::nonnegative, "of the slow moment"},
      Field{"warmup", &AdEMAMix::warmup, Range::nonnegative, "steps until weight and beta_slow are reached"}};
  static constexpr std::array slots{Slot<AdEMAMix>{"m"}, Slot<AdEMAMix>{"s"},
                                    Slot<AdEMAMix>{.name = "v", .real = true}};
  friend bool operator==(const AdEMAMix&, const AdEMAMix&) = default;

  struct Clock {
    double beta1_t = 1, beta2_t = 1, t = 0;
  };
  static constexpr std::array clock{"beta1_t", "beta2_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, slow, rest, m_scale, s_scale, epsilon, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.t += 1;
    c.beta1_t *= beta.first;
    c.beta2_t *= beta.second;
    const double reached = c.t < warmup ? c.t / warmup : 1;
    const double slow =
        reached < 1 ? beta_of((1 - reached) * half_life(beta.first) + reached * half_life(beta_slow)) : beta_slow;
    const double root_correction = std::sqrt(1 - c.beta2_t);
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(slow),
            R(1 - slow),
            R(eta * root_correction / (1 - c.beta1_t)),
            R(eta * root_correction * weight * reached),
            root_epsilon<R>(epsilon * root_correction),
            R(eta * lambda)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, T& s, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    s = k.slow * s + k.rest * dx;
    dx = (k.m_scale * m + k.s_scale * s) / (root(v) + k.epsilon) + k.decay * x;
  }

 private:
  // How many steps it takes until a weight has halved, less one, and the decay that takes so many.
  OPT_FN static double half_life(double decay) {
    return logarithm(0.5) / logarithm(minimum(decay + 1e-8, 1 - 0x1p-53)) - 1;
  }
  OPT_FN static double beta_of(double steps) { return std::pow(0.5, 1 / (steps + 1)); }
};

}  // namespace optimisers::inline OPT_ABI
