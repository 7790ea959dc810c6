// adagrad.hpp: AdaGrad (Duchi, Hazan & Singer 2011)
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct AdaGrad {
  double eta = 0.1;
  double epsilon = 1e-8;

  static constexpr Text text{.name = "AdaGrad",
                             .summary = "Gradients divided by the root of the sum of all their squares.",
                             .update = "a ← a + |dx|²   (a starts at ε)\ndx ← η dx / (√a + ε)",
                             .notes = "a starts at ε, as in Optimisers.jl; torch.optim.Adagrad starts at 0.",
                             .reference = "Duchi, Hazan & Singer 2011, JMLR 12"};
  static constexpr std::tuple fields{
      Field{"eta", &AdaGrad::eta, Range::nonnegative, "learning rate"},
      Field{"epsilon", &AdaGrad::epsilon, Range::nonnegative, "added to the denominator; the sum starts at it"}};
  static constexpr std::array slots{Slot<AdaGrad>{.name = "a", .real = true, .start = &AdaGrad::epsilon}};
  friend bool operator==(const AdaGrad&, const AdaGrad&) = default;

  template <class R>
  struct Step {
    R eta, epsilon;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta), root_epsilon<R>(epsilon)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, real_t<T>& a) {
    a = a + abs2(dx);
    dx = (k.eta * dx) / (root(a) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
