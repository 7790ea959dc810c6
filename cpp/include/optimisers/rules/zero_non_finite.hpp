// zero_non_finite.hpp: gradients that are not finite count as zero, as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ZeroNonFinite {
  static constexpr Text text{
      .name = "ZeroNonFinite",
      .summary = "Elements of the gradient that are not finite become zero.",
      .update = "dx ← dx where it is finite, 0 elsewhere",
      .notes =
          "optax.zero_nans, infinities included; in silence, so that a training that has diverged goes on: "
          "update_(..., non_finite=\"skip\") leaves out the whole step and counts. Complex: where both parts are "
          "finite.",
      .reference = "optax.zero_nans"};
  static constexpr std::tuple<> fields{};
  static constexpr std::array<Slot<ZeroNonFinite>, 0> slots{};
  friend bool operator==(const ZeroNonFinite&, const ZeroNonFinite&) = default;

  template <class R>
  struct Step {};
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& /*k*/, T /*x*/, T& dx) {
    if constexpr (is_complex<T>) dx = (int(is_finite(dx.re)) & int(is_finite(dx.im))) != 0 ? dx : T{};
    else dx = is_finite(dx) ? dx : T(0);
  }

 private:
  template <class R>
  OPT_FN static bool is_finite(R a) {
    return a - a == 0;
  }
};

}  // namespace optimisers::inline OPT_ABI
