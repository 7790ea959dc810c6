// norm_tables.cpp: which plan a call has, and the tables of a new one.
#include "norm_tables.hpp"

#include <algorithm>

#include "optimisers/error.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

constexpr std::size_t kept_plans = 8;

// The reducer a leaf begins with: without a gradient it enters at its first gating stage.
int first_reducer(const Group& group, bool has_gradient) {
  if (has_gradient) return 0;
  int gate = 0, first = 0;
  while (!group.stages[std::size_t(gate)].info->gating()) ++gate;
  for (int s : group.reducers) first += s < gate;
  return first;
}

}  // namespace

void NormTables::begin() {
  as_planned_ = 0;
  strays_ = false;
}

void NormTables::add(const LeafUpdate& u) {
  if (state_.groups[state_.leaves[u.leaf].group].reducers.empty()) return;
  if (!strays_ && as_planned_ < plan_->key.size() && is_path(plan_->key[as_planned_], u)) {
    ++as_planned_;
    return;
  }
  stray();
  paths_.push_back(path_of(u));
}

void NormTables::stray() {
  if (strays_) return;
  strays_ = true;
  paths_.assign(plan_->key.begin(), plan_->key.begin() + std::ptrdiff_t(as_planned_));
}

const std::vector<NormPath>& NormTables::paths() {
  if (as_planned_ < plan_->key.size()) stray();
  return strays_ ? paths_ : plan_->key;
}

void NormTables::refuse_shared(std::span<const LeafUpdate> leaves) {
  std::vector<double> here;
  if (std::all_of(state_.groups.begin(), state_.groups.end(), [&](const Group& g) { return g.device == device_; }))
    return;
  for (const NormPath& path : paths())
    for (const NormStage& s : path.stages)
      if (s.global) here.push_back(s.p);
  if (here.empty()) return;
  for (const LeafUpdate& u : leaves) {
    const LeafRecord& leaf = state_.leaves[u.leaf];
    if (leaf.device == device_ || leaf.frozen || !u.dx.present) continue;
    for (const NormStage& s : path_of(u).stages)
      if (s.global && std::find(here.begin(), here.end(), s.p) != here.end())
        refuse("update: the global norm at \"" + state_.specs[u.leaf].name + "\" would span several devices, which " +
                   "takes waiting for all of them; update the leaves of each device in a call of their own, or clip "
                   "by optimisers.norm before",
               state_.specs[u.leaf].name);
  }
}

// Parts of a model that take turns keep theirs: making one, and letting one go, waits for the device.
void NormTables::make_plan() {
  const std::vector<NormPath>& wanted = paths();
  if (!strays_) return;
  const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const auto& p) { return p->key == wanted; });
  if (found == plans_.end()) plans_.insert(plans_.begin(), made(wanted));
  else std::rotate(plans_.begin(), found, found + 1);
  if (plans_.size() > kept_plans) plans_.pop_back();
  plan_ = plans_.front();
}

NormStage NormTables::stage(const Group& group, std::uint32_t leaf, int s) const {
  const Stage& stage = group.stages[std::size_t(s)];
  const Norm norm = stage.info->norm(state_.row_of(leaf) + stage.rule_offset);
  return {norm.p, norm.scope == Scope::global};
}

NormPath NormTables::path_of(const LeafUpdate& u) const {
  const Group& group = state_.groups[state_.leaves[u.leaf].group];
  NormPath path{u.leaf, first_reducer(group, u.dx.present), {}};
  for (int s : group.reducers) path.stages.push_back(stage(group, u.leaf, s));
  return path;
}

// path == path_of(u), without making one.
bool NormTables::is_path(const NormPath& path, const LeafUpdate& u) const {
  const Group& group = state_.groups[state_.leaves[u.leaf].group];
  return path.leaf == u.leaf && path.first == first_reducer(group, u.dx.present) &&
         std::equal(path.stages.begin(), path.stages.end(), group.reducers.begin(), group.reducers.end(),
                    [&](const NormStage& known, int s) { return known == stage(group, u.leaf, s); });
}

std::shared_ptr<const Plan> NormTables::made(const std::vector<NormPath>& paths) const {
  auto plan = std::make_shared<Plan>();
  for (const NormPath& path : paths)
    for (const NormStage& s : path.stages) plan->powers |= norms::measure_of(s.p) == norms::Measure::sum_power;
  std::size_t shared_by = 0;
  for (const NormStep& step : plan_norms(paths)) {
    PlannedStep& planned = plan->steps.emplace_back();
    std::vector<std::vector<std::int8_t>> at(groups_.tables.size());
    planned.first.resize(at.size());
    planned.later.resize(at.size());
    for (const NormStep::At& m : step.measure) {
      const LeafRecord& leaf = state_.leaves[paths[m.path].leaf];
      const auto g = std::size_t(groups_.of[leaf.group]);
      at[g].resize(state_.groups[leaf.group].leaves, -1);
      at[g][leaf.index] = std::int8_t(m.reducer);
      const bool is_first = state_.groups[leaf.group].reducers[std::size_t(m.reducer)] == 0;
      (is_first ? planned.first : planned.later)[g] = true;
    }
    for (const auto& table : at) planned.at.push_back(constant<std::int8_t>(device_, table));
    if (!step.own.empty()) planned.combinations.push_back(combination(paths, step.own, false));
    for (const auto& set : step.sets) {
      planned.combinations.push_back(combination(paths, set, true));
      const NormStep::At& lead = set.front();
      const auto& before = paths[lead.path].stages;
      if (std::any_of(before.begin(), before.begin() + lead.reducer, [](const NormStage& s) { return s.global; }))
        continue;
      if (plan->shared_norm != nullptr && shared_by < lead.path) continue;
      const LeafRecord& leaf = state_.leaves[paths[lead.path].leaf];
      plan->shared_norm = groups_[leaf].norm(lead.reducer, leaf.index);
      shared_by = lead.path;
    }
  }
  plan->key = paths;
  return plan;
}

Combination NormTables::combination(const std::vector<NormPath>& paths, const std::vector<NormStep::At>& who,
                                    bool shared) const {
  std::vector<Member> members;
  for (const NormStep::At& m : who) {
    const std::uint32_t index = paths[m.path].leaf;
    const LeafRecord& leaf = state_.leaves[index];
    const Group& group = state_.groups[leaf.group];
    const GroupTables& tables = groups_[leaf];
    const int stage = group.reducers[std::size_t(m.reducer)];
    members.push_back({tables.total(leaf.index), tables.row(leaf.index) + group.stages[std::size_t(stage)].rule_offset,
                       tables.norm(m.reducer, leaf.index), leaf.size, index,
                       std::int16_t(group.stages[std::size_t(stage)].info->id), std::int16_t(stage)});
  }
  std::vector<std::uint32_t> order(members.size()), starts(norms::sum_lanes + 1, 0);
  const auto lane = [&](std::uint32_t i) { return members[i].leaf % norms::sum_lanes; };
  for (std::uint32_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    ++starts[lane(i) + 1];
  }
  for (int l = 0; l < norms::sum_lanes; ++l) starts[std::size_t(l) + 1] += starts[std::size_t(l)];
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return lane(a) < lane(b); });
  return {constant<Member>(device_, members), constant<std::uint32_t>(device_, order),
          constant<std::uint32_t>(device_, starts), std::uint32_t(members.size()), shared};
}

}  // namespace optimisers::inline OPT_ABI::cuda
