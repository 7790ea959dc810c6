// stable_adamw.hpp: StableAdamW, AdamW with the update clipping of Adafactor (Wortsman et al. 2023, arXiv:2304.13013)
// A summing rule that measures what its second moment will be after this step.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct StableAdamW {
  double eta = 1e-3;
  Pair beta = {0.9, 0.99};
  double lambda = 1e-2;
  double epsilon = 1e-6;

  static constexpr Text text{
      .name = "StableAdamW",
      .summary = "AdamW that steps less where its second moment is out of date.",
      .update =
          "β̂ = (β − βᵗ)/(1 − βᵗ);  m ← β̂₁ m + (1−β̂₁) dx;  v ← β̂₂ v + (1−β̂₂) dx²\n"
          "ρ = √mean(dx²/max(v, ε²)) over the leaf\ndx ← η/max(1, ρ) · (m/(√v + ε) + λ x)",
      .notes =
          "As optimi. pytorch_optimizer bounds v by 1e-16 instead of ε². An infinity or NaN in a gradient is an "
          "error, and nothing is written.",
      .reference = "Wortsman et al. 2023, arXiv:2304.13013"};
  static constexpr std::tuple fields{
      Field{"eta", &StableAdamW::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &StableAdamW::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &StableAdamW::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &StableAdamW::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<StableAdamW>{"m"}, Slot<StableAdamW>{.name = "v", .real = true}};
  static constexpr std::array sums{"squares of dx over its second moment"};
  friend bool operator==(const StableAdamW&, const StableAdamW&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, scale, epsilon, smallest, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.advance(beta);
    const double beta1 = (beta.first - c.beta1_t) / (1 - c.beta1_t);
    const double beta2 = (beta.second - c.beta2_t) / (1 - c.beta2_t);
    return {R(beta1),
            R((1 - beta.first) / (1 - c.beta1_t)),
            R(beta2),
            R((1 - beta.second) / (1 - c.beta2_t)),
            R(eta),
            root_epsilon<R>(epsilon),
            square_epsilon<R>(epsilon * epsilon),
            R(eta * lambda)};
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& k, T /*x*/, T dx, T m, real_t<T> v) {
    Adam::moments(k, dx, m, v);
    return {{wide_abs2(dx) / double(maximum(v, k.smallest))}};
  }
  template <class R>
  OPT_FN void finish(Clock&, Step<R>& k, const Sums<1>& found, double elements) const {
    const double rho = elements > 0 ? root(found.of[0] / elements) : 0, rate = eta / maximum(1.0, rho);
    k.scale = R(rate);
    k.decay = R(rate * lambda);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    dx = (k.scale * m) / (root(v) + k.epsilon) + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
