// pairs_call.hpp: one launch over pairs of arrays on a device.
#pragma once
#include <span>

#include "kernels/tables.hpp"
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// to[i] (op) from[i] on the thread's stream. Shapes are equal; the arrays need not be contiguous or aligned.
void run_pairs(int device, std::span<const ArrayView> to, std::span<const ArrayView> from, PairOp op, double keep,
               double take);

}  // namespace optimisers::inline OPT_ABI::cuda
