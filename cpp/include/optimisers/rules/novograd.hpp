// novograd.hpp: NovoGrad, one second moment for each leaf (Ginsburg et al. 2019, arXiv:1905.11286)
// A summing rule: the squared norm of the gradient joins v, which is a number of the leaf's clock.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct NovoGrad {
  double eta = 1e-3;
  Pair beta = {0.95, 0.98};
  double lambda = 0;
  double epsilon = 1e-8;

  static constexpr Text text{
      .name = "NovoGrad",
      .summary = "Momentum of gradients that each leaf's norm has scaled: one second moment for a leaf.",
      .update = "v ← β₂ v + (1−β₂) ‖dx‖², at first ‖dx‖²\nm ← β₁ m + dx/(√v + ε) + λ x;  dx ← η m",
      .notes =
          "As the paper; there is no bias correction, and the first m is a whole gradient. v is a number of the "
          "leaf's clock, in double. An infinity or NaN in a gradient is an error, and nothing is written.",
      .reference = "Ginsburg et al. 2019, arXiv:1905.11286"};
  static constexpr std::tuple fields{
      Field{"eta", &NovoGrad::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &NovoGrad::beta, Range::unit, "decay of the momentum and of the second moment"},
      Field{"lambda", &NovoGrad::lambda, Range::nonnegative, "weight decay, in the momentum"},
      Field{"epsilon", &NovoGrad::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<NovoGrad>{"m"}};
  static constexpr std::array sums{"squares of dx"};
  friend bool operator==(const NovoGrad&, const NovoGrad&) = default;

  struct Clock {
    double t = 0, v = 0;
  };
  static constexpr std::array clock{"t", "v"};

  template <class R>
  struct Step {
    R beta, scale, decay, eta;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.t += 1;
    return {R(beta.first), R(1), R(lambda), R(eta)};
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& /*k*/, T /*x*/, T dx, T /*m*/) {
    return {{wide_abs2(dx)}};
  }
  template <class R>
  OPT_FN void finish(Clock& c, Step<R>& k, const Sums<1>& found, double /*elements*/) const {
    c.v = c.t == 1 ? found.of[0] : beta.second * c.v + (1 - beta.second) * found.of[0];
    k.scale = R(1 / (root(c.v) + root_epsilon<R>(epsilon)));
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m) {
    m = k.beta * m + (k.scale * dx + k.decay * x);
    dx = k.eta * m;
  }
};

}  // namespace optimisers::inline OPT_ABI
