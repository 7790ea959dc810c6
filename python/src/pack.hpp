// pack.hpp: copying arrays of any layout and dtype into the segments of one vector.
#pragma once
#include <vector>

#include "optimisers/array.hpp"

namespace optimisers::python {

// One array and where it goes: `begin` in elements of the vector. Further arrays for the same place are added.
struct Segment {
  ArrayView array;  // not present: zeros
  std::int64_t begin;
  std::int64_t size;
  bool add = false;
};

// In parallel, or enqueued where the vector is on a device; segments that add run after the others, in order. No Python
// here: the GIL may be released.
void pack(const std::vector<Segment>& segments, const ArrayView& vector);

}  // namespace optimisers::python
