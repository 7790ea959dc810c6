// kernels.hpp: the table of kernels that kernels.cpp fills once per instruction set.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/common_chains.hpp"
#include "optimisers/kernel.hpp"
#include "plan/norm_terms.hpp"

namespace optimisers::inline OPT_ABI::cpu {

// Adds n elements to the lanes of a row (norm_terms.hpp). Calls continue one another's lanes, each call but the last
// with a multiple of the number of lanes.
using MeasureFn = void (*)(double* lane, const void* dx, const norms::MeasureArgs& args, std::int64_t n);

using ConvertFn = void (*)(const void* in, void* out, std::int64_t n);
// Where x is not the rounded master, the master takes x.
using TakeEditsFn = void (*)(const void* x, void* master, std::int64_t n);

// A tile of a product of matrices: out[i][j] = Σ a[k][i] b[k][j] over k in order, with one rounding for a product and
// its sum where the instruction set has that (matrix.cpp).
using TileFn = void (*)(std::int64_t k, const void* a, const void* b, void* out);
struct Tile {
  int rows, cols;
  TileFn multiply;
};

inline constexpr int real_dtypes = 4;  // float16, bfloat16, float32, float64; complex arrays are twice as many reals
struct KernelTable {
  const char* level;
  bool has_complex;                                  // stages of complex leaves: not on every instruction set
  StageKernels stage[rule_count][2][compute_count];  // [rule][slots beyond min_slots][compute type]
  StageKernels chain[common_chain_count > 0 ? common_chain_count : 1][real_compute_count];
  MeasureFn measure[compute_count][norms::measure_count];
  ConvertFn widen[real_dtypes][2];   // from a real dtype to float32, float64
  ConvertFn narrow[2][real_dtypes];  // from float32, float64, rounding to nearest even
  TakeEditsFn take_edits[real_dtypes][2];
  // a += b, for the gradients of tied leaves; a = keep a + take b, for moving averages.
  void (*add[2])(void* a, const void* b, std::int64_t n);
  void (*lerp[2])(void* a, const void* b, double keep, double take, std::int64_t n);
  Tile tile[2];  // float32, float64
};

const KernelTable& kernels();  // of the chosen level (isa.cpp)
// Of a rule of the library on that level, or on the one below that has it.
const StageKernels& stage_kernels_of(int rule, std::size_t variant, std::size_t compute);
std::vector<const KernelTable*> runnable_kernels();  // of all levels this machine has, lowest first

}  // namespace optimisers::inline OPT_ABI::cpu
