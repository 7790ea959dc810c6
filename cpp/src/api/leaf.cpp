// leaf.cpp: the handle on one leaf of a State.
#include <algorithm>
#include <cmath>

#include "api/state_data.hpp"

namespace optimisers::inline OPT_ABI {

const std::string& ConstLeaf::name() const { return state_->optimiser.spec(index_).name; }
std::span<const std::int64_t> ConstLeaf::shape() const { return state_->optimiser.spec(index_).shape; }
DType ConstLeaf::dtype() const { return state_->optimiser.spec(index_).dtype; }
bool ConstLeaf::frozen() const {
  InUse in_use(state_->busy);
  return state_->optimiser.frozen(index_);
}
std::int64_t ConstLeaf::size() const { return state_->sizes[index_]; }
int ConstLeaf::stages() const { return int(state_->optimiser.spec(index_).program.stages.size()); }
void ConstLeaf::check_stage(int stage) const {
  if (stage < 0 || stage >= stages())
    refuse("rule: \"" + name() + "\" has " + std::to_string(stages()) + " stages, got " + std::to_string(stage),
           name());
}
RuleValue ConstLeaf::rule(int stage) const {
  check_stage(stage);
  InUse in_use(state_->busy);
  return state_->optimiser.rule(index_, stage);
}
std::vector<SlotView> Leaf::slots(int stage) const {
  check_stage(stage);
  InUse in_use(state_->busy);
  return state_->optimiser.slots(index_, stage);
}

void Leaf::freeze() { state_->freeze({&index_, 1}, true); }
void Leaf::thaw() {
  if (!state_->has_rule[index_]) refuse("thaw: \"" + name() + "\" has no rule; set it up with one", name());
  state_->freeze({&index_, 1}, false);
}
void Leaf::adjust(double eta) { adjust(Fields{{"eta", eta}}); }
void Leaf::adjust(const Fields& fields, int stage) {
  if (stage >= 0) check_stage(stage);
  state_->adjust({&index_, 1}, fields, stage);
}
void Leaf::adjust_rule(const AnyRule& given, int stage) {
  if (stage >= 0) check_stage(stage);
  state_->adjust({&index_, 1}, given, stage);
}

SlotView ConstLeaf::find_slot(std::string_view wanted, int stage, DType dtype) const {
  InUse in_use(state_->busy);
  Optimiser& optimiser = state_->optimiser;
  std::optional<SlotView> found;
  std::string known;
  if (stage == -2) {
    found = optimiser.master(index_);
    if (!found) return {"master", nullptr, dtype};
  }
  for (int s = std::max(stage, 0); stage != -2 && s < stages() && (stage < 0 || s == stage) && !found; ++s) {
    for (const SlotView& v : optimiser.slots(index_, s)) {
      if (v.name == wanted) found = v;
      known += (known.empty() ? "" : ", ") + std::string(v.name);
    }
  }
  if (!found)
    refuse("slot: \"" + name() + "\" has no slot \"" + std::string(wanted) + "\"" +
               (known.empty() ? "" : "; slots are " + known),
           name());
  if (found->dtype != dtype)
    throw Error(ErrorKind::type,
                "slot: \"" + std::string(wanted) + "\" of \"" + name() + "\" is " + std::string(name_of(found->dtype)) +
                    ", asked for " + std::string(name_of(dtype)),
                name());
  return *found;
}

ConstLeaf::ClockPlace ConstLeaf::find_clock(std::string_view wanted, int stage) const {
  std::string known;
  for (int s = std::max(stage, 0); s < stages() && (stage < 0 || s == stage); ++s) {
    const auto names = state_->optimiser.spec(index_).program.stages[std::size_t(s)].info().clock;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] == wanted) return {s, i};
      known += (known.empty() ? "" : ", ") + std::string(names[i]);
    }
  }
  refuse("clock: \"" + name() + "\" has no clock \"" + std::string(wanted) + "\"" +
             (known.empty() ? "" : "; clocks are " + known),
         name());
}

double ConstLeaf::clock(std::string_view wanted, int stage) const {
  InUse in_use(state_->busy);
  const ClockPlace at = find_clock(wanted, stage);
  return state_->optimiser.clock(index_, at.stage)[at.index];
}

void Leaf::set_clock(std::string_view wanted, double value, int stage) const {
  if (!std::isfinite(value)) refuse("set_clock: expected a finite number", name());
  InUse in_use(state_->busy);
  const ClockPlace at = find_clock(wanted, stage);
  const auto now = state_->optimiser.clock(index_, at.stage);
  std::vector<double> values(now.begin(), now.end());
  values[at.index] = value;
  state_->optimiser.set_clock(index_, at.stage, values);
}

}  // namespace optimisers::inline OPT_ABI
