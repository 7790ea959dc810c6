// clip_grad.hpp: clipping by value, as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ClipGrad {
  double delta = 10;

  static constexpr Text text{.name = "ClipGrad",
                             .summary = "Clips every component of the gradient.",
                             .update = "dx ← min(max(dx, −δ), δ)",
                             .notes = "NaN stays NaN. Complex: real and imaginary part each.",
                             .reference = "Mikolov 2012, PhD thesis, Brno"};
  static constexpr std::tuple fields{
      Field{"delta", &ClipGrad::delta, Range::positive, "largest magnitude of a component"}};
  static constexpr std::array<Slot<ClipGrad>, 0> slots{};
  friend bool operator==(const ClipGrad&, const ClipGrad&) = default;

  template <class R>
  struct Step {
    R delta;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(delta)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx) {
    dx = clamp(dx, k.delta);
  }
};

}  // namespace optimisers::inline OPT_ABI
