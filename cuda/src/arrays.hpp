// arrays.hpp: the host's views of arrays as kernels see them.
#pragma once
#include <vector>

#include "optimisers/array.hpp"
#include "tables.hpp"

namespace optimisers::cuda {

// Appends the axes of an array that is not contiguous, neighbouring ones that continue one another as one.
DeviceArray device_array(const ArrayView& array, std::vector<Axis>& axes);

// The kernel that reads and writes such arrays: x of a leaf and, if it has one, its only gradient.
Access access_of(DType compute, const DeviceArray& x, const DeviceArray* dx);

}  // namespace optimisers::cuda
