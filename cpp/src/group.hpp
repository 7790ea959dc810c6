// group.hpp: leaves that share a program and a type: one arena per slot, one row of rules and clocks per leaf.
#pragma once
#include <vector>

#include "arena.hpp"
#include "cpu/kernels.hpp"
#include "optimisers/program.hpp"

namespace optimisers {

// A stage as the group runs it: where its rule and clock lie in a row, its scalars among a step's, its slots.
struct Stage {
  const RuleInfo* info;
  int rule_offset, clock_offset, step_offset;  // bytes
  int first_slot, slot_count;
  StageKernels kernels;
};

// Neighbouring stages that one kernel runs.
struct Pass {
  int first, end;
  StageKernels kernels;
};

struct GroupSlot {
  const char* name;
  DType dtype;
  int stage;
  int start;  // offset in the stage's rule of the double it starts at, -1: zero
};

struct Group {
  Group(const Program& program, DType storage);
  bool holds(const Program& program, DType storage) const;  // does a leaf of these belong here?

  DType storage, compute;
  bool master;
  bool gates = false;  // a stage may run without a gradient
  int real;            // the compute type's real type: 0 float, 1 double
  std::vector<Stage> stages;
  std::vector<Pass> passes;   // all stages, in order
  std::vector<int> reducers;  // stages that measure
  std::vector<GroupSlot> slots;
  int row_size = 0, step_size = 0;  // bytes

  std::int64_t elements = 0;  // of all leaves, with the gaps that align each
  std::vector<std::byte> rows;
  std::vector<Arena> arenas;  // one per slot
  Arena masters;

  std::byte* row(std::uint32_t index) { return rows.data() + std::size_t(index) * std::size_t(row_size); }
  const std::byte* row(std::uint32_t index) const { return rows.data() + std::size_t(index) * std::size_t(row_size); }
};

inline double* clock_of(const Stage& stage, std::byte* row) {
  return reinterpret_cast<double*>(row + stage.clock_offset);
}
inline const double* clock_of(const Stage& stage, const std::byte* row) {
  return reinterpret_cast<const double*>(row + stage.clock_offset);
}

}  // namespace optimisers
