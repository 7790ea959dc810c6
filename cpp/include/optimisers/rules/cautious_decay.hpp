// cautious_decay.hpp: weight decay where it goes the step's way (Chen, Li & Liu 2025, arXiv:2510.12402), as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct CautiousDecay {
  double lambda = 5e-4;

  static constexpr Text text{
      .name = "CautiousDecay",
      .summary = "Weight decay of those elements that the step brings nearer to zero anyway.",
      .update = "dx ← dx + λ x where dx·x ≥ 0",
      .notes =
          "In place of WeightDecay behind a rule; times no learning rate. pytorch_optimizer's cautious decay and "
          "dion's "
          "cautious_wd. Complex: where the real part of dx times the conjugate of x is not negative.",
      .reference = "Chen, Li & Liu 2025, arXiv:2510.12402"};
  static constexpr std::tuple fields{
      Field{"lambda", &CautiousDecay::lambda, Range::nonnegative, "weight of the decay"}};
  static constexpr std::array<Slot<CautiousDecay>, 0> slots{};
  friend bool operator==(const CautiousDecay&, const CautiousDecay&) = default;

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
    dx = agree(dx, x) ? dx + k.lambda * x : dx;
  }

 private:
  // Of reals without their product, which may vanish.
  template <class T>
  OPT_FN static bool agree(T a, T b) {
    if constexpr (is_complex<T>) return a.re * b.re + a.im * b.im >= 0;
    else return ((a >= 0) & (b >= 0)) | ((a <= 0) & (b <= 0));
  }
};

}  // namespace optimisers::inline OPT_ABI
