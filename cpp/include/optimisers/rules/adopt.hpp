// adopt.hpp: ADOPT, Adam that divides by the second moment before the gradient joins it (Taniguchi et al. 2024)
// With the authors' clipping of the divided gradient to t^(1/4), taken as two roots, which every machine rounds alike.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ADOPT {
  double eta = 1e-3;
  Pair beta = {0.9, 0.9999};
  double lambda = 0;
  double epsilon = 1e-6;

  static constexpr Text text{
      .name = "ADOPT",
      .summary = "Adam whose second moment does not yet know the gradient it divides.",
      .update =
          "first step: v ← |dx|²;  dx ← 0\n"
          "then: m ← β₁ m + (1−β₁) clip(dx/max(√v, ε), ±(t−1)^¼)\n"
          "v ← β₂ v + (1−β₂) |dx|²;  dx ← η (m + λ x)",
      .notes =
          "As the authors' code with its default clipping, and decouple=True where λ is not 0. No bias correction; the "
          "first step of each leaf moves nothing. timm clips to t^0.333. Complex: real and imaginary part are clipped "
          "each.",
      .reference = "Taniguchi et al. 2024, arXiv:2411.02853"};
  static constexpr std::tuple fields{
      Field{"eta", &ADOPT::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &ADOPT::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &ADOPT::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &ADOPT::epsilon, Range::nonnegative, "smallest denominator"}};
  static constexpr std::array slots{Slot<ADOPT>{"m"}, Slot<ADOPT>{.name = "v", .real = true}};
  friend bool operator==(const ADOPT&, const ADOPT&) = default;

  struct Clock {
    double t = 0;
  };
  static constexpr std::array clock{"t"};

  template <class R>
  struct Step {
    R eta, beta1, rest1, beta2, rest2, epsilon, bound, decay;
    R first;  // 1: only v is set
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const double before = c.t;
    c.t += 1;
    return {R(eta),
            R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            root_epsilon<R>(epsilon),
            R(std::sqrt(std::sqrt(before))),
            R(eta * lambda),
            R(before == 0)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v) {
    using R = real_t<T>;
    const bool first = k.first != 0;
    const R square = abs2(dx);
    const T moment = k.beta1 * m + k.rest1 * clamp(dx / maximum(root(v), k.epsilon), k.bound);
    m = first ? m : moment;
    v = first ? square : k.beta2 * v + k.rest2 * square;
    dx = first ? T{} : k.eta * m + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
