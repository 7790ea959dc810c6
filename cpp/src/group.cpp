// group.cpp: lays out a group's rows, steps and slots for a program.
#include "group.hpp"

#include <algorithm>

namespace optimisers {
namespace {

StageKernels kernels_of(const RuleInfo& info, int slot_count, DType compute) {
  const auto c = std::size_t(compute_index(compute));
  const auto variant = std::size_t(slot_count > info.min_slots);
  return info.id < 0 ? info.own_kernels[variant][c] : cpu::kernels().stage[info.id][variant][c];
}

template <class... R>
bool begins_with(const std::vector<Stage>& stages, std::size_t at, cpu::ChainOf<R...>*) {
  if (at + sizeof...(R) > stages.size()) return false;
  return ((stages[at++].info == find_rule(R::text.name)) && ...);
}

// The stages as passes: what the program or the library has fused (the longer one), the others alone.
template <class... C>
std::vector<Pass> passes_of(const std::vector<Stage>& stages, DType compute, const std::vector<FusedStages>& fused,
                            std::tuple<C...>*) {
  std::vector<Pass> passes;
  for (std::size_t s = 0; s < stages.size();) {
    int chain = 0, length = 0;
    ((length == 0 && (begins_with(stages, s, static_cast<C*>(nullptr)) ? (length = C::length) : (++chain, 0))), ...);
    StageKernels kernels = length ? cpu::kernels().chain[chain][compute_index(compute)] : stages[s].kernels;
    for (const FusedStages& own : fused) {
      const StageKernels k = own.kernels[std::size_t(compute_index(compute))];
      if (own.first != int(s) || own.count <= length || k.last == nullptr) continue;
      length = own.count;
      kernels = k;
    }
    passes.push_back({int(s), int(s) + std::max(length, 1), kernels});
    s += std::size_t(std::max(length, 1));
  }
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
      slots.push_back({slot.name, slot.real ? real_dtype(compute) : compute, int(stages.size()), slot.start});
    }
    stage.kernels = kernels_of(info, stage.slot_count, compute);
    gates |= info.gating();
    if (info.reducing()) reducers.push_back(int(stages.size()));
    stages.push_back(stage);
  }
  passes = passes_of(stages, compute, program.fused, static_cast<cpu::CommonChains*>(nullptr));
}

bool Group::holds(const Program& program, DType dtype, int on_device) const {
  if (dtype != storage || on_device != device || program.compute(dtype) != compute ||
      program.has_master(dtype) != master || program.stages.size() != stages.size())
    return false;
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (&program.stages[i].info() != stages[i].info || program.stages[i].slot_count() != stages[i].slot_count)
      return false;
  return true;
}

}  // namespace optimisers
