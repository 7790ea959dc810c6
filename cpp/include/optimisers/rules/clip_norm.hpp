// clip_norm.hpp: clipping by norm, of one leaf or of all leaves together, as a stage
// A reducing rule: dx is measured as it reaches the stage before anything is written; apply() then only scales.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ClipNorm {
  double omega = 10;
  double p = 2;
  bool throw_ = true;
  Scope scope = Scope::leaf;

  static constexpr Text text{
      .name = "ClipNorm",
      .summary = "Scales the gradient down to a largest norm, of one leaf or of all together.",
      .update = "dx ← dx · min(ω/‖dx‖ₚ, 1)\nscope=\"global\": ‖·‖ₚ over all leaves of the call with such a stage",
      .notes =
          "scope=\"global\" is torch.nn.utils.clip_grad_norm_ without the 1e-6 it adds to the norm; Optimisers.jl has "
          "the leaf scope only.",
      .reference = "Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063"};
  static constexpr std::tuple fields{
      Field{"omega", &ClipNorm::omega, Range::positive, "largest norm"},
      Field{"p", &ClipNorm::p, Range::norm_order, "order of the norm, ±inf included"},
      Field{"throw", &ClipNorm::throw_, Range::choice, "a norm that is not finite is an error and nothing is written"},
      Field{"scope", &ClipNorm::scope, Range::choice, "one norm per leaf, or one for all leaves of the call"}};
  static constexpr std::array<Slot<ClipNorm>, 0> slots{};
  friend bool operator==(const ClipNorm&, const ClipNorm&) = default;

  template <class R>
  struct Step {
    R scale;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(1)};
  }
  OPT_FN Norm norm() const { return {p, scope}; }
  OPT_FN bool rejects(double norm) const { return throw_ && !std::isfinite(norm); }
  template <class R>
  OPT_FN void finish(Step<R>& k, double norm) const {
    k.scale = R(minimum(omega / norm, 1.0));
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx) {
    dx = k.scale * dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
