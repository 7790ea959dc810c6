// descent.hpp: gradient descent
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Descent {
  double eta = 0.1;

  static constexpr Text text{.name = "Descent",
                             .summary = "Gradient descent.",
                             .update = "dx ← η dx",
                             .notes = "torch.optim.SGD without momentum.",
                             .reference = "Cauchy 1847"};
  static constexpr std::tuple fields{Field{"eta", &Descent::eta, Range::nonnegative, "learning rate"}};
  static constexpr std::array<Slot<Descent>, 0> slots{};
  friend bool operator==(const Descent&, const Descent&) = default;

  template <class R>
  struct Step {
    R eta;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(eta)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx) {
    dx = k.eta * dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
