// grams.hpp: Grams, the size of a step with the sign of the gradient (Cao et al. 2024, arXiv:2412.17107), as a stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Grams {
  static constexpr Text text{
      .name = "Grams",
      .summary = "Takes the size of each element's step from the rules before it, and its sign from the gradient.",
      .update = "dx ← sign(g) |dx|",
      .notes =
          "Behind any rule: OptimiserChain(Adam(), Grams()); decay and what else is not momentum comes behind it. g is "
          "the gradient as it came to the chain, or out of the last AccumGrad. Complex: sign(z) = z/|z|.",
      .reference = "Cao et al. 2024, arXiv:2412.17107"};
  static constexpr std::tuple<> fields{};
  static constexpr std::array<Slot<Grams>, 0> slots{};
  static constexpr bool sees_gradient = true;
  friend bool operator==(const Grams&, const Grams&) = default;

  template <class R>
  struct Step {};
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& /*k*/, T /*x*/, T g, T& dx) {
    dx = magnitude(dx) * sign(g);
  }
};

}  // namespace optimisers::inline OPT_ABI
