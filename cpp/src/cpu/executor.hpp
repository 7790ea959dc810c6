// executor.hpp: runs the stages of leaves over memory, in blocks, on all threads. Knows no rule and no tree.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cpu/matrix.hpp"
#include "optimisers/optimiser.hpp"
#include "plan/group.hpp"

namespace optimisers::inline OPT_ABI::cpu {

// How the arrays of one leaf lie in memory. Direct: contiguous, aligned, of the compute type.
struct ArrayFlags {
  bool x_contiguous = true, x_direct = true;
  bool dx_contiguous = true, dx_direct = true;
};

// One leaf's work in one call.
struct Job {
  const Group* group;
  const LeafUpdate* arrays;
  const std::byte* steps;  // scalars of each stage, filled by tick
  std::int64_t offset;     // first element in the group's arenas
  std::int64_t size;
  std::byte* out = nullptr;  // write dx here, in the leaf's dtype, and leave x alone
  Course course = {};
  ArrayFlags flags = {};
  double scale = 1;               // of the gradient, which is not direct then
  std::byte* matrices = nullptr;  // of its matrix stage, in sweep alone
};

// All stages of all jobs, with writes. Leaves with a matrix stage come one after the other, in this memory.
struct Whole {
  MatrixShape shape;
  Polynomial polynomial;
};
struct Wholes {
  std::span<const Whole> leaves;  // of all; empty: none has such a stage
  std::byte* memory = nullptr;
};
std::size_t whole_bytes(const Job& job, const MatrixShape& shape);  // of the memory; 0: its matrix stage does not run
void sweep(std::span<const Job> jobs, std::span<const FurtherGradient> further, const Wholes& wholes);

// The same on this thread, of leaves that are small: no thread takes a part of one. Into how many portions so many of
// them are best dealt out, of this many elements on average.
inline constexpr std::int64_t small_leaf = 4096;  // elements
void sweep_here(std::span<const Job> jobs, std::span<const FurtherGradient> further);
std::size_t small_portions(std::size_t leaves, double elements);

// What a leaf measures when it has come to a stage: a norm's sum of dx, or what that stage's rule sums; nothing is
// written.
struct Measurement {
  const Job* job;
  int stage;
  norms::Measure measure = norms::Measure::sum_abs;
  norms::MeasureArgs args = {};
  int sums = 0;  // of the rule; 0: a norm
  std::array<double, most_sums> results = {};

  int count() const { return sums == 0 ? 1 : sums; }
  double result() const { return results[0]; }
};
struct ChunkSums {  // memory that calls reuse
  std::vector<std::size_t> first;
  std::vector<double> sums;
};
void measure(std::span<Measurement> measurements, std::span<const FurtherGradient> further, ChunkSums& memory);
inline void measure(std::span<Measurement> measurements, std::span<const FurtherGradient> further) {
  ChunkSums memory;
  measure(measurements, further, memory);
}

// targets[i] = keep targets[i] + take sources[i], in the targets' compute types.
void lerp(std::span<const ArrayView> targets, std::span<const ArrayView> sources, double keep, double take);

// f(leaf, begin, end) for ranges of elements that make up all leaves, each on the thread that will sweep it when all
// leaves are updated: the first to write a page decides which processor's memory it lies in. f must not throw.
using OnRange = std::function<void(std::size_t leaf, std::int64_t begin, std::int64_t end)>;
void on_sweeping_threads(std::span<const std::int64_t> sizes, const OnRange& f);

}  // namespace optimisers::inline OPT_ABI::cpu
