// adjust.cpp: other hyperparameters for leaves of a state: all that was asked for, or nothing.
#include <algorithm>

#include "errors.hpp"
#include "state/state.hpp"

namespace optimisers::python {

bool State::has_user_stages(std::uint32_t node) const {
  return !user_stages_.empty() && std::ranges::any_of(spec_->leaves_below(node),
                                                      [&](std::uint32_t leaf) { return user_stages_.contains(leaf); });
}

Adjusted State::adjust(std::uint32_t node, std::span<const Adjustment> adjustments) {
  Use use(*this);
  const Adjusted adjusted = core_.change(spec_->leaves_below(node), adjustments);
  if (!(adjusted.lowest < adjusted.highest)) ++revision_;
  return adjusted;
}

void State::replace_rules(std::span<const std::uint32_t> leaves, const nb::list& rules) {
  const RuleValues values = values_of(rules);
  Use use(*this);
  take(replaced_rules(leaves, rules, values), "adjust");
}

State::RuleValues State::values_of(const nb::list& rules) {
  RuleValues values;
  for (nb::handle rule : rules)
    if (auto [known, is_new] = values.try_emplace(rule.ptr()); is_new)
      for (nb::handle value : rule.attr("_values")()) known->second.push_back(nb::cast<RuleValue>(value));
  return values;
}

State::Replaced State::replaced_rules(std::span<const std::uint32_t> leaves, const nb::list& rules,
                                      const RuleValues& values) {
  if (rules.size() != leaves.size()) value_error("adjust: as many rules as leaves are needed");
  Replaced replaced{{}, nb::list(rules_)};
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i] >= leaves_.size()) value_error("adjust: the state has no leaf " + std::to_string(leaves[i]));
    const std::vector<RuleValue>& given = values.at(nb::handle(rules[i]).ptr());
    std::size_t next = 0;
    for (const std::uint32_t part : core_leaves(leaves[i]))
      for (std::size_t stage = 0; stage < core_.spec(part).program.stages.size(); ++stage, ++next)
        if (next < given.size()) replaced.stages.push_back({part, static_cast<int>(stage), given[next]});
    if (next != given.size())
      value_error("adjust: the rule for \"" + spec_->text(spec_->leaf_node(leaves[i])) + "\" has another structure");
    replaced.rules[leaves[i]] = rules[i];
  }
  return replaced;
}

State::Replaced State::rules_of_leaf(std::uint32_t leaf) {
  Replaced now{{}, nb::list(rules_)};
  for (const std::uint32_t part : core_leaves(leaf))
    for (int stage = 0; stage < static_cast<int>(core_.spec(part).program.stages.size()); ++stage)
      now.stages.push_back({part, stage, core_.rule(part, stage)});
  return now;
}

void State::take(Replaced&& replaced, const char* call) {
  core_.set_rules(replaced.stages, call);
  std::swap(rules_, replaced.rules);
  ++revision_;
}

}  // namespace optimisers::python
