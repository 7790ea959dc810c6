// rprop.hpp: resilient propagation (Riedmiller & Braun 1993)
// Only the sign of the gradient counts, so complex leaves are refused: they have no sign per component to follow.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Rprop {
  double eta = 1e-3;
  Pair ell = {0.5, 1.2};
  Pair gamma = {1e-6, 50};

  static constexpr Text text{
      .name = "Rprop",
      .summary = "Resilient propagation: a step size per element, grown and shrunk by the sign of the gradient.",
      .update =
          "g·dx > 0: s ← min(ℓ₂ s, Γ₂);  g ← dx\ng·dx < 0: s ← max(ℓ₁ s, Γ₁);  g ← 0\n"
          "otherwise: g ← dx\ndx ← s · sign(g)   (s starts at η)",
      .notes = "The variant without weight backtracking, as torch.optim.Rprop. Complex leaves are refused at setup.",
      .reference = "Riedmiller & Braun 1993, ICNN"};
  static constexpr std::tuple fields{
      Field{"eta", &Rprop::eta, Range::nonnegative, "initial step size of every element"},
      Field{"ell", &Rprop::ell, Range::factors, "factors of decrease and increase"},
      Field{"gamma", &Rprop::gamma, Range::ordered, "smallest and largest step size"}};
  static constexpr std::array slots{Slot<Rprop>{"g"}, Slot<Rprop>{.name = "eta", .start = &Rprop::eta}};
  static constexpr const char* refuses_complex =
      "Rprop follows the sign of the gradient, which a complex number does not have";
  friend bool operator==(const Rprop&, const Rprop&) = default;

  template <class R>
  struct Step {
    R shrink, grow, smallest, largest;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(ell.first), R(ell.second), R(gamma.first), R(gamma.second)};
  }
  template <class T>
  OPT_FN static void apply(const Step<T>& k, T /*x*/, T& dx, T& g, T& eta) {
    const T agreement = g * dx;
    const T grown = minimum(eta * k.grow, k.largest);
    const T shrunk = maximum(eta * k.shrink, k.smallest);
    eta = agreement > 0 ? grown : agreement < 0 ? shrunk : eta;
    g = agreement < 0 ? T(0) : dx;
    dx = eta * sign(g);
  }
};

}  // namespace optimisers::inline OPT_ABI
