// norm_terms.hpp: what a p-norm adds up, in which order, and how sums become norms: the same on the host and on
// accelerators, so that both give the same bits.
//
// Order. Element i of an array belongs to lane i mod 16 of its row i / 2048; the lanes of a row are folded, 16 rows
// are folded to the sum of a chunk. Chunks of a leaf, and leaves of a call, go to lane number mod 256, and those are
// folded. To fold is to add the upper half to the lower until one is left.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "optimisers/math.hpp"

namespace optimisers::inline OPT_ABI::norms {

inline constexpr int lanes = 16, rows = 16;
inline constexpr std::int64_t row = 2048, chunk = row * rows;  // elements
inline constexpr int sum_lanes = 256;

enum class Measure : std::uint8_t { sum_squares, sum_abs, sum_power, max_abs, min_abs };
inline constexpr int measure_count = 5;
struct MeasureArgs {
  double inverse_scale = 1;  // elements are multiplied by it first
  double p = 2;              // exponent of sum_power
};

constexpr Measure measure_of(double p) {
  if (p == 2) return Measure::sum_squares;
  if (p == 1) return Measure::sum_abs;
  if (p == std::numeric_limits<double>::infinity()) return Measure::max_abs;
  if (p == -std::numeric_limits<double>::infinity()) return Measure::min_abs;
  return Measure::sum_power;
}
constexpr bool is_sum(Measure m) { return m != Measure::max_abs && m != Measure::min_abs; }

template <class T>
OPT_FN double square(T a, double k) {
  if constexpr (is_complex<T>) return square(a.re, k) + square(a.im, k);
  else return (k * double(a)) * (k * double(a));
}
template <class T>
OPT_FN double size_in_double(T a, double k) {
  if constexpr (is_complex<T>) {  // neither square leaves the range of double unless the magnitude does
    const double re = magnitude(k * double(a.re)), im = magnitude(k * double(a.im));
    const double larger = maximum(re, im), smaller = minimum(re, im);
    const double ratio = smaller / (larger == 0 ? 1 : larger);
    const double whole = larger * root(1 + ratio * ratio);
    return larger == std::numeric_limits<double>::infinity() && smaller == smaller ? larger : whole;
  } else {
    return magnitude(k * double(a));
  }
}

OPT_CALL double power(double a, double p) { return std::pow(a, p); }

template <Measure M, class T>
OPT_FN double accumulate(double so_far, T a, const MeasureArgs& args) {
  if constexpr (M == Measure::sum_squares) return so_far + square(a, args.inverse_scale);
  else if constexpr (M == Measure::sum_abs) return so_far + size_in_double(a, args.inverse_scale);
  else if constexpr (M == Measure::sum_power) return so_far + power(size_in_double(a, args.inverse_scale), args.p);
  else if constexpr (M == Measure::max_abs) return maximum(so_far, size_in_double(a, args.inverse_scale));
  else return minimum(so_far, size_in_double(a, args.inverse_scale));
}

OPT_FN double neutral(Measure m) { return m == Measure::min_abs ? std::numeric_limits<double>::infinity() : 0; }
OPT_FN double combine(Measure m, double a, double b) {
  if (m == Measure::max_abs) return maximum(a, b);
  if (m == Measure::min_abs) return minimum(a, b);
  return a + b;
}

// Of lanes `stride` apart, into lane[0], which it returns; `count` is a power of two.
OPT_CALL double fold(Measure m, double* lane, int count, std::int64_t stride = 1) {
  for (int width = count / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l * stride] = combine(m, lane[l * stride], lane[(l + width) * stride]);
  return lane[0];
}

// The sum of one array, or of several, each element multiplied by `scale` first.
struct Sum {
  double total = 0, scale = 1;
  bool empty = false;  // there is no element
};

constexpr double smallest_sum = 1e-280;  // below, some of the terms may have lost digits
OPT_FN bool is_safe(Measure m, double total) {
  return !is_sum(m) || (total >= smallest_sum && total <= std::numeric_limits<double>::max());
}
// For a sum that is not safe: the power of two that brings the largest element (the smallest, for p < 0) to about 1;
// 1 where nothing helps. Powers need it at 1 itself: 1.4 to the 3000th is out of range.
OPT_FN double rescue_scale(Measure m, double extreme) {
  constexpr double largest = std::numeric_limits<double>::max();
  if (!(extreme > 0 && extreme <= largest)) return 1;
  if (m == Measure::sum_power && 1 / extreme <= largest) return 1 / extreme;
  const int exponent = -std::ilogb(extreme);
  return std::ldexp(1.0, exponent < -1021 ? -1021 : exponent > 1021 ? 1021 : exponent);
}

OPT_FN double norm_of(double p, double total, double scale) {
  const Measure m = measure_of(p);
  if (!is_sum(m)) return total;
  if (m == Measure::sum_squares) return root(total) / scale;
  if (m == Measure::sum_abs) return total / scale;
  return power(total, 1 / p) / scale;
}

// The norm of `count` parts together. part(i) is part i's Sum, lane(i) the lane its place in the call gives it.
// `lane_memory` holds sum_lanes numbers.
template <class Part, class Lane>
OPT_FN double combined_norm(double p, std::int64_t count, Part&& part, Lane&& lane, double* lane_memory) {
  const Measure m = measure_of(p);
  const auto add_up = [&](Measure how, auto&& term) {
    for (int l = 0; l < sum_lanes; ++l) lane_memory[l] = neutral(how);
    for (std::int64_t i = 0; i < count; ++i) {
      const Sum s = part(i);
      if (!s.empty) lane_memory[lane(i)] = combine(how, lane_memory[lane(i)], term(s));
    }
    return fold(how, lane_memory, sum_lanes);
  };
  bool plain = true, any = false;
  for (std::int64_t i = 0; i < count; ++i) {
    const Sum s = part(i);
    if (s.empty) continue;
    plain &= s.scale == 1;
    any = true;
  }
  if (!any) return 0;
  if (plain) {
    const double total = add_up(m, [](const Sum& s) { return s.total; });
    if (!is_sum(m) || (total - total == 0)) return norm_of(p, total, 1);
  }
  // Some part was measured scaled, or their sum overflows: the parts' norms, scaled by the one that dominates.
  const double dominant =
      add_up(p > 0 ? Measure::max_abs : Measure::min_abs, [&](const Sum& s) { return norm_of(p, s.total, s.scale); });
  if (!(dominant - dominant == 0) || dominant == 0) return dominant;
  const double scaled = add_up(Measure::sum_abs, [&](const Sum& s) {
    const double ratio = norm_of(p, s.total, s.scale) / dominant;
    return m == Measure::sum_squares ? ratio * ratio : m == Measure::sum_abs ? ratio : power(ratio, p);
  });
  return dominant * norm_of(p, scaled, 1);
}

}  // namespace optimisers::inline OPT_ABI::norms
