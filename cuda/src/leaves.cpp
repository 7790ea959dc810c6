// leaves.cpp: a call on the leaves of one device: its tables, its norms, one sweep a group.
#include "leaves.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "group_tables.hpp"
#include "kernel_list.hpp"
#include "norm_plan.hpp"
#include "optimisers/cuda.hpp"
#include "pairs_call.hpp"
#include "refuse.hpp"
#include "shared_report.hpp"

namespace optimisers::cuda {
namespace {

// Device tables of a plan: where each leaf is measured, and who comes to a norm together.
struct Combination {
  Buffer members, by_lane, lane_start;
  std::uint32_t count;
  bool shared;
};
struct PlannedStep {
  std::vector<Buffer> at;  // of each group; empty: nothing is measured there
  std::vector<bool> first, later;
  std::vector<Combination> combinations;
};
struct Plan {
  std::vector<NormPath> key;
  std::vector<PlannedStep> steps;
};

class Leaves final : public DeviceLeaves {
 public:
  Leaves(Optimiser::State& state, int device, std::span<const ArrayView> x)
      : state_(state), device_(device), report_(device), verdict_(constant<Verdict>(device, std::vector<Verdict>(1))) {
    refuse_to_wait_in_capture(device, "setting up or copying a state");
    for (std::uint32_t g = 0; g < state.groups.size(); ++g) {
      if (state.groups[g].device != device) continue;
      std::vector<GroupTables::LeafShape> shapes;
      for (const LeafRecord& leaf : state.leaves)
        if (leaf.group == g) shapes.push_back({leaf.size, leaf.offset});
      group_of_.resize(state.groups.size(), -1);
      group_of_[g] = int(groups_.size());
      groups_.push_back(std::make_unique<GroupTables>(state.groups[g], device, std::move(shapes)));
      groups_.back()->load_rows(state.groups[g].rows.data());
      groups_.back()->load_usual_kernels();
    }
    if (!x.empty()) start(x);
  }

  ~Leaves() override {
    if (const Driver* d = driver_or_null(); d != nullptr && event_ != nullptr) d->release_event(device_, event_);
  }
  Leaves(const Leaves&) = delete;

  void prepare(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
               std::span<std::byte* const> out) override {
    (void)driver_in_use();
    if (broken_)
      throw Error(ErrorKind::device, "update: device " + std::to_string(device_) +
                                         " failed in an earlier call on this state, which may be half updated; set up "
                                         "a new state, or load a saved one, in a process whose device works");
    watched([&] { prepare_all(leaves, further, out); });
  }

  void enqueue() override {
    if (std::exchange(prepared_, false)) watched([&] { enqueue_all(); });
  }

  void send_rule(std::uint32_t leaf) override {
    watched([&] { send_parts(leaf, true); });
  }
  void send_clock(std::uint32_t leaf) override {
    watched([&] { send_parts(leaf, false); });
  }
  void fetch_clock(std::uint32_t leaf) override {
    const Group& group = state_.group_of(leaf);
    std::vector<std::byte> row(std::size_t(group.row_size));
    if (row.empty()) return;
    watched([&] {
      follow();
      copy(row.data(), on_host, tables_of(leaf).row(state_.leaves[leaf].index), device_, row.size());
    });
    for (const Stage& s : group.stages)
      std::memcpy(state_.row_of(leaf) + s.clock_offset, row.data() + s.clock_offset,
                  std::size_t(s.info->clock_size) * sizeof(double));
  }

  void copy_from(DeviceLeaves& other) override {
    auto& from = static_cast<Leaves&>(other);
    from.follow();
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group &a = groups_[g]->group(), &b = from.groups_[g]->group();
      const auto copy_arena = [&](const Arena& to, const Arena& of) {
        if (to.bytes() > 0) copy(to.data(), device_, of.data(), device_, to.bytes());
      };
      for (std::size_t k = 0; k < a.arenas.size(); ++k) copy_arena(a.arenas[k], b.arenas[k]);
      copy_arena(a.masters, b.masters);
      if (!a.rows.empty()) copy(groups_[g]->row(0), device_, from.groups_[g]->row(0), device_, a.rows.size());
    }
    cuda::wait(device_);
  }

  void follow() override {
    watched([&] { follow_last(here()); });
  }

  void wait() override {
    watched([&] {
      follow_last(here());
      cuda::wait(device_);
    });
    throw_reports();
  }

 private:
  // The thread's stream.
  struct Here {
    void* stream;
    bool capture;               // work becomes part of a graph
    unsigned long long id = 0;  // not while capturing
  };
  Here here() const {
    const Driver& d = driver_in_use();
    Here h{stream(device_), false};
    h.capture = d.capturing(device_, h.stream);
    if (!h.capture) check(d.stream_id(device_, h.stream, &h.id), device_, "asking for a stream");
    return h;
  }

  // After a device is lost, a state there is of no use; what has failed is said once.
  template <class F>
  void watched(F&& f) {
    try {
      f();
    } catch (const Lost&) {
      broken_ = true;
      throw;
    }
  }

  void prepare_all(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                   std::span<std::byte* const> out) {
    throw_reports();
    for (auto& called : called_) called.clear();
    called_.resize(groups_.size());
    std::vector<NormPath> paths;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const LeafUpdate& u = leaves[i];
      const LeafRecord& leaf = state_.leaves[u.leaf];
      const Group& group = state_.groups[leaf.group];
      if (group.device != device_ || leaf.frozen || (!u.dx.present && !group.gates)) continue;
      called_[std::size_t(group_of_[leaf.group])].push_back(
          {leaf.index, u.dx.present ? Role::gradient : Role::no_gradient, &u.x, u.dx.present ? &u.dx : nullptr, u.more,
           out.empty() ? nullptr : out[i]});
      if (!group.reducers.empty()) paths.push_back(path_of(u.leaf, u.dx.present));
    }
    refuse_shared_norms(leaves, paths);
    for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g]->prepare(called_[g], further, !out.empty());
    if (!plan_ || plan_->key != paths) plan_ = make_plan(std::move(paths));
    prepared_ = true;
  }

  void enqueue_all() {
    const Driver& d = driver_in_use();
    const Here at = here();
    void* on = at.stream;
    follow_last(at);
    if (at.capture && plan_) captured_.push_back(plan_);
    for (auto& g : groups_)
      if (!g->empty()) g->begin(on, at.capture);
    bool first = true;
    for (const PlannedStep& step : plan_->steps) {
      for (std::size_t g = 0; g < groups_.size(); ++g)
        if (step.at[g].bytes() > 0)
          groups_[g]->measure(on, step.at[g].as<std::int8_t>(), step.first[g], step.later[g], needs_extremes(g));
      for (const Combination& c : step.combinations) {
        const CombineTable table{.members = c.members.as<Member>(),
                                 .by_lane = c.by_lane.as<std::uint32_t>(),
                                 .lane_start = c.lane_start.as<std::uint32_t>(),
                                 .count = c.count,
                                 .shared_norm = c.shared,
                                 .first = std::exchange(first, false),
                                 .verdict = verdict_.as<Verdict>(),
                                 .report = report_.get()};
        check(d.launch(device_, on, kernel_number<Combine>, &table, 1), device_, "a norm");
      }
    }
    broken_ = !at.capture;  // unless all sweeps are enqueued; before them nothing has been written
    for (auto& g : groups_)
      if (!g->empty()) g->sweep(on, first ? nullptr : verdict_.as<Verdict>());
    mark_last(at);
    broken_ = false;
  }

  GroupTables& tables_of(std::uint32_t leaf) { return *groups_[std::size_t(group_of_[state_.leaves[leaf].group])]; }

  // Slots that do not start at zero, and master copies.
  void start(std::span<const ArrayView> x) {
    std::vector<ArrayView> masters, values;
    for (std::uint32_t i = 0; i < state_.leaves.size(); ++i) {
      const LeafRecord& leaf = state_.leaves[i];
      const Group& group = state_.groups[leaf.group];
      if (group.device != device_ || leaf.size == 0) continue;
      for (std::size_t k = 0; k < group.slots.size(); ++k) {
        const GroupSlot& slot = group.slots[k];
        if (slot.start < 0) continue;
        double value;
        std::memcpy(&value, state_.row_of(i) + group.stages[std::size_t(slot.stage)].rule_offset + slot.start,
                    sizeof value);
        const FillTable table{group.arenas[k].data() + leaf.offset * size_of(slot.dtype), leaf.size, value, slot.dtype};
        check(driver_in_use().launch(device_, stream(device_), kernel_number<Fill>, &table,
                                     unsigned((leaf.size + Fill::elements - 1) / Fill::elements)),
              device_, "setup");
      }
      if (!group.master) continue;
      values.push_back(x[i]);
      ArrayView& master = masters.emplace_back(x[i]);
      master.data = group.masters.data() + leaf.offset * size_of(group.compute);
      master.strides = nullptr;
      master.dtype = group.compute;
    }
    run_pairs(device_, masters, values, PairOp::copy, 0, 0);
    cuda::wait(device_);
  }

  NormPath path_of(std::uint32_t leaf, bool has_gradient) const {
    const Group& group = state_.groups[state_.leaves[leaf].group];
    int gate = -1;  // without a gradient the leaf enters at its first gating stage
    if (!has_gradient)
      while (!group.stages[std::size_t(++gate)].info->gating()) {
      }
    NormPath path{leaf, 0, {}};
    for (int s : group.reducers) {
      path.first += s < gate;
      const Stage& stage = group.stages[std::size_t(s)];
      const Norm norm = stage.info->norm(state_.row_of(leaf) + stage.rule_offset);
      path.stages.push_back({norm.p, norm.scope == Scope::global});
    }
    return path;
  }

  std::shared_ptr<Plan> make_plan(std::vector<NormPath> paths) {
    auto plan = std::make_shared<Plan>();
    for (const NormStep& step : plan_norms(paths)) {
      PlannedStep& planned = plan->steps.emplace_back();
      std::vector<std::vector<std::int8_t>> at(groups_.size());
      planned.first.resize(groups_.size());
      planned.later.resize(groups_.size());
      for (const NormStep::At& m : step.measure) {
        const LeafRecord& leaf = state_.leaves[paths[m.path].leaf];
        auto& table = at[std::size_t(group_of_[leaf.group])];
        table.resize(state_.groups[leaf.group].leaves, -1);
        table[leaf.index] = std::int8_t(m.reducer);
        const bool is_first = state_.groups[leaf.group].reducers[std::size_t(m.reducer)] == 0;
        (is_first ? planned.first : planned.later)[std::size_t(group_of_[leaf.group])] = true;
      }
      for (const auto& table : at) planned.at.push_back(constant<std::int8_t>(device_, table));
      if (!step.own.empty()) planned.combinations.push_back(combination(paths, step.own, false));
      for (const auto& set : step.sets) planned.combinations.push_back(combination(paths, set, true));
    }
    plan->key = std::move(paths);
    return plan;
  }

  Combination combination(const std::vector<NormPath>& paths, const std::vector<NormStep::At>& who, bool shared) {
    std::vector<Member> members;
    for (const NormStep::At& m : who) {
      const std::uint32_t index = paths[m.path].leaf;
      const LeafRecord& leaf = state_.leaves[index];
      const Group& group = state_.groups[leaf.group];
      GroupTables& tables = tables_of(index);
      const int stage = group.reducers[std::size_t(m.reducer)];
      members.push_back({tables.total(leaf.index),
                         tables.row(leaf.index) + group.stages[std::size_t(stage)].rule_offset,
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

  // A norm of leaves on several devices would have to wait for all of them.
  void refuse_shared_norms(std::span<const LeafUpdate> leaves, const std::vector<NormPath>& paths) const {
    std::vector<double> here;
    for (const NormPath& path : paths)
      for (const NormStage& s : path.stages)
        if (s.global) here.push_back(s.p);
    if (here.empty()) return;
    for (const LeafUpdate& u : leaves) {
      const LeafRecord& leaf = state_.leaves[u.leaf];
      if (leaf.device == device_ || leaf.frozen || !u.dx.present) continue;
      for (const NormStage& s : path_of(u.leaf, true).stages)
        if (s.global && std::find(here.begin(), here.end(), s.p) != here.end())
          refuse("update: the global norm at \"" + state_.specs[u.leaf].name + "\" would span several devices, which " +
                     "takes waiting for all of them; update the leaves of each device in a call of their own, or clip "
                     "by optimisers.norm before",
                 state_.specs[u.leaf].name);
    }
  }

  // Whether sums of this group's elements may leave the range of double.
  bool needs_extremes(std::size_t g) const {
    const Group& group = groups_[g]->group();
    if (group.real == 1) return true;
    for (const NormPath& path : plan_->key)
      for (const NormStage& s : path.stages)
        if (norms::measure_of(s.p) == norms::Measure::sum_power) return true;
    return false;
  }

  void send_parts(std::uint32_t leaf, bool rules) {
    const Group& group = state_.group_of(leaf);
    const Here at = here();
    follow_last(at);
    std::byte* to = tables_of(leaf).row(state_.leaves[leaf].index);
    const std::byte* from = state_.row_of(leaf);
    for (const Stage& s : group.stages) {
      const int begin = rules ? s.rule_offset : s.clock_offset;
      const int bytes = rules ? s.clock_offset - s.rule_offset : s.info->clock_size * int(sizeof(double));
      if (bytes > 0) send(device_, at.stream, to + begin, from + begin, std::size_t(bytes));
    }
    mark_last(at);
  }

  // Work on another stream than before waits for what was enqueued there.
  void follow_last(const Here& at) const {
    if (!at.capture && event_ != nullptr && last_stream_ != at.id)
      check(driver_in_use().await(device_, at.stream, event_), device_, "changing streams");
  }
  void mark_last(const Here& at) {
    if (at.capture) return;  // what is captured has not been enqueued
    check(driver_in_use().record(device_, at.stream, &event_), device_, "marking a stream");
    last_stream_ = at.id;
  }

  void throw_reports() {
    Report* r = report_.get();  // the device counts last what the host reads first
    const std::uint64_t refusals = std::atomic_ref(r->refusals).load(std::memory_order_acquire);
    if (refusals == seen_) return;
    seen_ = refusals;
    const std::uint64_t place = std::atomic_ref(r->place).load(std::memory_order_relaxed);
    const double norm = std::atomic_ref(r->norm).load(std::memory_order_relaxed);
    const auto leaf = std::uint32_t(place / stage_limit);
    const auto stage = std::size_t(place % stage_limit);
    const std::string& name = state_.specs[leaf].name;
    throw Error(ErrorKind::non_finite,
                std::string("update: ") + state_.group_of(leaf).stages[stage].info->text.name +
                    " expects a finite norm of the gradient, got " + (std::isnan(norm) ? "nan" : "inf") +
                    ", first at \"" + name +
                    "\", in an earlier call on this device; that call wrote nothing, later ones ran. Call wait after "
                    "each update to know at once, or use throw=False",
                name);
  }

  Optimiser::State& state_;
  int device_;
  SharedReport report_;
  std::uint64_t seen_ = 0;
  Buffer verdict_;
  std::vector<int> group_of_;
  std::vector<std::unique_ptr<GroupTables>> groups_;
  std::vector<std::vector<CalledLeaf>> called_;
  std::shared_ptr<Plan> plan_;
  std::vector<std::shared_ptr<Plan>> captured_;
  unsigned long long last_stream_ = 0;
  void* event_ = nullptr;  // behind what was last enqueued
  bool prepared_ = false;
  bool broken_ = false;  // the device is lost, or a call was enqueued in part
};

}  // namespace

std::unique_ptr<DeviceLeaves> make_leaves(Optimiser::State& state, int device, std::span<const ArrayView> x) {
  return std::make_unique<Leaves>(state, device, x);
}

}  // namespace optimisers::cuda
