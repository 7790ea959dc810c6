// sign_decay.hpp: L1 regularisation as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct SignDecay {
  double lambda = 1e-3;

  static constexpr Text text{.name = "SignDecay",
                             .summary = "Adds the gradient of an L1 penalty.",
                             .update = "dx ← dx + λ sign(x)",
                             .notes = "sign(0) = 0; for complex x the sign is x/|x|.",
                             .reference = "Tibshirani 1996, J. R. Stat. Soc. B 58(1)"};
  static constexpr std::tuple fields{
      Field{"lambda", &SignDecay::lambda, Range::nonnegative, "weight of the penalty λ|x|"}};
  static constexpr std::array<Slot<SignDecay>, 0> slots{};
  friend bool operator==(const SignDecay&, const SignDecay&) = default;

  template <class R>
  struct Step {
    R lambda;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(lambda)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx) {
    dx = dx + k.lambda * sign(x);
  }
};

}  // namespace optimisers::inline OPT_ABI
