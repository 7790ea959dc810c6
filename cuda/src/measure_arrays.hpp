// measure_arrays.hpp: the norm of arrays on a device.
#pragma once
#include <span>
#include <vector>

#include "device.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// The sum of each array that makes its p-norm. Waits for it.
std::vector<norms::Sum> measure_arrays(int device, std::span<const ArrayView> arrays, double p);

}  // namespace optimisers::inline OPT_ABI::cuda
