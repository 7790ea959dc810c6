// adjust.cpp: hyperparameters of an optimiser that exists, and which leaves rest.
#include <algorithm>
#include <cstring>

#include "device.hpp"
#include "step/state.hpp"

namespace optimisers {

RuleValue Optimiser::State::rule(Leaf leaf, int stage) const {
  const Stage& s = groups[leaves[leaf].group].stages[std::size_t(stage)];
  RuleValue value(*s.info);
  value.load(row_of(leaf) + s.rule_offset);
  return value;
}

RuleValue Optimiser::rule(Leaf leaf, int stage) const { return state_->rule(leaf, stage); }
void Optimiser::set_frozen(std::span<const Leaf> leaves, bool frozen) {
  for (Leaf leaf : leaves) state_->leaves[leaf].frozen = frozen;
}

void Optimiser::adjust(std::span<const Leaf> leaves, std::span<const std::pair<std::string, Value>> fields) {
  struct Change {
    Leaf leaf;
    int stage;
    RuleValue value;
  };
  std::vector<Change> changes;
  std::vector<bool> found(fields.size(), false);
  std::vector<std::string> known;
  for (Leaf leaf : leaves) {
    const auto& stages = state_->group_of(leaf).stages;
    for (int s = 0; s < int(stages.size()); ++s) {
      const RuleInfo& info = *stages[std::size_t(s)].info;
      Change change{leaf, s, state_->rule(leaf, s)};
      bool changed = false;
      for (const FieldInfo& f : info.fields) {
        if (std::find(known.begin(), known.end(), f.name) == known.end()) known.emplace_back(f.name);
        for (std::size_t i = 0; i < fields.size(); ++i) {
          if (fields[i].first != f.name) continue;
          if (f.structural)
            throw Error(ErrorKind::value,
                        std::string("adjust: ") + f.name + " of " + info.text.name + " at \"" + spec(leaf).name +
                            "\" decides which state arrays exist and cannot be "
                            "changed; call setup with a new rule",
                        spec(leaf).name);
          change.value.set(f, fields[i].second);
          found[i] = changed = true;
        }
      }
      if (changed) changes.push_back(change);
    }
  }
  std::sort(known.begin(), known.end());
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (found[i]) continue;
    std::string names;
    for (const auto& name : known) names += (names.empty() ? "" : ", ") + name;
    throw Error(ErrorKind::value, "adjust: no rule here has a field \"" + fields[i].first + "\"; fields are " + names);
  }
  for (const Change& c : changes) {
    const Stage& s = state_->group_of(c.leaf).stages[std::size_t(c.stage)];
    std::memcpy(state_->row_of(c.leaf) + s.rule_offset, c.value.data(), std::size_t(s.info->size));
  }
  for (auto& [index, device] : state_->devices) {
    std::vector<Leaf> changed;
    for (const Change& c : changes)
      if (state_->leaves[c.leaf].device == index && (changed.empty() || changed.back() != c.leaf))
        changed.push_back(c.leaf);
    device->send_rules(changed);
  }
}

void Optimiser::set_rule(Leaf leaf, int stage, const RuleValue& rule) {
  const Stage& s = state_->group_of(leaf).stages[std::size_t(stage)];
  if (&rule.info() != s.info || rule.slot_count() != s.slot_count)
    throw Error(ErrorKind::value,
                std::string("adjust: ") + rule.info().text.name + " at \"" + spec(leaf).name +
                    "\" would need other state arrays than there are; call setup with a new rule",
                spec(leaf).name);
  rule.check();
  std::memcpy(state_->row_of(leaf) + s.rule_offset, rule.data(), std::size_t(s.info->size));
  if (DeviceLeaves* device = state_->device_of(leaf)) device->send_rules({&leaf, 1});
}

}  // namespace optimisers
