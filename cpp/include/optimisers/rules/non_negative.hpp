// non_negative.hpp: projection of the parameter onto what is not negative, as the last stage
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct NonNegative {
  static constexpr Text text{
      .name = "NonNegative",
      .summary = "Keeps every element of the parameter at zero or above: the last stage.",
      .update = "dx ← x − max(x − dx, 0)",
      .notes = "optax.projections.projection_non_negative, exact. NaN stays NaN. Complex leaves are refused at setup.",
      .reference = "Goldstein 1964, Bull. AMS 70; Levitin & Polyak 1966"};
  static constexpr std::tuple<> fields{};
  static constexpr std::array<Slot<NonNegative>, 0> slots{};
  static constexpr const char* refuses_complex = "NonNegative follows a sign, which complex numbers do not have";
  friend bool operator==(const NonNegative&, const NonNegative&) = default;

  template <class R>
  struct Step {};
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {};
  }
  template <class T>
  OPT_FN static void apply(const Step<T>& /*k*/, T x, T& dx) {
    dx = x - dx < 0 ? x : dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
