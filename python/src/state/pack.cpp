// pack.cpp: the segments of a vector, on the host or on a device.
#include "state/pack.hpp"

#include "arrays/device_array.hpp"
#include "optimisers/cuda.hpp"

namespace optimisers::python {
namespace {

// Where the segment lies in the vector, in the shape of `array`.
ArrayView part_of(const ArrayView& vector, const FlatPart& s, ArrayView array) {
  array.data = vector.data + s.begin * size_of(vector.dtype);
  array.strides = nullptr;
  array.dtype = vector.dtype;
  return array;
}

// Further arrays of a segment follow in rounds, as each adds to what is there.
void pack_on_device(std::span<const FlatPart> parts, const ArrayView& vector) {
  std::vector<ArrayView> to, from, missing;
  for (const FlatPart& s : parts) {
    if (s.size == 0) continue;
    if (s.array.present) {
      to.push_back(part_of(vector, s, s.array));
      from.push_back(s.array);
    } else {
      missing.push_back(part_of(vector, s, {.shape = &s.size, .ndim = 1, .present = true, .device = vector.device}));
    }
  }
  if (!to.empty()) cuda::transfer(vector.device, to, from);
  device_zero(missing);
  for (std::size_t round = 0; !to.empty(); ++round) {
    to.clear(), from.clear();
    for (const FlatPart& s : parts) {
      if (s.size == 0 || s.further.size() <= round) continue;
      to.push_back(part_of(vector, s, s.further[round]));
      from.push_back(s.further[round]);
    }
    if (!to.empty()) cuda::transfer(vector.device, to, from, true);
  }
}

}  // namespace

void pack(std::span<const FlatPart> parts, const ArrayView& vector) {
  if (vector.device == on_host) pack_parts(parts, vector.data, vector.dtype);
  else pack_on_device(parts, vector);
}

}  // namespace optimisers::python
