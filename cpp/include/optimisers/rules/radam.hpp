// radam.hpp: rectified Adam (Liu et al. 2020, arXiv:1908.03265)
// The paper rectifies for ρ > 4, as Optimisers.jl does; PyTorch, and `pytorch` here, waits for ρ > 5.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct RAdam {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;
  bool pytorch = false;

  static constexpr Text text{.name = "RAdam",
                             .summary = "Adam whose adaptive step is rectified while its variance is not yet known.",
                             .update =
                                 "ρ∞ = 2/(1−β₂) − 1;  ρ = ρ∞ − 2t β₂ᵗ/(1−β₂ᵗ)\nρ > 4: dx ← η r m̂ / (√v̂ + ε),  "
                                 "r = √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ))\notherwise: dx ← η m̂",
                             .notes =
                                 "pytorch=True is torch.optim.RAdam: it rectifies for ρ > 5, and ε stands beside √v "
                                 "rather than √v̂.",
                             .reference = "Liu et al. 2020, arXiv:1908.03265"};
  static constexpr std::tuple fields{
      Field{"eta", &RAdam::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &RAdam::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &RAdam::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"pytorch", &RAdam::pytorch, Range::choice, "as torch.optim.RAdam computes it"}};
  static constexpr std::array slots{Slot<RAdam>{"m"}, Slot<RAdam>{.name = "v", .real = true}};
  friend bool operator==(const RAdam&, const RAdam&) = default;

  struct Clock {
    double beta1_t = 1, beta2_t = 1, t = 0;
  };
  static constexpr std::array clock{"beta1_t", "beta2_t", "t"};

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, scale, epsilon;
    R adaptive;  // 1 when rectified; 0 leaves the denominator at 1
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.beta1_t *= beta.first;
    c.beta2_t *= beta.second;
    c.t += 1;
    const double rho_inf = 2 / (1 - beta.second) - 1;
    const double rho = rho_inf - 2 * c.t * c.beta2_t / (1 - c.beta2_t);
    const bool rectify = rho > (pytorch ? 5 : 4);
    const double r = rectify ? std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) : 1;
    const double root_correction = rectify ? std::sqrt(1 - c.beta2_t) : 1;
    return {R(beta.first),
            R(1 - beta.first),
            R(beta.second),
            R(1 - beta.second),
            R(eta * r * root_correction / (1 - c.beta1_t)),
            root_epsilon<R>(pytorch ? epsilon : epsilon * root_correction),
            R(rectify)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    Adam::moments(k, dx, m, v);
    const real_t<T> denominator = root(v) + k.epsilon;
    dx = (k.scale * m) / (k.adaptive != 0 ? denominator : real_t<T>(1));
  }
};

}  // namespace optimisers::inline OPT_ABI
