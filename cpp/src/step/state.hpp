// state.hpp: what an Optimiser owns: its leaves, their groups, and scratch that calls reuse.
#pragma once
#include "cpu/executor.hpp"
#include "optimisers/optimiser.hpp"
#include "plan/group.hpp"
#include "step/norm_scratch.hpp"

namespace optimisers::inline OPT_ABI {

// Hot: one per leaf, read by every update.
struct LeafRecord {
  const std::int64_t* shape;           // in State::shapes
  std::int64_t size, offset;           // elements; offset in the group's arenas
  const std::byte* checked = nullptr;  // its array when it was last compared with the others,
  std::uint32_t epoch = 0;             // and the call in which that was
  std::uint32_t group, index;          // index: row in the group
  std::int32_t ndim;
  DType dtype;
  bool frozen = false;
  std::int8_t device = on_host;
  bool contiguous = false;  // so was the array that was compared
  bool wrote = false;       // its parameter was written when its gate was last asked
};

// Memory that is written in a call: sorted, disjoint, with the arrays behind it for exact answers.
struct WrittenMemory {
  std::vector<Extent> extents;                              // merged
  std::vector<std::pair<ArrayView, std::uint32_t>> arrays;  // parameter, leaf
};

class DeviceLeaves;

struct Optimiser::State {
  // Lent: each leaf is a group of its own without memory, which comes with each call (lent.hpp).
  enum class Arenas : bool { own, lent };
  State(std::vector<LeafSpec> leaves, std::pmr::memory_resource* memory, Arenas arenas = Arenas::own);
  ~State();

  std::pmr::memory_resource* memory;  // of the arenas; null: the system's
  std::vector<LeafSpec> specs;
  std::vector<LeafRecord> leaves;
  std::vector<Group> groups;

  std::vector<std::int64_t> shapes;   // of all leaves, one after the other
  std::vector<std::int64_t> strides;  // of the arrays that were last compared, in bytes, at the same places
  std::uint32_t epoch = 0;
  WrittenMemory written;

  bool any_host = false;                     // some group is on the host
  bool reduces = false;                      // and one of those reduces
  bool shares = false;                       // a rule has numbers of the whole state
  bool small = true;                         // no leaf there is worth sharing out,
  double small_work = 0;                     // and so much is one on average, in elements
  std::size_t step_size = 0, row_words = 0;  // the largest of any group; bytes, and words of 8 bytes

  const char* call = "update";  // for messages
  Language language = Language::python;
  const char* without_throw() const {  // the rule to use instead, for a norm that is refused
    return language == Language::cxx ? "ClipNorm{.throw_ = false}" : "throw=False";
  }
  const char* skipping() const { return language == Language::cxx ? "NonFinite::skip" : "non_finite=\"skip\""; }
  bool flushes = false;                                // in this call gating stages open on what they hold
  double scale = 1;                                    // of the call's gradients
  const Optimiser::ReduceNorm* reduce_norm = nullptr;  // of the call
  std::vector<cpu::ArrayFlags> flags;                  // of the call's leaves
  std::span<cpu::Job> jobs;                            // in job_memory
  std::vector<cpu::Job> job_memory;
  std::vector<std::byte> steps, backup;
  std::vector<std::uint64_t> row_memory;
  std::size_t room_leaves = 0, room_portions = 0;  // so many fit in what stands above
  NormScratch norms;
  std::vector<cpu::Whole> wholes;  // of all leaves; empty: none has a matrix stage
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> whole_memory;
  cpu::Wholes whole_leaves() { return {wholes, whole_memory.empty() ? nullptr : whole_memory.data()->bytes}; }
  // All leaves' shared numbers become those of the leaf that has most steps.
  void share_clocks();

  std::vector<std::pair<int, std::unique_ptr<DeviceLeaves>>> devices;  // of leaves that are not on the host
  DeviceLeaves* device_of(Leaf leaf);                                  // null: on the host

  Seen last_seen;
  std::optional<double> shared_norm;  // the one that the leaves here shared in this call
  int norm_device = on_host;          // where the last norm is that some call saw
  void take_norm();                   // this call's
  Seen seen() const;

  Group& group_of(Leaf leaf) { return groups[leaves[leaf].group]; }
  std::byte* row_of(Leaf leaf) { return group_of(leaf).row(leaves[leaf].index); }
  const std::byte* row_of(Leaf leaf) const { return groups[leaves[leaf].group].row(leaves[leaf].index); }
  std::int64_t* strides_of(const LeafRecord& leaf) { return strides.data() + (leaf.shape - shapes.data()); }
  RuleValue rule(Leaf leaf, int stage) const;
  void update(std::span<const LeafUpdate> checked, std::span<const FurtherGradient> further);
  // finite.cpp: false for what is to be skipped; of checked arrays.
  bool accepts(std::span<const LeafUpdate> checked, std::span<const FurtherGradient> further, NonFinite non_finite);
};

// Throws for a hyperparameter that overflows in the type the leaf is computed in.
void check_fits(const LeafSpec& spec, const RuleValue& rule, const char* call);

// Whether the parameter may be written: a gate may let something through without a gradient.
inline bool may_write(const Optimiser::State& state, const LeafUpdate& u) {
  const LeafRecord& leaf = state.leaves[u.leaf];
  return !leaf.frozen && (u.dx.present || state.groups[leaf.group].gates);
}

// checks.cpp: every reason to refuse a call, before anything is written. Fills state.flags: of leaves [begin, end), or
// of all.
Examined examine(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                 bool writes_x, std::size_t begin, std::size_t end);
void refuse_what_was_found(Optimiser::State& state, std::span<const LeafUpdate> leaves,
                           std::span<const FurtherGradient> further, bool writes_x, const Examined& found);
void check_arrays(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                  bool writes_x);

// schedule.cpp: clocks and norms, on the way from checked arrays to jobs.
void schedule(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further);
// reductions.cpp: the norms that stages of state.jobs ask for; throws for one that is refused.
void reduce_norms(Optimiser::State& state, std::span<const FurtherGradient> further);
// Clocks and sweep in one, of leaves that are small and without norms.
void run_small(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further);

}  // namespace optimisers::inline OPT_ABI
