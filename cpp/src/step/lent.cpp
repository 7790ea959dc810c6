// lent.cpp: puts the caller's memory where an Optimiser has its own, and runs one step.
#include "step/lent.hpp"

#include <algorithm>
#include <cstring>

#include "environment.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

std::vector<LeafSpec> specs_of(const Program& program, const std::vector<LentLeaf>& leaves) {
  for (const RuleValue& rule : program.stages)
    if (rule.info().matrix())
      throw Error(ErrorKind::value, std::string("setup: ") + rule.info().text.name +
                                        " works on whole matrices, and inside jit a leaf is a row of numbers; use "
                                        "update outside of it");
  std::vector<LeafSpec> specs;
  specs.reserve(leaves.size());
  for (const LentLeaf& leaf : leaves) specs.push_back({leaf.name, {leaf.size}, leaf.dtype, program});
  return specs;
}

// Not ours to give back.
void keep(int, std::byte*) {}

template <class F>
void each_coming(const RuleInfo& info, F&& f) {
  for (const FieldInfo& field : info.fields)
    if (comes_with_call(field)) f(field);
}

}  // namespace

LentStep::LentStep(const Program& program, const std::vector<LentLeaf>& leaves)
    : state_(specs_of(program, leaves), nullptr, Optimiser::State::Arenas::lent), rules_(program.stages) {
  std::size_t numbers = 0;
  for (const RuleValue& rule : rules_) {
    each_coming(rule.info(), [&](const FieldInfo& f) { numbers += f.kind == FieldKind::pair ? 2 : 1; });
    clock_count_ += std::size_t(rule.info().clock_size);
    own_clocks_ |= keeps_leafs_own_clock(rule.info());
  }
  numbers_.resize(numbers);
  updates_.resize(leaves.size());
  state_.flags.resize(leaves.size());
  state_.call = "apply";
}

DType LentStep::state_dtype(std::size_t leaf, std::size_t array) const {
  const Group& group = state_.groups[state_.leaves[leaf].group];
  return array < group.slots.size() ? group.slots[array].dtype : group.compute;
}

void LentStep::set_rules(std::span<const double> numbers) {
  if (rules_set_ && std::equal(numbers.begin(), numbers.end(), numbers_.begin())) return;
  rules_set_ = false;
  std::size_t at = 0;
  for (RuleValue& rule : rules_)
    each_coming(rule.info(), [&](const FieldInfo& f) {
      if (f.kind == FieldKind::pair) rule.set(f, Pair{numbers[at], numbers[at + 1]});
      else rule.set(f, numbers[at]);
      at += f.kind == FieldKind::pair ? 2 : 1;
    });
  const LeafSpec* checked = nullptr;  // what a type cannot hold is so for all leaves of it
  for (const LeafSpec& spec : state_.specs) {
    if (checked != nullptr && checked->dtype == spec.dtype) continue;
    checked = &spec;
    for (const RuleValue& rule : rules_) check_fits(spec, rule, state_.call);
  }
  for (std::size_t i = 0; i < state_.leaves.size(); ++i) {
    const Group& group = state_.group_of(Optimiser::Leaf(i));
    for (std::size_t s = 0; s < group.stages.size(); ++s)
      std::memcpy(state_.row_of(Optimiser::Leaf(i)) + group.stages[s].rule_offset, rules_[s].data(),
                  std::size_t(group.stages[s].info->size));
  }
  std::copy(numbers.begin(), numbers.end(), numbers_.begin());
  rules_set_ = true;
}

void LentStep::lend(std::size_t i, const LentArrays& arrays, std::span<const double> clock) {
  const LeafRecord& leaf = state_.leaves[i];
  Group& group = state_.groups[leaf.group];
  const auto arena = [&](std::byte* data, DType dtype) {
    return Arena(data, std::size_t(leaf.size * size_of(dtype)), on_host, keep);
  };
  for (std::size_t k = 0; k < group.slots.size(); ++k) group.arenas[k] = arena(arrays.state[k], group.slots[k].dtype);
  if (group.master) group.masters = arena(arrays.state[group.slots.size()], group.compute);
  for (const Stage& stage : group.stages) {
    const auto n = std::size_t(stage.info->clock_size);
    std::copy_n(clock.begin(), n, clock_of(stage, group.rows.data()));
    clock = clock.subspan(n);
  }
  const auto view = [&](std::byte* data, DType dtype) {
    return ArrayView{.data = data, .shape = leaf.shape, .ndim = leaf.ndim, .dtype = dtype, .present = true};
  };
  updates_[i] = {.leaf = std::uint32_t(i), .x = view(arrays.x, leaf.dtype), .dx = view(arrays.dx, arrays.dx_dtype)};
  cpu::ArrayFlags& flags = state_.flags[i];
  flags.x_direct = leaf.dtype == group.compute && is_aligned(updates_[i].x);
  flags.dx_direct = arrays.dx_dtype == group.compute && is_aligned(updates_[i].dx);
}

// As Optimiser::apply does: what would be subtracted, and zeros where nothing came out of a gate.
void LentStep::measure_and_sweep(std::span<const LentArrays> arrays) {
  schedule(state_, updates_, {});
  for (cpu::Job& job : state_.jobs) {
    const auto i = std::size_t(job.arrays - updates_.data());
    job.out = arrays[i].out;
    if (!job.course.writes) std::memset(job.out, 0, std::size_t(job.size * size_of(state_.leaves[i].dtype)));
  }
  cpu::sweep(state_.jobs, {}, {});
}

void LentStep::run(std::span<const double> numbers, std::span<double> clock, std::span<const LentArrays> arrays) {
  const Call here;
  set_rules(numbers);
  if (arrays.empty()) return;
  for (std::size_t i = 0; i < arrays.size(); ++i)
    lend(i, arrays[i], own_clocks_ ? clock.subspan(i * clock_count_, clock_count_) : clock);
  if (arrays.front().out != nullptr) measure_and_sweep(arrays);
  else state_.update(updates_, {});
  for (std::size_t i = 0; i < (own_clocks_ ? arrays.size() : 1); ++i) {
    const Group& group = state_.group_of(Optimiser::Leaf(i));
    for (const Stage& stage : group.stages) {
      const auto n = std::size_t(stage.info->clock_size);
      std::copy_n(clock_of(stage, group.rows.data()), n, clock.begin());
      clock = clock.subspan(n);
    }
  }
}

}  // namespace optimisers::inline OPT_ABI
