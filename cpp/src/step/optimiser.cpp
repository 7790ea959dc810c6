// optimiser.cpp: what can be asked of an optimiser, and its updates.
#include "optimisers/optimiser.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device.hpp"
#include "environment.hpp"
#include "rules/number_text.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

constexpr int host = -1;
static_assert(host == on_host);

// For the length of a call.
class Flushing {
 public:
  Flushing(Optimiser::State& state, bool flushes) : state_(state) { state_.flushes = flushes; }
  ~Flushing() { state_.flushes = false; }
  Flushing(const Flushing&) = delete;

 private:
  Optimiser::State& state_;
};

// Whether something comes out of a leaf on an accelerator: its clocks say so, which takes waiting for them.
bool will_write(Optimiser::State& state, const LeafUpdate& u) {
  const Group& group = state.groups[state.leaves[u.leaf].group];
  if (state.leaves[u.leaf].frozen) return false;
  if (!group.gates) return u.dx.present;
  state.device_of(u.leaf)->fetch_clock(u.leaf);
  std::vector<std::uint64_t> row(std::size_t(group.row_size) / 8), steps(std::size_t(group.step_size) / 8);
  std::memcpy(row.data(), state.row_of(u.leaf), std::size_t(group.row_size));
  Course course;
  const RowStages stages{group, reinterpret_cast<std::byte*>(row.data()), reinterpret_cast<std::byte*>(steps.data())};
  return advance(stages, int(group.stages.size()), u.dx.present, course, state.flushes) && course.writes;
}

}  // namespace

void Optimiser::State::update(std::span<const LeafUpdate> checked, std::span<const FurtherGradient> further) {
  for (auto& [index, device] : devices) device->prepare(checked, further, {});
  const bool in_one = any_host && small && !reduces;
  if (!in_one) schedule(*this, checked, further);
  for (auto& [index, device] : devices) device->enqueue();
  if (reduces || !devices.empty()) take_norm();
  if (in_one) run_small(*this, checked, further);
  else cpu::sweep(jobs, further, whole_leaves());
}

void Optimiser::State::take_norm() {
  for (const auto& [index, device] : devices)
    if (device->shares_norm()) norm_device = index;
  if (!shared_norm) return;
  last_seen.norm = shared_norm;
  norm_device = host;
}

Seen Optimiser::State::seen() const {
  Seen all = last_seen;
  for (const auto& [index, device] : devices)
    if (index == norm_device)
      if (const auto there = device->shared_norm()) all.norm = there;
  return all;
}

Optimiser::~Optimiser() = default;

std::size_t Optimiser::size() const { return state_->leaves.size(); }
const LeafSpec& Optimiser::spec(Leaf leaf) const { return state_->specs[leaf]; }
bool Optimiser::frozen(Leaf leaf) const { return state_->leaves[leaf].frozen; }

std::span<double> Optimiser::clock(Leaf leaf, int stage) {
  if (DeviceLeaves* device = state_->device_of(leaf)) device->fetch_clock(leaf);
  const Stage& s = state_->group_of(leaf).stages[std::size_t(stage)];
  return {clock_of(s, state_->row_of(leaf)), std::size_t(s.info->clock_size)};
}

void Optimiser::set_clock(Leaf leaf, int stage, std::span<const double> values) {
  const auto clock = this->clock(leaf, stage);
  if (values.size() != clock.size())
    throw Error(ErrorKind::value, "set_clock: there are " + std::to_string(clock.size()) + " values, got " +
                                      std::to_string(values.size()));
  std::copy(values.begin(), values.end(), clock.begin());
  if (DeviceLeaves* device = state_->device_of(leaf)) device->send_clock(leaf);
  const Stage& set = state_->group_of(leaf).stages[std::size_t(stage)];
  if (set.info->shared_clock == 0) return;
  for (Group& group : state_->groups)
    for (const Stage& s : group.stages)
      if (s.info->same_kernels(*set.info))
        for (std::uint32_t i = 0; i < group.leaves; ++i)
          std::copy_n(values.begin(), s.info->shared_clock, clock_of(s, group.row(i)));
}

std::vector<SlotView> Optimiser::slots(Leaf leaf, int stage) {
  if (DeviceLeaves* device = state_->device_of(leaf)) device->follow();
  Group& group = state_->group_of(leaf);
  const Stage& s = group.stages[std::size_t(stage)];
  std::vector<SlotView> views;
  for (int i = 0; i < s.slot_count; ++i) {
    const auto k = std::size_t(s.first_slot + i);
    const GroupSlot& slot = group.slots[k];
    views.push_back({slot.name, group.arenas[k].data() + state_->leaves[leaf].offset * size_of(slot.dtype), slot.dtype,
                     std::int8_t(group.device)});
  }
  return views;
}

std::optional<SlotView> Optimiser::master(Leaf leaf) {
  Group& group = state_->group_of(leaf);
  if (!group.master) return std::nullopt;
  if (DeviceLeaves* device = state_->device_of(leaf)) device->follow();
  return SlotView{"master", group.masters.data() + state_->leaves[leaf].offset * size_of(group.compute), group.compute,
                  std::int8_t(group.device)};
}

bool Optimiser::accepts(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                        NonFinite non_finite) {
  const Call here;
  state_->call = "update";
  check_arrays(*state_, leaves, further, true);
  return state_->accepts(leaves, further, non_finite);
}

bool Optimiser::update(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                       NonFinite non_finite) {
  const Call here;
  state_->call = "update";
  check_arrays(*state_, leaves, further, true);
  if (!state_->accepts(leaves, further, non_finite)) return false;
  state_->update(leaves, further);
  return true;
}

void Optimiser::flush(std::span<const LeafUpdate> leaves) {
  const Call here;
  const Flushing flushing(*state_, true);
  state_->call = "flush";
  check_arrays(*state_, leaves, {}, true);
  state_->update(leaves, {});
}

bool Optimiser::update(std::span<const LeafUpdate> leaves, double scale, const ReduceNorm& reduce_norm,
                       NonFinite non_finite) {
  if (!std::isfinite(float(scale)))
    throw Error(ErrorKind::value, "update: scale must be a finite number in float32, got " + number_text(scale));
  if (!state_->devices.empty() && (scale != 1 || reduce_norm))
    throw Error(ErrorKind::value, "update: scale and reduce_norm are for leaves on the host");
  struct Options {  // for this call
    State& state;
    ~Options() {
      state.scale = 1;
      state.reduce_norm = nullptr;
    }
  } options{*state_};
  state_->scale = scale;
  if (reduce_norm) state_->reduce_norm = &reduce_norm;
  return update(leaves, std::span<const FurtherGradient>(), non_finite);
}

void Optimiser::speak(Language language) { state_->language = language; }

Examined Optimiser::examine(std::span<const LeafUpdate> leaves, std::size_t begin, std::size_t end) noexcept {
  return optimisers::examine(*state_, leaves, {}, true, begin, end);
}

bool Optimiser::update(std::span<const LeafUpdate> leaves, const Examined& found, NonFinite non_finite) {
  const Call here;
  state_->call = "update";
  if (!found.fits || !found.compared || found.meets || state_->epoch == 0)
    refuse_what_was_found(*state_, leaves, {}, true, found);
  if (non_finite != NonFinite::propagate && !state_->accepts(leaves, {}, non_finite)) return false;
  state_->update(leaves, {});
  return true;
}

Seen Optimiser::seen() const { return state_->seen(); }
void Optimiser::set_seen(const Seen& seen) {
  state_->last_seen = seen;
  state_->norm_device = host;
}

bool Optimiser::wrote(const LeafUpdate& u) const {
  const LeafRecord& leaf = state_->leaves[u.leaf];
  const bool gated = state_->groups[leaf.group].gates;
  return !leaf.frozen && (gated && leaf.device == on_host ? leaf.wrote : gated || u.dx.present);
}

void Optimiser::wait() {
  for (auto& [index, device] : state_->devices) device->wait();
}

bool Optimiser::apply(const LeafUpdate& leaf, std::byte* out) {
  apply({&leaf, 1}, {}, {&out, 1});
  return out != nullptr;
}

void Optimiser::apply(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                      std::span<std::byte*> out, const char* call, bool flushes) {
  const Flushing flushing(*state_, flushes);
  const Call here;
  state_->call = call;
  for (const LeafUpdate& u : leaves)
    if (state_->group_of(u.leaf).master)
      throw Error(ErrorKind::value,
                  "apply_: MixedPrecision keeps a master copy of the parameter, which only update_ "
                  "writes back; use setup and update_",
                  spec(u.leaf).name);
  check_arrays(*state_, leaves, further, false);
  std::vector<bool> written(leaves.size());
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (state_->device_of(leaves[i].leaf)) written[i] = will_write(*state_, leaves[i]);
  for (auto& [index, device] : state_->devices) device->prepare(leaves, further, out);
  schedule(*state_, leaves, further);
  for (auto& [index, device] : state_->devices) device->enqueue();
  state_->take_norm();
  for (cpu::Job& job : state_->jobs) {
    const auto i = std::size_t(job.arrays - leaves.data());
    job.out = out[i];
    written[i] = job.course.writes;
  }
  cpu::sweep(state_->jobs, further, state_->whole_leaves());
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!written[i]) out[i] = nullptr;
}

}  // namespace optimisers::inline OPT_ABI
