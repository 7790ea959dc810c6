// matrix.hpp: matrices made orthogonal, the same bits for any number of threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "optimisers/dtype.hpp"
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI::cpu {

// A leaf as matrices, one after the other, each [rows, cols] in memory.
struct MatrixShape {
  std::int64_t count = 1, rows = 0, cols = 0;
  bool transposed = false;  // what comes out is the columns
  double out() const { return double(transposed ? cols : rows); }
  double in() const { return double(transposed ? rows : cols); }
};
// False: it has too few axes.
bool matrix_shape(std::span<const std::int64_t> shape, const Matrices& how, MatrixShape& to);

// Memory that orthogonalise works in, with the threads there are now.
std::size_t matrix_workspace(const MatrixShape& shape, DType compute);
// Each matrix in place, in its own type, float32 or float64.
void orthogonalise(std::byte* matrices, const MatrixShape& shape, const Polynomial& polynomial, DType compute,
                   std::byte* workspace);

}  // namespace optimisers::inline OPT_ABI::cpu
