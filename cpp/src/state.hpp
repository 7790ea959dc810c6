// state.hpp: what an Optimiser owns: its leaves, their groups, and scratch that calls reuse.
#pragma once
#include "cpu/executor.hpp"
#include "group.hpp"
#include "optimisers/optimiser.hpp"

namespace optimisers {

struct LeafRecord {
  std::uint32_t group, index;  // index: row in the group
  std::int64_t size, offset;   // elements; offset in the group's arenas
  bool frozen = false;
  std::uint64_t epoch = 0;               // call in which its array was last checked against the others
  const std::byte* checked = nullptr;    // that array's first byte
  bool checked_contiguous = false;
};

// Memory that is written in a call: sorted, disjoint, with the arrays behind it for exact answers.
struct WrittenMemory {
  std::vector<Extent> extents;                 // merged
  std::vector<std::pair<ArrayView, std::uint32_t>> arrays;  // parameter, leaf
};

struct Optimiser::State {
  explicit State(std::vector<LeafSpec> leaves);

  std::vector<LeafSpec> specs;
  std::vector<LeafRecord> leaves;
  std::vector<Group> groups;

  std::uint64_t epoch = 0;
  WrittenMemory written;

  std::vector<cpu::Job> jobs;
  std::vector<std::byte> steps, backup, scratch_row;

  Group& group_of(Leaf leaf) { return groups[leaves[leaf].group]; }
  std::byte* row_of(Leaf leaf) { return group_of(leaf).row(leaves[leaf].index); }
  const std::byte* row_of(Leaf leaf) const { return groups[leaves[leaf].group].row(leaves[leaf].index); }
  RuleValue rule(Leaf leaf, int stage) const;
};

// checks.cpp: every reason to refuse a call, before anything is written.
void check_arrays(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                  bool writes_x);

// schedule.cpp: clocks and norms, on the way from checked arrays to jobs.
void schedule(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further);

}  // namespace optimisers
