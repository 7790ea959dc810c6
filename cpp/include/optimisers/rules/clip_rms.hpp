// clip_rms.hpp: clipping by the root mean square of a leaf's step (Shazeer & Stern 2018, arXiv:1804.04235), as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ClipRMS {
  double omega = 1;
  Scope scope = Scope::leaf;

  static constexpr Text text{
      .name = "ClipRMS",
      .summary = "Scales the step down to a largest root mean square, of one leaf or of all together.",
      .update = "dx ← dx / max(1, RMS(dx)/ω)\nscope=\"global\": RMS over all leaves of the call with such a stage",
      .notes =
          "Adafactor's update clipping, and optax's clip_by_block_rms. A mean that is not finite is an error, and "
          "nothing is written.",
      .reference = "Shazeer & Stern 2018, arXiv:1804.04235"};
  static constexpr std::tuple fields{
      Field{"omega", &ClipRMS::omega, Range::positive, "largest root mean square"},
      Field{"scope", &ClipRMS::scope, Range::choice, "one mean per leaf, or one for all leaves of the call"}};
  static constexpr std::array<Slot<ClipRMS>, 0> slots{};
  static constexpr std::array sums{"squares of dx"};
  OPT_FN Scope sums_over() const { return scope; }
  friend bool operator==(const ClipRMS&, const ClipRMS&) = default;

  template <class R>
  struct Step {
    R scale;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(1)};
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& /*k*/, T /*x*/, T dx) {
    return {{wide_abs2(dx)}};
  }
  template <class R>
  OPT_FN void finish(NoClock&, Step<R>& k, const Sums<1>& found, double elements) const {
    const double rms = elements > 0 ? root(found.of[0] / elements) : 0;
    k.scale = R(1 / maximum(1.0, rms / omega));
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx) {
    dx = k.scale * dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
