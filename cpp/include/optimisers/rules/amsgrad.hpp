// amsgrad.hpp: AMSGrad (Reddi, Kale & Kumar 2018, arXiv:1904.09237)
// As Optimisers.jl: no bias correction, and the moments start at ε rather than 0.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers {

struct AMSGrad {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;

  static constexpr Text text{.name = "AMSGrad",
                             .summary = "Adam divided by the largest second moment so far.",
                             .update = "m, v as in Adam\nw ← max(w, v)\ndx ← η m / (√w + ε)   (m, v, w start at ε)",
                             .notes =
                                 "No bias correction, as the paper; starting at ε is Optimisers.jl's. "
                                 "torch.optim.Adam(amsgrad=True) corrects the bias.",
                             .reference = "Reddi, Kale & Kumar 2018, arXiv:1904.09237"};
  static constexpr std::tuple fields{
      Field{"eta", &AMSGrad::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AMSGrad::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &AMSGrad::epsilon, Range::nonnegative, "added to the denominator; the moments start at it"}};
  static constexpr std::array slots{Slot<AMSGrad>{.name = "m", .start = &AMSGrad::epsilon},
                                    Slot<AMSGrad>{.name = "v", .real = true, .start = &AMSGrad::epsilon},
                                    Slot<AMSGrad>{.name = "w", .real = true, .start = &AMSGrad::epsilon}};
  friend bool operator==(const AMSGrad&, const AMSGrad&) = default;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, eta, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(beta.first), R(1 - beta.first), R(beta.second), R(1 - beta.second), R(eta), R(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v, real_t<T>& w) {
    Adam::moments(k, dx, m, v);
    w = maximum(w, v);
    dx = (k.eta * m) / (root(w) + k.epsilon);
  }
};

}  // namespace optimisers
