// norms.hpp: p-norms from sums over elements, safe against over- and underflow of the powers.
#pragma once
#include <span>
#include <vector>

#include "cpu/executor.hpp"

namespace optimisers::cpu {

// A norm on its way: the sum (or extreme) over the elements of one leaf, each multiplied by `scale` first.
struct PartialNorm {
  double total = 0, scale = 1;
  bool empty = false;  // no elements
};

Measurement measurement(const Job* job, int stage, double p);
// Runs the measurements, and again with scaled elements those whose sum left the safe range.
std::vector<PartialNorm> measure_norms(std::span<Measurement> measurements, std::span<const FurtherGradient> further);
// Of all parts together, in their order; 0 when all are empty.
double combined_norm(double p, std::span<const PartialNorm> parts);

}  // namespace optimisers::cpu
