// norms.hpp: p-norms of leaves on their way, safe against over- and underflow of the powers.
#pragma once
#include <span>
#include <vector>

#include "cpu/executor.hpp"

namespace optimisers::inline OPT_ABI::cpu {

Measurement measurement(const Job* job, int stage, double p);
// Runs the measurements, and again with scaled elements those whose sum left the safe range.
void measure_norms(std::span<Measurement> measurements, std::span<const FurtherGradient> further, ChunkSums& memory,
                   std::vector<norms::Sum>& sums);
// Of all parts together; 0 when all are empty. `places`: where each part stands among all of the model, which decides
// the order they are added in.
double combined_norm(double p, std::span<const norms::Sum> parts, std::span<const std::uint32_t> places);
inline double norm_of(double p, const norms::Sum& part) {
  return part.empty ? 0 : norms::norm_of(p, part.total, part.scale);
}

}  // namespace optimisers::inline OPT_ABI::cpu
