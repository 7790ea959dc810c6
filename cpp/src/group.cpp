// group.cpp: lays out a group's rows, steps and slots for a program.
#include "group.hpp"

#include <cstring>

namespace optimisers {

Group::Group(const Program& program, DType storage_dtype)
    : storage(storage_dtype), compute(program.compute(storage_dtype)), master(program.has_master(storage_dtype)),
      real(size_of(real_dtype(compute)) == 8 ? 1 : 0) {
  const auto& kernels = cpu::kernels();
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
    const bool has_variant = kernels.stage[info.id][1][compute_index(compute)].last != nullptr;
    const int variant = has_variant && stage.slot_count == int(info.slots.size()) ? 1 : 0;
    stage.kernels = kernels.stage[info.id][variant][compute_index(compute)];
    if (info.reducing()) reducers.push_back(int(stages.size()));
    stages.push_back(stage);
  }
}

bool Group::holds(const Program& program, DType dtype) const {
  if (dtype != storage || program.compute(dtype) != compute || program.has_master(dtype) != master ||
      program.stages.size() != stages.size())
    return false;
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (&program.stages[i].info() != stages[i].info || program.stages[i].slot_count() != stages[i].slot_count)
      return false;
  return true;
}

}  // namespace optimisers
