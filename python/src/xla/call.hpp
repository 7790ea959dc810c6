// call.hpp: the custom call that XLA's programs make: one step of all leaves of a tree.
#pragma once
#include "xla/ffi/api/c_api.h"

namespace optimisers::python::xla {

// Operands: the clock, uint32 (..., doubles, 2), low half first, of all leaves one after the other where each has its
// own; the hyperparameters likewise; those that stand in for
// some of them, as floats; and of each leaf x, dx, its slots and its master copy. Results: the clock, and of each leaf
// x, or what is to be subtracted, slots and master copy. What stands before the last two axes of the clock are
// independent problems, which all operands have in front. Attributes: `rule` as text, `stand_in` (places among the
// hyperparameters), `subtracts` (one integer: 1, 0), `names` of the leaves, one a line.
XLA_FFI_Error* step(XLA_FFI_CallFrame* frame);

}  // namespace optimisers::python::xla
