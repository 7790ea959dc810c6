// leaves.cpp: a call on the leaves of one device: its tables, its norms, one sweep a group.
#include "leaves.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/list.hpp"
#include "norm_tables.hpp"
#include "optimisers/cuda.hpp"
#include "pairs_call.hpp"
#include "refuse.hpp"
#include "shared_report.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

constexpr std::size_t arrays_of_a_leaf = 3;  // with axes: itself, its gradient, and that of a tied one

class Leaves final : public DeviceLeaves {
 public:
  Leaves(Optimiser::State& state, int device, std::span<const ArrayView> x)
      : state_(state),
        device_(device),
        report_(device),
        verdict_(constant<Verdict>(device, std::vector<Verdict>(1))),
        norms_(state, device, groups_) {
    refuse_to_wait_in_capture(device, "setting up or copying a state");
    for (std::uint32_t g = 0; g < state.groups.size(); ++g) {
      if (state.groups[g].device != device) continue;
      std::vector<GroupTables::LeafShape> shapes;
      std::size_t axes = 0;
      for (std::size_t i = 0; i < state.leaves.size(); ++i) {
        const LeafRecord& leaf = state.leaves[i];
        if (leaf.group != g) continue;
        shapes.push_back({leaf.size, leaf.offset});
        axes += arrays_of_a_leaf * state.specs[i].shape.size();
      }
      groups_.of.resize(state.groups.size(), -1);
      groups_.of[g] = int(groups_.tables.size());
      auto tables = std::make_unique<GroupTables>(state.groups[g], device, std::move(shapes));
      tables->load_rows(state.groups[g].rows.data());
      tables->load_usual_kernels();
      tables->reserve(axes);
      groups_.tables.push_back(std::move(tables));
    }
    plan_usual_norms();
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

  void send_rules(std::span<const std::uint32_t> leaves) override {
    if (leaves.empty()) return;
    watched([&] {
      const Here at = here();
      follow_last(at);
      std::vector<std::vector<std::uint32_t>> rows(groups_.tables.size());
      for (const std::uint32_t i : leaves)
        rows[std::size_t(groups_.of[state_.leaves[i].group])].push_back(state_.leaves[i].index);
      for (std::size_t g = 0; g < rows.size(); ++g) groups_.tables[g]->send_rules(at.stream, rows[g]);
      mark_last(at);
    });
  }
  void send_clock(std::uint32_t leaf) override {
    watched([&] {
      const Here at = here();
      follow_last(at);
      std::byte* to = tables_of(leaf).row(state_.leaves[leaf].index);
      for (const Stage& s : state_.group_of(leaf).stages)
        send(device_, at.stream, to + s.clock_offset, state_.row_of(leaf) + s.clock_offset,
             std::size_t(s.info->clock_size) * sizeof(double));
      mark_last(at);
    });
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
    for (std::size_t g = 0; g < groups_.tables.size(); ++g) {
      const GroupTables &mine = *groups_.tables[g], &theirs = *from.groups_.tables[g];
      const Group &a = mine.group(), &b = theirs.group();
      const auto copy_arena = [&](const Arena& to, const Arena& of) {
        if (to.bytes() > 0) copy(to.data(), device_, of.data(), device_, to.bytes());
      };
      for (std::size_t k = 0; k < a.arenas.size(); ++k) copy_arena(a.arenas[k], b.arenas[k]);
      copy_arena(a.masters, b.masters);
      if (!a.rows.empty()) copy(mine.row(0), device_, theirs.row(0), device_, a.rows.size());
    }
    cuda::wait(device_);
  }

  void follow() override {
    watched([&] { follow_last(here()); });
  }

  bool shares_norm() const override { return norms_.plan()->shared_norm != nullptr; }
  std::optional<double> shared_norm() override {
    if (last_norm_ == nullptr) return std::nullopt;
    double norm = no_norm;
    watched([&] {
      follow();
      copy(reinterpret_cast<std::byte*>(&norm), on_host, reinterpret_cast<const std::byte*>(last_norm_), device_,
           sizeof norm);
    });
    return norm == no_norm ? std::nullopt : std::optional(norm);
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

  // Of a call in which all leaves have gradients, so that the first one allocates nothing.
  void plan_usual_norms() {
    norms_.begin();
    for (std::uint32_t i = 0; i < state_.leaves.size(); ++i) {
      if (state_.leaves[i].device != device_ || state_.leaves[i].frozen) continue;
      LeafUpdate u{.leaf = i, .more = -1, .x = {}, .dx = {}};
      u.dx.present = true;
      norms_.add(u);
    }
    norms_.make_plan();
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
    for (auto& g : groups_.tables) g->take_call(!out.empty());
    norms_.begin();
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const LeafUpdate& u = leaves[i];
      const LeafRecord& leaf = state_.leaves[u.leaf];
      const bool has_gradient = u.dx.present;
      if (leaf.device != device_ || leaf.frozen || (!has_gradient && !state_.groups[leaf.group].gates)) continue;
      groups_[leaf].take({leaf.index, has_gradient ? Role::gradient : Role::no_gradient, &u.x,
                          has_gradient ? &u.dx : nullptr, u.more, out.empty() ? nullptr : out[i], state_.flushes},
                         further);
      norms_.add(u);
    }
    norms_.refuse_shared(leaves);
    for (auto& g : groups_.tables) g->prepare();
    norms_.make_plan();
    prepared_ = true;
  }

  void enqueue_all() {
    const Driver& d = driver_in_use();
    const Here at = here();
    void* on = at.stream;
    follow_last(at);
    const Plan& plan = *norms_.plan();
    if (at.capture) captured_.push_back(norms_.plan());
    if (plan.shared_norm != nullptr) last_norm_ = plan.shared_norm;
    for (auto& g : groups_.tables)
      if (!g->empty()) g->begin(on, at.capture);
    bool first = true;
    for (const PlannedStep& step : plan.steps) {
      for (std::size_t g = 0; g < groups_.tables.size(); ++g)
        if (step.at[g].bytes() > 0)
          groups_.tables[g]->measure(on, step.at[g].as<std::int8_t>(), step.first[g], step.later[g], plan.powers);
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
    for (auto& g : groups_.tables)
      if (!g->empty()) g->sweep(on, first ? nullptr : verdict_.as<Verdict>());
    mark_last(at);
    broken_ = false;
  }

  GroupTables& tables_of(std::uint32_t leaf) { return groups_[state_.leaves[leaf]]; }

  // Slots that do not start at zero, and master copies.
  void start(std::span<const ArrayView> x) {
    std::vector<ArrayView> copies, values;
    const auto copy = [&](const ArrayView& from, const Arena& arena, std::int64_t offset, DType dtype) {
      values.push_back(from);
      ArrayView& to = copies.emplace_back(from);
      to.data = arena.data() + offset * size_of(dtype);
      to.strides = nullptr;
      to.dtype = dtype;
    };
    for (std::uint32_t i = 0; i < state_.leaves.size(); ++i) {
      const LeafRecord& leaf = state_.leaves[i];
      const Group& group = state_.groups[leaf.group];
      if (group.device != device_ || leaf.size == 0) continue;
      if (i < x.size()) tables_of(i).load_kernels_of(x[i]);  // stages before one of the user's have no array yet
      for (std::size_t k = 0; k < group.slots.size(); ++k) {
        const GroupSlot& slot = group.slots[k];
        if (slot.at_x) copy(x[i], group.arenas[k], leaf.offset, slot.dtype);
        if (slot.start < 0) continue;
        const double value = start_of(group, slot, state_.row_of(i));
        const FillTable table{group.arenas[k].data() + leaf.offset * size_of(slot.dtype), leaf.size, value, slot.dtype};
        check(driver_in_use().launch(device_, stream(device_), kernel_number<Fill>, &table,
                                     unsigned((leaf.size + Fill::elements - 1) / Fill::elements)),
              device_, "setup");
      }
      if (group.master) copy(x[i], group.masters, leaf.offset, group.compute);
    }
    run_pairs(device_, copies, values, PairOp::copy, 0, 0);
    cuda::wait(device_);
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
                    "each update to know at once, or use " +
                    state_.without_throw(),
                name);
  }

  Optimiser::State& state_;
  int device_;
  SharedReport report_;
  std::uint64_t seen_ = 0;
  Buffer verdict_;
  DeviceGroups groups_;
  NormTables norms_;
  std::vector<std::shared_ptr<const Plan>> captured_;
  const double* last_norm_ = nullptr;  // on the device
  unsigned long long last_stream_ = 0;
  void* event_ = nullptr;  // behind what was last enqueued
  bool prepared_ = false;
  bool broken_ = false;  // the device is lost, or a call was enqueued in part
};

}  // namespace

std::unique_ptr<DeviceLeaves> make_leaves(Optimiser::State& state, int device, std::span<const ArrayView> x) {
  return std::make_unique<Leaves>(state, device, x);
}

}  // namespace optimisers::inline OPT_ABI::cuda
