// leaves.hpp: the leaves of one optimiser on one device, and the norm of arrays there.
#pragma once
#include <memory>
#include <vector>

#include "device.hpp"

namespace optimisers::cuda {

std::unique_ptr<DeviceLeaves> make_leaves(Optimiser::State& state, int device, std::span<const ArrayView> x);

// The sum of each array that makes its p-norm. Waits for it.
std::vector<norms::Sum> measure_arrays(int device, std::span<const ArrayView> arrays, double p);

}  // namespace optimisers::cuda
