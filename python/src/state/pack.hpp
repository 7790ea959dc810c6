// pack.hpp: copying arrays of any layout and dtype into the parts of one vector, wherever they are.
#pragma once
#include <span>

#include "flat/flat_parts.hpp"

namespace optimisers::python {

// As pack_parts, or enqueued where all of them are on a device. No Python here: the GIL may be released.
void pack(std::span<const FlatPart> parts, const ArrayView& vector);

}  // namespace optimisers::python
