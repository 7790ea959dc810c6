// group.hpp: leaves that share a program and a type: one arena per slot, one row of rules and clocks per leaf.
#pragma once
#include <cstring>
#include <vector>

#include "cpu/kernels.hpp"
#include "memory/arena.hpp"
#include "optimisers/array.hpp"
#include "optimisers/program.hpp"
#include "plan/clocks.hpp"

namespace optimisers::inline OPT_ABI {

// A stage as the group runs it: where its rule and clock lie in a row, its scalars among a step's, its slots.
struct Stage {
  const RuleInfo* info;
  int rule_offset, clock_offset, step_offset;  // bytes
  int first_slot, slot_count;
  StageKernels kernels;
};

// Neighbouring stages that one kernel runs, and what of theirs the loops over blocks need.
struct Pass {
  int end;
  int step_offset, first_slot, slot_count;
  StageKernels kernels;
};
inline Pass pass_over(const std::vector<Stage>& stages, int first, int end, const StageKernels& kernels) {
  const Stage &front = stages[std::size_t(first)], &back = stages[std::size_t(end - 1)];
  return {end, front.step_offset, front.first_slot, back.first_slot + back.slot_count - front.first_slot, kernels};
}

// Whether the stages from `at` on are these (Use<rule, slots>): the same rule with other slots is another kernel's.
template <class... U>
bool are(const std::vector<Stage>& stages, std::size_t at) {
  if (at + sizeof...(U) > stages.size()) return false;
  const auto is = [&](const RuleInfo* info, int slots) {
    const Stage& stage = stages[at++];
    return info != nullptr && stage.info->same_kernels(*info) && stage.slot_count == slots;
  };
  return (is(find_rule(U::Rule::text.name), U::slots) && ...);
}

struct GroupSlot {
  const char* name;
  DType dtype;
  int stage;
  int start;   // offset in the stage's rule of the double it starts at, -1: zero
  int unless;  // and of the flag that makes it start at zero all the same, -1: none
  bool at_x;   // it starts at the parameter
};

struct Group {
  Group(const Program& program, DType storage, int device = -1);        // -1: on the host
  bool holds(const Program& program, DType storage, int device) const;  // does a leaf of these belong here?

  DType storage, compute;
  int device;
  bool master;
  bool gates = false;  // a stage may run without a gradient
  bool sees = false;   // a stage looks at more than dx: all run one by one
  int matrix = -1;     // the stage that works on whole matrices
  int real;            // the compute type's real type: 0 float, 1 double
  std::vector<Stage> stages;
  std::vector<Pass> passes;   // all stages, in order
  std::vector<int> reducers;  // stages that measure
  std::vector<GroupSlot> slots;
  int row_size = 0, step_size = 0;  // bytes

  std::uint32_t leaves = 0;
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

// What a slot of the leaf with this row starts at.
inline double start_of(const Group& group, const GroupSlot& slot, const std::byte* row) {
  if (slot.start < 0) return 0;
  const std::byte* rule = row + group.stages[std::size_t(slot.stage)].rule_offset;
  bool zero = false;
  if (slot.unless >= 0) std::memcpy(&zero, rule + slot.unless, sizeof zero);
  double value = 0;
  if (!zero) std::memcpy(&value, rule + slot.start, sizeof value);
  return value;
}

// A group's stages on the row of one leaf.
struct RowStages {
  const Group& group;
  std::byte* row;
  std::byte* steps;

  const Stage& stage(int s) const { return group.stages[std::size_t(s)]; }
  bool gating(int s) const { return stage(s).info->gating(); }
  void tick(int s) const {
    stage(s).info->tick[group.real](row + stage(s).rule_offset, clock_of(stage(s), row), steps + stage(s).step_offset);
  }
  bool open(int s) const { return stage(s).info->open(clock_of(stage(s), row)); }
  bool miss(int s) const {
    return stage(s).info->miss[group.real](row + stage(s).rule_offset, clock_of(stage(s), row),
                                           steps + stage(s).step_offset);
  }
  bool flush(int s, bool has_gradient) const {
    return stage(s).info->flush[group.real](row + stage(s).rule_offset, clock_of(stage(s), row),
                                            steps + stage(s).step_offset, has_gradient);
  }
};

}  // namespace optimisers::inline OPT_ABI
