// group.cpp: lays out a group's rows, steps and slots for a program.
#include "plan/group.hpp"

#include <algorithm>

namespace optimisers::inline OPT_ABI {
namespace {

StageKernels kernels_of(const RuleInfo& info, int slot_count, DType compute) {
  const auto c = std::size_t(compute_index(compute));
  const auto variant = std::size_t(slot_count > info.min_slots);
  return info.id < 0 ? info.own_kernels[variant][c] : cpu::stage_kernels_of(info.id, variant, c);
}

template <class... R>
bool begins_with(const std::vector<Stage>& stages, std::size_t at, cpu::ChainOf<R...>*) {
  return are<Use<R>...>(stages, at);
}
// A program may have other stages by now than those it fused.
bool begins_with(const std::vector<Stage>& stages, std::size_t at, const FusedStages& own) {
  return at + own.of.size() <= stages.size() &&
         std::equal(own.of.begin(), own.of.end(), stages.begin() + std::ptrdiff_t(at),
                    [](const FusedStages::Of& of, const Stage& stage) {
                      return of.info->same_kernels(*stage.info) && of.slots == stage.slot_count;
                    });
}

// What may run as one pass from a stage on: the stage alone, and what the library or the program has fused.
template <class F, class... C>
void each_pass_at(const std::vector<Stage>& stages, int s, std::size_t compute, const std::vector<FusedStages>& fused,
                  std::tuple<C...>*, F&& offer) {
  offer(pass_over(stages, s, s + 1, stages[std::size_t(s)].kernels));
  if (compute < std::size_t(cpu::real_compute_count)) {
    std::size_t chain = 0;
    [[maybe_unused]] const auto common = [&]<class Chain>(Chain* c) {
      if (begins_with(stages, std::size_t(s), c))
        offer(pass_over(stages, s, s + Chain::length, cpu::kernels().chain[chain][compute]));
      ++chain;
    };
    (common(static_cast<C*>(nullptr)), ...);
  }
  for (const FusedStages& own : fused)
    if (own.first == s && own.kernels[compute].last != nullptr && begins_with(stages, std::size_t(s), own))
      offer(pass_over(stages, s, s + int(own.of.size()), own.kernels[compute]));
}

// The stages in as few passes as can be. Of equally few, those with the longer ones last: a rule that only prepares dx
// costs nothing beside the roots and divisions of the rule behind it.
std::vector<Pass> passes_of(const std::vector<Stage>& stages, DType compute, const std::vector<FusedStages>& fused) {
  const int n = int(stages.size());
  std::vector<int> passes_from(stages.size() + 1, 0);
  std::vector<Pass> best(stages.size());
  for (int s = n; s-- > 0;) {
    int& fewest = passes_from[std::size_t(s)];
    fewest = n + 1;
    each_pass_at(stages, s, std::size_t(compute_index(compute)), fused, static_cast<cpu::CommonChains*>(nullptr),
                 [&](const Pass& pass) {
                   const int count = 1 + passes_from[std::size_t(pass.end)];
                   if (count < fewest) fewest = count, best[std::size_t(s)] = pass;
                 });
  }
  std::vector<Pass> passes;
  for (int s = 0; s < n; s = passes.back().end) passes.push_back(best[std::size_t(s)]);
  return passes;
}

}  // namespace

Group::Group(const Program& program, DType storage_dtype, int on_device)
    : storage(storage_dtype),
      compute(program.compute(storage_dtype)),
      device(on_device),
      master(program.has_master(storage_dtype)),
      real(size_of(real_dtype(compute)) == 8 ? 1 : 0) {
  for (const RuleValue& rule : program.stages) {
    const RuleInfo& info = rule.info();
    Stage stage{&info, row_size, 0, step_size, int(slots.size()), rule.slot_count(), {}};
    row_size += (info.size + 7) / 8 * 8;
    stage.clock_offset = row_size;
    row_size += info.clock_size * int(sizeof(double));
    step_size += (info.step_size[std::size_t(real)] + 7) / 8 * 8;
    for (int i = 0; i < stage.slot_count; ++i) {
      const SlotInfo& slot = info.slots[std::size_t(i)];
      slots.push_back({slot.name, slot.real ? real_dtype(compute) : compute, int(stages.size()), slot.start,
                       slot.unless, slot.at_x});
    }
    stage.kernels = kernels_of(info, stage.slot_count, compute);
    gates |= info.gating();
    sees |= info.sees_gradient;
    if (info.matrix()) matrix = int(stages.size());
    if (info.reducing()) reducers.push_back(int(stages.size()));
    stages.push_back(stage);
  }
  passes = passes_of(stages, compute, program.fused);
}

bool Group::holds(const Program& program, DType dtype, int on_device) const {
  if (dtype != storage || on_device != device || program.compute(dtype) != compute ||
      program.has_master(dtype) != master || program.stages.size() != stages.size())
    return false;
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (!program.stages[i].info().same_kernels(*stages[i].info) ||
        program.stages[i].slot_count() != stages[i].slot_count)
      return false;
  return true;
}

}  // namespace optimisers::inline OPT_ABI
