// amsgrad.hpp: AMSGrad (Reddi, Kale & Kumar 2018, arXiv:1904.09237)
// As Optimisers.jl: no bias correction, and the moments start at ε rather than 0; `pytorch` corrects and starts at 0.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct AMSGrad {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-8;
  bool pytorch = false;

  static constexpr Text text{.name = "AMSGrad",
                             .summary = "Adam divided by the largest second moment so far.",
                             .update =
                                 "m, v as in Adam\nw ← max(w, v)\ndx ← η m / (√w + ε)   (m, v, w start at ε)\n"
                                 "pytorch: dx ← η (m/(1−β₁ᵗ)) / (√(w/(1−β₂ᵗ)) + ε)   (m, v, w start at 0)",
                             .notes =
                                 "No bias correction, as the paper; starting at ε is Optimisers.jl's. pytorch=True is "
                                 "torch.optim.Adam(amsgrad=True), which corrects the bias.",
                             .reference = "Reddi, Kale & Kumar 2018, arXiv:1904.09237"};
  static constexpr std::tuple fields{
      Field{"eta", &AMSGrad::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AMSGrad::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &AMSGrad::epsilon, Range::nonnegative, "added to the denominator; the moments start at it"},
      Field{"pytorch", &AMSGrad::pytorch, Range::choice, "as torch.optim.Adam(amsgrad=True) computes it"}};
  static constexpr std::array slots{
      Slot<AMSGrad>{.name = "m", .start = &AMSGrad::epsilon, .unless = &AMSGrad::pytorch},
      Slot<AMSGrad>{.name = "v", .real = true, .start = &AMSGrad::epsilon, .unless = &AMSGrad::pytorch},
      Slot<AMSGrad>{.name = "w", .real = true, .start = &AMSGrad::epsilon, .unless = &AMSGrad::pytorch}};
  friend bool operator==(const AMSGrad&, const AMSGrad&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  using Step = Adam::Step<R>;
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    Step<R> k = Adam{eta, beta, epsilon}.tick<R>(c);
    if (pytorch) return k;
    k.scale = R(eta);
    k.epsilon = root_epsilon<R>(epsilon);
    return k;
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v, real_t<T>& w) {
    Adam::moments(k, dx, m, v);
    w = maximum(w, v);
    dx = (k.scale * m) / (root(w) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
