// cautious.hpp: Cautious, no step against the gradient (Liang et al. 2024, arXiv:2411.16085), as a stage
// A summing rule: how many elements of the leaf agree.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Cautious {
  double least = 1e-3;

  static constexpr Text text{
      .name = "Cautious",
      .summary = "Leaves out the elements whose step points against the gradient, and makes the others larger.",
      .update = "M = 1 where g dx > 0, else 0\ndx ← dx M / max(mean(M), least)   (mean over the leaf)",
      .notes =
          "Behind any rule: OptimiserChain(Adam(), Cautious()); decay comes behind it. g is the gradient as it came to "
          "the chain, or out of the last AccumGrad. As the authors' code and timm; pytorch_optimizer divides by "
          "(ΣM + 1)/n. Complex: M = 1 where Re(conj(g) dx) > 0.",
      .reference = "Liang et al. 2024, arXiv:2411.16085"};
  static constexpr std::tuple fields{
      Field{"least", &Cautious::least, Range::positive, "of the share of elements that is divided by"}};
  static constexpr std::array<Slot<Cautious>, 0> slots{};
  static constexpr std::array sums{"agreement"};
  static constexpr bool sees_gradient = true;
  friend bool operator==(const Cautious&, const Cautious&) = default;

  template <class R>
  struct Step {
    R scale;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(1)};
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& /*k*/, T /*x*/, T g, T dx) {
    return {{along(g, dx) > 0 ? 1.0 : 0.0}};
  }
  template <class R>
  OPT_FN void finish(NoClock&, Step<R>& k, const Sums<1>& found, double elements) const {
    k.scale = R(1 / maximum(elements > 0 ? found.of[0] / elements : 1, least));
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T g, T& dx) {
    dx = (along(g, dx) > 0 ? k.scale : real_t<T>(0)) * dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
