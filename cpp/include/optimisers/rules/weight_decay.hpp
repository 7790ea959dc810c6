// weight_decay.hpp: L2 regularisation as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct WeightDecay {
  double lambda = 5e-4;

  static constexpr Text text{
      .name = "WeightDecay",
      .summary = "Adds the gradient of an L2 penalty.",
      .update = "dx ← dx + λ x",
      .notes = "Before a rule it is L2 regularisation (torch's weight_decay outside AdamW), behind it decoupled decay.",
      .reference = "Hanson & Pratt 1988, NIPS"};
  static constexpr std::tuple fields{
      Field{"lambda", &WeightDecay::lambda, Range::nonnegative, "weight of the penalty (λ/2)|x|²"}};
  static constexpr std::array<Slot<WeightDecay>, 0> slots{};
  friend bool operator==(const WeightDecay&, const WeightDecay&) = default;

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
    dx = dx + k.lambda * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
