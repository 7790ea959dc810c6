// norms.cpp: which sum a p-norm needs, when it must be scaled, and how parts combine.
#include "cpu/norms.hpp"

#include <algorithm>
#include <cmath>

namespace optimisers::cpu {
namespace {

Measure measure_of(double p) {
  if (p == 2) return Measure::sum_squares;
  if (p == 1) return Measure::sum_abs;
  if (std::isinf(p)) return p > 0 ? Measure::max_abs : Measure::min_abs;
  return Measure::sum_power;
}

bool is_sum(Measure m) { return m != Measure::max_abs && m != Measure::min_abs; }

constexpr double smallest_sum = 1e-280;  // below, some of the terms may have lost digits

double norm_of(double p, PartialNorm part) {
  if (std::isinf(p)) return part.total;
  if (p == 2) return std::sqrt(part.total) / part.scale;
  if (p == 1) return part.total / part.scale;
  return std::pow(part.total, 1 / p) / part.scale;
}

// Measures again with the largest element (the smallest, for p < 0) at about 1. An infinity or NaN stays as it is.
PartialNorm rescaled(Measurement m, std::span<const FurtherGradient> further) {
  const double plain = m.result;
  Measurement extreme = m;
  extreme.measure = m.args.p < 0 ? Measure::min_abs : Measure::max_abs;
  measure({&extreme, 1}, further);
  if (!std::isfinite(extreme.result) || extreme.result == 0) return {plain, 1};
  m.args.inverse_scale = std::ldexp(1.0, std::clamp(-std::ilogb(extreme.result), -1021, 1021));
  measure({&m, 1}, further);
  return {m.result, m.args.inverse_scale};
}

}  // namespace

Measurement measurement(const Job* job, int stage, double p) { return {job, stage, measure_of(p), {1, p}}; }

std::vector<PartialNorm> measure_norms(std::span<Measurement> measurements, std::span<const FurtherGradient> further) {
  measure(measurements, further);
  std::vector<PartialNorm> partial;
  partial.reserve(measurements.size());
  for (const Measurement& m : measurements) {
    const bool safe = !is_sum(m.measure) || (m.result >= smallest_sum && std::isfinite(m.result));
    if (m.job->size == 0) partial.push_back({.empty = true});
    else partial.push_back(safe ? PartialNorm{m.result, 1} : rescaled(m, further));
  }
  return partial;
}

double combined_norm(double p, std::span<const PartialNorm> parts) {
  const auto fold = [&](auto&& term, auto&& combine) {
    bool any = false;
    double so_far = 0;
    for (const PartialNorm& part : parts) {
      if (part.empty) continue;
      so_far = any ? combine(so_far, term(part)) : term(part);
      any = true;
    }
    return so_far;
  };
  const auto norm = [&](const PartialNorm& part) { return norm_of(p, part); };
  const auto extreme = [&](double a, double b) { return p > 0 ? maximum(a, b) : minimum(a, b); };
  const auto plus = [](double a, double b) { return a + b; };
  if (std::all_of(parts.begin(), parts.end(), [](const PartialNorm& part) { return part.empty; })) return 0;
  if (std::isinf(p)) return fold(norm, extreme);
  const bool plain = std::all_of(parts.begin(), parts.end(), [](const PartialNorm& part) { return part.scale == 1; });
  const double sum = fold([](const PartialNorm& part) { return part.total; }, plus);
  if (plain && std::isfinite(sum)) return norm_of(p, {sum, 1});
  // Some part was measured scaled: combine the parts' norms, scaled by the one that dominates.
  const double dominant = fold(norm, extreme);
  if (!std::isfinite(dominant) || dominant == 0) return dominant;
  return dominant *
         std::pow(fold([&](const PartialNorm& part) { return std::pow(norm_of(p, part) / dominant, p); }, plus), 1 / p);
}

}  // namespace optimisers::cpu
