// norms.cpp: runs the measurements that a p-norm takes (norm_terms.hpp says which and in what order they add up).
#include "cpu/norms.hpp"

namespace optimisers::inline OPT_ABI::cpu {
namespace {

// Measures again with the largest element (the smallest, for p < 0) at about 1. An infinity or NaN stays as it is.
norms::Sum rescued(Measurement m, std::span<const FurtherGradient> further) {
  const double plain = m.result();
  Measurement extreme = m;
  extreme.measure = m.args.p < 0 ? norms::Measure::min_abs : norms::Measure::max_abs;
  measure({&extreme, 1}, further);
  const double scale = norms::rescue_scale(m.measure, extreme.result());
  if (scale == 1) return {plain, 1};
  m.args.inverse_scale = scale;
  measure({&m, 1}, further);
  return {m.result(), scale};
}

}  // namespace

Measurement measurement(const Job* job, int stage, double p) { return {job, stage, norms::measure_of(p), {1, p}}; }

void measure_norms(std::span<Measurement> measurements, std::span<const FurtherGradient> further, ChunkSums& memory,
                   std::vector<norms::Sum>& sums) {
  measure(measurements, further, memory);
  sums.clear();
  sums.reserve(measurements.size());
  for (const Measurement& m : measurements) {
    if (m.job->size == 0) sums.push_back({.empty = true});
    else if (m.sums > 0 || norms::is_safe(m.measure, m.result())) sums.push_back({m.result(), 1});
    else sums.push_back(rescued(m, further));
  }
}

double combined_norm(double p, std::span<const norms::Sum> parts, std::span<const std::uint32_t> places) {
  double lanes[norms::sum_lanes];
  return norms::combined_norm(
      p, std::int64_t(parts.size()), [&](std::int64_t i) { return parts[std::size_t(i)]; },
      [&](std::int64_t i) { return places[std::size_t(i)] % norms::sum_lanes; }, lanes);
}

}  // namespace optimisers::inline OPT_ABI::cpu
