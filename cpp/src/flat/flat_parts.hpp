// flat_parts.hpp: arrays of any layout and element type, and the parts of one flat array they stand for.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI {

// An array on the host and its place. A list of them covers the flat array in order, without gaps.
struct FlatPart {
  ArrayView array;                      // not present: zeros
  std::int64_t begin = 0, size = 0;     // in elements of the flat array
  std::vector<ArrayView> further = {};  // what is added to it
};

// Both copy on all threads and convert with one rounding; a complex element leaves its real part in a real array. Sums
// run in the compute type, in order. Nothing is checked: sizes agree, and what is written shares no memory.
void pack_parts(std::span<const FlatPart> parts, std::byte* flat, DType dtype);
void unpack_parts(const std::byte* flat, DType dtype, std::span<const FlatPart> parts);

}  // namespace optimisers::inline OPT_ABI
