// adan.hpp: Adan, adaptive Nesterov momentum (Xie et al. 2024, arXiv:2208.06677)
// With the authors' defaults: their β are one minus the paper's. What a step decays x by is folded into its scalars.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Adan {
  double eta = 1e-3;
  Pair beta = {0.98, 0.99};
  double beta_difference = 0.92;
  double lambda = 0;
  double epsilon = 1e-8;
  bool prox = true;

  static constexpr Text text{
      .name = "Adan",
      .summary = "Nesterov momentum from differences of gradients, divided by their second moment.",
      .update =
          "d ← dx − g, 0 at first;  g ← dx;  γ is beta_difference\n"
          "m ← β₁ m + (1−β₁) dx;  e ← γ e + (1−γ) d;  n ← β₂ n + (1−β₂) |dx + γ d|²\n"
          "u ← η (m/(1−β₁ᵗ) + γ e/(1−γᵗ)) / (√(n/(1−β₂ᵗ)) + ε)\n"
          "prox: dx ← x − (x − u)/(1 + η λ);  otherwise: dx ← u + η λ x",
      .notes =
          "The authors' betas=(0.98, 0.92, 0.99) are beta=(0.98, 0.99) and beta_difference=0.92; the paper's are one "
          "minus these. prox=False is their no_prox. optax.adan up to 0.2.6 weighs the difference by 1−γ = 0.08 where "
          "the authors have γ = 0.92. The first gradient is each leaf's own.",
      .reference = "Xie et al. 2024, arXiv:2208.06677"};
  static constexpr std::tuple fields{
      Field{"eta", &Adan::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &Adan::beta, Range::unit, "decay of the first and the second moment"},
      Field{"beta_difference", &Adan::beta_difference, Range::unit, "decay, and weight, of the differences"},
      Field{"lambda", &Adan::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &Adan::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"prox", &Adan::prox, Range::choice, "decay by a proximal step, as the paper"}};
  static constexpr std::array slots{Slot<Adan>{"m"}, Slot<Adan>{"e"}, Slot<Adan>{.name = "n", .real = true},
                                    Slot<Adan>{"g"}};
  friend bool operator==(const Adan&, const Adan&) = default;

  struct Clock {
    double beta1_t = 1, beta2_t = 1, difference_t = 1, t = 0;
  };
  static constexpr std::array clock{"beta1_t", "beta2_t", "difference_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, difference, rest, m_scale, e_scale, epsilon, decay;
    R first;  // 1: there is no gradient before this one
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const bool first = c.t == 0;
    c.t += 1;
    c.beta1_t *= beta.first;
    c.beta2_t *= beta.second;
    c.difference_t *= beta_difference;
    const double shrink = prox ? 1 / (1 + eta * lambda) : 1;
    const double root_correction = std::sqrt(1 - c.beta2_t), rate = eta * shrink * root_correction;
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(beta_difference),
            R(1 - beta_difference),
            R(rate / (1 - c.beta1_t)),
            R(rate * beta_difference / (1 - c.difference_t)),
            root_epsilon<R>(epsilon * root_correction),
            R(eta * lambda * shrink),
            R(first)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, T& e, real_t<T>& n, T& g) {
    const T d = k.first != 0 ? T{} : dx - g;
    g = dx;
    m = k.beta1 * m + k.rest1 * dx;
    e = k.difference * e + k.rest * d;
    n = k.beta2 * n + k.rest2 * abs2(dx + k.difference * d);
    dx = (k.m_scale * m + k.e_scale * e) / (root(n) + k.epsilon) + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
