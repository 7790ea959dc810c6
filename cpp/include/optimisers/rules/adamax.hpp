// adamax.hpp: AdaMax, Adam with the infinity norm (Kingma & Ba 2015, arXiv:1412.6980, section 7.1)
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct AdaMax {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;
  bool pytorch = false;

  static constexpr Text text{
      .name = "AdaMax",
      .summary = "Adam with the infinity norm in place of the second moment.",
      .update = "m ← β₁ m + (1−β₁) dx\nu ← max(β₂ u, |dx|)\ndx ← η/(1−β₁ᵗ) · m/(u + ε)",
      .notes =
          "ε is added to u, as in Optimisers.jl. pytorch=True is torch.optim.Adamax, which adds it to |dx| inside the "
          "maximum.",
      .reference = "Kingma & Ba 2015, arXiv:1412.6980"};
  static constexpr std::tuple fields{
      Field{"eta", &AdaMax::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AdaMax::beta, Range::unit, "decay of the first moment and of the maximum"},
      Field{"epsilon", &AdaMax::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"pytorch", &AdaMax::pytorch, Range::choice, "as torch.optim.Adamax computes it"}};
  static constexpr std::array slots{Slot<AdaMax>{"m"}, Slot<AdaMax>{.name = "u", .real = true}};
  friend bool operator==(const AdaMax&, const AdaMax&) = default;

  struct Clock {
    double beta1_t = 1, t = 0;
  };
  static constexpr std::array clock{"beta1_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, scale, epsilon;
    R inner;  // added inside the maximum
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.beta1_t *= beta.first;
    c.t += 1;
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(eta / (1 - c.beta1_t)),
            root_epsilon<R>(pytorch ? 0 : epsilon),
            R(pytorch ? epsilon : 0)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& u) {
    m = k.beta1 * m + k.rest1 * dx;
    u = maximum(k.beta2 * u, magnitude(dx) + k.inner);
    dx = (k.scale * m) / (u + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
