// trust_ratio.hpp: steps in proportion to the parameter's norm (You et al. 2017, arXiv:1708.03888), as a stage
// A summing rule: squares of x and of dx over the leaf, as they reach the stage.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct TrustRatio {
  double coefficient = 1;
  double lambda = 0;
  double epsilon = 0;
  double largest = 0;

  static constexpr Text text{
      .name = "TrustRatio",
      .summary = "Scales each leaf's step to the norm of its parameter: LAMB, LARS and LARC as chains.",
      .update =
          "φ = τ ‖x‖ / (‖dx‖ + λ ‖x‖ + ε), 1 if either norm is 0; at most `largest`, if that is not 0\n"
          "dx ← φ (dx + λ x)   (τ is coefficient)",
      .notes =
          "LAMB: OptimiserChain(Adam(1, epsilon=1e-6), WeightDecay(λ), TrustRatio(), Descent(η)). LARS: OptimiserChain("
          "TrustRatio(0.001, λ, 1e-8), Momentum(η)); LARC the same with largest=η and Momentum(1). Biases and norms "
          "are "
          "mostly left out of it: give them another rule. NVIDIA's and timm's LAMB clip the global norm first "
          "(ClipNorm) "
          "and leave φ at 1 where there is no decay; optax divides LARS by ‖dx + λ x‖. An infinity or NaN in x or dx "
          "is "
          "an error, and nothing is written.",
      .reference = "You et al. 2017, arXiv:1708.03888; You et al. 2020, arXiv:1904.00962"};
  static constexpr std::tuple fields{
      Field{"coefficient", &TrustRatio::coefficient, Range::nonnegative, "of the ratio of the norms"},
      Field{"lambda", &TrustRatio::lambda, Range::nonnegative, "weight decay that the ratio scales too, as in LARS"},
      Field{"epsilon", &TrustRatio::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"largest", &TrustRatio::largest, Range::nonnegative, "bound of the ratio; 0: none"}};
  static constexpr std::array<Slot<TrustRatio>, 0> slots{};
  static constexpr std::array sums{"squares of x", "squares of dx"};
  friend bool operator==(const TrustRatio&, const TrustRatio&) = default;

  template <class R>
  struct Step {
    R scale, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(1), R(lambda)};
  }
  template <class T>
  OPT_FN static Sums<2> terms(const Step<real_t<T>>& /*k*/, T x, T dx) {
    return {{wide_abs2(x), wide_abs2(dx)}};
  }
  template <class R>
  OPT_FN void finish(NoClock&, Step<R>& k, const Sums<2>& found, double /*elements*/) const {
    const double x = root(found.of[0]), dx = root(found.of[1]);
    double ratio = x == 0 || dx == 0 ? 1 : coefficient * x / (dx + lambda * x + epsilon);
    if (largest > 0) ratio = minimum(ratio, largest);
    k = {R(ratio), R(ratio * lambda)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx) {
    dx = k.scale * dx + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
