// lent.hpp: steps over state that somebody else keeps: hyperparameters, clocks, slots and master copies come with each
// call, and nothing of them stays here. What runs is what an Optimiser runs.
#pragma once
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {

// Whether a hyperparameter comes with each call. The others decide what there is to run: counts, switches, the order of
// a norm.
inline bool comes_with_call(const FieldInfo& field) {
  return (field.kind == FieldKind::number || field.kind == FieldKind::pair) && !field.structural &&
         field.range != Range::norm_order;
}

// Whether what a rule keeps in its clock depends on the leaf, and not on the steps alone.
inline bool keeps_leafs_own_clock(const RuleInfo& rule) { return rule.summing() && rule.clock_size > 0; }

struct LentLeaf {
  std::string name;  // for messages
  DType dtype;
  std::int64_t size;
};

// Of one leaf in one call, contiguous.
struct LentArrays {
  std::byte* x;
  std::byte* dx;
  DType dx_dtype;
  std::byte* out;           // what would be subtracted goes here; null: it is subtracted from x
  std::byte* const* state;  // slots, stage by stage, and behind them the master copy, if it has one
};

// How many arrays LentArrays::state has for a leaf of this type.
inline std::size_t state_count(const Program& program, DType leaf) {
  std::size_t n = program.has_master(leaf) ? 1 : 0;
  for (const RuleValue& rule : program.stages) n += std::size_t(rule.slot_count());
  return n;
}

class LentStep {
 public:
  LentStep(const Program& program, const std::vector<LentLeaf>& leaves);

  std::size_t number_count() const { return numbers_.size(); }  // of hyperparameters that come; a pair is two
  // Of all stages; each leaf's own, one after the other, if a rule keeps something of its leaf there.
  std::size_t clock_count() const { return own_clocks_ ? clock_count_ * updates_.size() : clock_count_; }
  bool own_clocks() const { return own_clocks_; }
  DType state_dtype(std::size_t leaf, std::size_t array) const;  // of LentArrays::state

  // Throws what an update throws, and what is wrong with a number, and has written nothing then. Clocks are advanced.
  void run(std::span<const double> numbers, std::span<double> clock, std::span<const LentArrays> arrays);

 private:
  void set_rules(std::span<const double> numbers);
  void lend(std::size_t leaf, const LentArrays& arrays, std::span<const double> clock);
  void measure_and_sweep(std::span<const LentArrays> arrays);

  Optimiser::State state_;  // each leaf is a group of its own, whose arenas are the caller's memory
  std::vector<RuleValue> rules_;
  std::vector<double> numbers_;
  std::size_t clock_count_ = 0;
  bool rules_set_ = false, own_clocks_ = false;
  std::vector<LeafUpdate> updates_;
};

}  // namespace optimisers::inline OPT_ABI
