// c_leaves.cpp: what a state holds, read and written leaf by leaf in C: rules, fields, slots, masters, clocks.
#include <cstddef>

#include "api/c_api.hpp"

namespace opt = optimisers;
using opt::give;
using opt::guarded;
using opt::leaf_of;
using opt::refuse;
using opt::required;
using opt::state_of;

namespace {

opt::State::Data& data_of(const optimisers_state* handle) { return opt::State::Data::of(state_of(handle)); }

std::optional<opt::SlotView> master_of(const optimisers_state* handle, const opt::Leaf& leaf) {
  opt::State::Data& data = data_of(handle);
  const opt::InUse in_use(data.busy);
  return data.optimiser.master(leaf.index());
}

const char* clock_name(const opt::Leaf& leaf, std::int32_t stage, std::int32_t clock) {
  const auto names = leaf.rule(stage).info().clock;
  if (clock < 0 || std::size_t(clock) >= names.size())
    refuse("clock: there are " + std::to_string(names.size()) + ", got index " + std::to_string(clock));
  return names[std::size_t(clock)];
}

// "" for a leaf that was left alone, which no text stands for.
std::string rule_text(opt::State::Data& data, const opt::Leaf& leaf) {
  if (!data.has_rule[leaf.index()]) return {};
  const opt::InUse in_use(data.busy);
  opt::Program program{{}, data.optimiser.spec(leaf.index()).program.master, {}};
  for (int s = 0; s < leaf.stages(); ++s) program.stages.push_back(data.optimiser.rule(leaf.index(), s));
  return opt::to_text(program);
}

optimisers_slot slot_of(const opt::SlotView& view, std::int64_t size) {
  return {sizeof(optimisers_slot), view.name, view.data, size, static_cast<std::int32_t>(view.dtype)};
}

}  // namespace

int64_t optimisers_leaf_count(const optimisers_state* state) {
  return state == nullptr ? 0 : static_cast<int64_t>(state->state.size());
}

optimisers_status optimisers_find_leaf(const optimisers_state* state, const char* name, int64_t* leaf) {
  return guarded(__func__, [&] {
    std::int64_t& to = required(leaf, "leaf");
    to = state_of(state)[&required(name, "name")].index();
  });
}

optimisers_status optimisers_get_leaf(const optimisers_state* state, int64_t leaf, optimisers_leaf* out) {
  return guarded(__func__, [&] {
    optimisers_leaf& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const bool master = master_of(state, l).has_value();
    give(to, "out", sizeof(optimisers_leaf),
         {sizeof(optimisers_leaf), l.name().c_str(), l.size(), static_cast<std::int32_t>(l.dtype()), l.frozen(),
          l.stages(), master});
  });
}

optimisers_status optimisers_get_stage(const optimisers_state* state, int64_t leaf, int32_t stage,
                                       optimisers_stage* out) {
  return guarded(__func__, [&] {
    optimisers_stage& to = required(out, "out");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    give(to, "out", sizeof(optimisers_stage),
         {sizeof(optimisers_stage), rule.info().text.name, rule.slot_count(), rule.info().clock_size,
          static_cast<std::int32_t>(rule.info().fields.size())});
  });
}

optimisers_status optimisers_get_field_info(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t field,
                                            optimisers_field* out) {
  return guarded(__func__, [&] {
    optimisers_field& to = required(out, "out");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    const auto fields = rule.info().fields;
    if (field < 0 || std::size_t(field) >= fields.size())
      refuse("field: " + std::string(rule.info().text.name) + " has " + std::to_string(fields.size()) + ", got index " +
             std::to_string(field));
    const opt::FieldInfo& f = fields[std::size_t(field)];
    give(to, "out", sizeof(optimisers_field),
         {sizeof(optimisers_field), f.name, f.doc, static_cast<std::int32_t>(f.kind), f.structural});
  });
}

optimisers_status optimisers_get_rule(const optimisers_state* state, int64_t leaf, char* text, size_t size,
                                      size_t* needed) {
  return guarded(__func__, [&] {
    const opt::Leaf l = leaf_of(state, leaf);
    const std::string written = rule_text(data_of(state), l);
    if (needed != nullptr) *needed = written.size() + 1;
    if (text == nullptr && size == 0) return;
    (void)required(text, "text");
    if (size <= written.size())
      refuse("text: the rule takes " + std::to_string(written.size() + 1) + " bytes, there are " +
             std::to_string(size));
    std::memcpy(text, written.c_str(), written.size() + 1);
  });
}

optimisers_status optimisers_get_slot(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t slot,
                                      optimisers_slot* out) {
  return guarded(__func__, [&] {
    optimisers_slot& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const auto slots = l.slots(stage);
    if (slot < 0 || std::size_t(slot) >= slots.size())
      refuse("slot: there are " + std::to_string(slots.size()) + ", got index " + std::to_string(slot));
    give(to, "out", sizeof(optimisers_slot), slot_of(slots[std::size_t(slot)], l.size()));
  });
}

optimisers_status optimisers_get_master(const optimisers_state* state, int64_t leaf, optimisers_slot* out) {
  return guarded(__func__, [&] {
    optimisers_slot& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const auto master = master_of(state, l);
    if (!master) refuse("master: \"" + l.name() + "\" has no master copy");
    give(to, "out", sizeof(optimisers_slot), slot_of(*master, l.size()));
  });
}

optimisers_status optimisers_get_clock(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t clock,
                                       const char** name, double* value) {
  return guarded(__func__, [&] {
    double& to = required(value, "value");
    const opt::Leaf l = leaf_of(state, leaf);
    const char* const known = clock_name(l, stage, clock);
    to = l.clock(known, stage);
    if (name != nullptr) *name = known;
  });
}

optimisers_status optimisers_set_clock(optimisers_state* state, int64_t leaf, int32_t stage, int32_t clock,
                                       double value) {
  return guarded(__func__, [&] {
    const opt::Leaf l = leaf_of(state, leaf);
    l.set_clock(clock_name(l, stage, clock), value, stage);
  });
}

optimisers_status optimisers_get_field(const optimisers_state* state, int64_t leaf, int32_t stage, const char* field,
                                       double values[2], int32_t* count) {
  return guarded(__func__, [&] {
    double* to = &required(values, "values");
    std::int32_t& n = required(count, "count");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    const opt::FieldInfo* info = rule.info().field(&required(field, "field"));
    if (info == nullptr) refuse(std::string(rule.info().text.name) + " has no field \"" + field + "\"");
    const opt::Value value = rule.get(*info);
    n = std::holds_alternative<opt::Pair>(value) ? 2 : 1;
    if (const auto* pair = std::get_if<opt::Pair>(&value)) {
      to[0] = pair->first;
      to[1] = pair->second;
    } else if (const auto* number = std::get_if<double>(&value)) {
      to[0] = *number;
    } else if (const auto* flag = std::get_if<bool>(&value)) {
      to[0] = *flag ? 1 : 0;
    } else {
      to[0] = std::get<std::string>(value) == "global" ? 1 : 0;
    }
  });
}
