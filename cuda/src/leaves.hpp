// leaves.hpp: the leaves of one optimiser on one device.
#pragma once
#include <memory>
#include <vector>

#include "device.hpp"

namespace optimisers::inline OPT_ABI::cuda {

std::unique_ptr<DeviceLeaves> make_leaves(Optimiser::State& state, int device, std::span<const ArrayView> x);

}  // namespace optimisers::inline OPT_ABI::cuda
