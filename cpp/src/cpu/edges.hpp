// edges.hpp: the edges of a block: arrays of any type and strides, converted to contiguous elements of a compute type.
#pragma once
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::cpu {

// Position of a real dtype in the kernel table; complex arrays go as twice as many reals.
inline int real_index(DType d) { return static_cast<int>(real_dtype(d)); }
inline int reals(DType d) { return is_complex_dtype(d) ? 2 : 1; }

// n elements from `begin` on; `contiguous` is what is_contiguous() says of the array.
void load(const ArrayView& a, bool contiguous, std::int64_t begin, std::int64_t n, DType compute, std::byte* to);
void load(const ArrayView& a, std::int64_t begin, std::int64_t n, DType compute, std::byte* to);
void store(const ArrayView& a, bool contiguous, std::int64_t begin, std::int64_t n, DType compute,
           const std::byte* from);

}  // namespace optimisers::inline OPT_ABI::cpu
