// sweeps.hpp: operations over lists of arrays outside any optimiser: one multi-threaded sweep each.
#pragma once
#include <span>

#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI {

// ‖a‖ₚ of all elements together, any real p but 0, or ±inf; accumulated in double in a fixed order, scaled when the
// plain sum over- or underflows. 0 without any element. Integers and booleans count as numbers.
// Throws Error(value) for p = 0 or NaN.
double norm(std::span<const ArrayView> arrays, double p = 2);

// target = (1-w) target + w source, elementwise, in the target's compute type; w in [0, 1].
// Checked before anything is written: equal shapes, writable targets, complex sources only for complex targets, and
// no target that shares memory with another array of the call (its own source, element for element, is fine).
void lerp(std::span<const ArrayView> targets, std::span<const ArrayView> sources, double w, const NameOf& name_of);

}  // namespace optimisers::inline OPT_ABI
