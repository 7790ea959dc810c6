// box.hpp: projection of the parameter onto an interval, as the last stage
#pragma once
#include <limits>

#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Box {
  Pair bounds = {-1, 1};

  static constexpr Text text{
      .name = "Box",
      .summary = "Keeps every element of the parameter within an interval: the last stage.",
      .update = "dx ← x − min(max(x − dx, bounds[0]), bounds[1])",
      .notes =
          "optax.projections.projection_box. What is rounded is rounded inwards: an element is never outside, and at "
          "most a rounding away from the bound it was brought to. In a 16-bit leaf bounds are rounded to its type. NaN "
          "stays NaN. Complex leaves are refused at setup.",
      .reference = "Goldstein 1964, Bull. AMS 70; Levitin & Polyak 1966"};
  static constexpr std::tuple fields{
      Field{"bounds", &Box::bounds, Range::interval, "smallest and largest value of an element"}};
  static constexpr std::array<Slot<Box>, 0> slots{};
  static constexpr const char* refuses_complex = "Box compares elements with its bounds, which complex numbers are not";
  friend bool operator==(const Box&, const Box&) = default;

  template <class R>
  struct Step {
    R low, high;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(bounds.first), R(bounds.second)};
  }
  template <class T>
  OPT_FN static void apply(const Step<T>& k, T x, T& dx) {
    constexpr T step = std::numeric_limits<T>::epsilon();
    const T after = x - dx;
    T down = x - k.low, up = x - k.high;  // what brings x to a bound; x less that is rounded, and may lie beyond
    down = x - down < k.low ? down - step * magnitude(down) : down;
    up = x - up > k.high ? up + step * magnitude(up) : up;
    dx = after < k.low ? down : after > k.high ? up : dx;
  }
};

}  // namespace optimisers::inline OPT_ABI
