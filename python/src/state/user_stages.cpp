// user_stages.cpp: native stages into a buffer, the user's `apply` on it, and so on; the last native stages and the
// subtraction are the core's one sweep over all leaves.
#include "state/user_stages.hpp"

#include <algorithm>
#include <cstring>

#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "optimisers/cuda.hpp"

namespace optimisers::python {

std::map<std::uint32_t, UserStages> copied_user_stages(const std::map<std::uint32_t, UserStages>& stages) {
  std::map<std::uint32_t, UserStages> copy = stages;
  if (copy.empty()) return copy;
  nb::object deepcopy = nb::module_::import_("copy").attr("deepcopy");
  for (auto& [leaf, entry] : copy)
    for (nb::object& state : entry.states)
      if (state.is_valid()) state = deepcopy(state);
  return copy;
}

UserRun::UserRun(State& state, std::uint32_t root, PyObject* flat, const GradientSource& source, const char* call)
    : state_(state),
      call_(call),
      python_(nb::module_::import_("optimisers._user_rules")),
      flushes_(source.flushes),
      before_(state.core_.seen()),
      backup_(state.core_) {
  start(root, flat);
  if (!runs_.empty()) read_higher(root, source.higher);
  std::size_t most = 0;
  for (const Run& run : runs_) most = std::max(most, run.stages->before.size());
  for (std::size_t stage = 0; stage < most; ++stage) {
    native_stages(stage);
    for (Run& run : runs_)
      if (!run.stopped && run.dx.is_valid() && stage < run.stages->before.size()) user_stage(run, stage);
  }
}

void Backup::add(std::uint32_t leaf) {
  for (const Memory& memory : memory_of(core_, leaf)) {
    Saved saved{memory, {}, {}};
    const auto bytes = static_cast<std::int64_t>(memory.bytes);
    if (memory.device == on_host) {
      saved.on_host.assign(memory.data, memory.data + memory.bytes);
    } else if (bytes > 0) {
      saved.on_device = device_zeros(memory.device, DType::uint8, {&bytes, 1});
      cuda::copy(as_device_array(saved.on_device.ptr())->data, memory.device, memory.data, memory.device, memory.bytes);
    }
    saved_.push_back(std::move(saved));
  }
  clocks_.push_back({leaf, clocks_of(core_, leaf)});
}

void Backup::put_back() {
  if (seen_) core_.set_seen(*seen_);
  for (const Saved& saved : saved_) {
    const Memory& to = saved.memory;
    if (to.bytes == 0) continue;
    if (to.device == on_host) std::memcpy(to.data, saved.on_host.data(), to.bytes);
    else cuda::copy(to.data, to.device, as_device_array(saved.on_device.ptr())->data, to.device, to.bytes);
  }
  for (const Clocks& clocks : clocks_) set_clocks(core_, clocks.leaf, clocks.values);
}

Backup::~Backup() {
  try {
    put_back();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // A device that fails: its state is unusable, and says so when it is used again.
  }
}

void UserRun::commit() {
  backup_.release();
  if (first_norm_) state_.core_.set_seen({before_.skipped, first_norm_});
  for (Run& run : runs_) {
    run.stages->states.swap(run.states);
    if (run.stopped) state_.updates_[run.update].dx.present = false;  // nothing was written
  }
}

// The leaf's array with the leaf's axes.
nb::object UserRun::parameter(std::uint32_t root, PyObject* flat, std::uint32_t leaf) const {
  if (flat != nullptr) {
    const Layout& layout = state_.layout_.value();
    nb::list shape;
    for (auto n : layout.shapes[leaf]) shape.append(n);
    return python_.attr("segment")(nb::borrow(flat), layout.offsets[leaf], nb::tuple(shape));
  }
  const Node& top = state_.spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = state_.spec_->places[p];
    if (place.leaf != leaf) continue;
    nb::object x = nb::borrow(state_.model_[place.node]);
    return place.axes.empty() ? x : with_axes(x, place.axes);
  }
  return nb::none();
}

void UserRun::start(std::uint32_t root, PyObject* flat) {
  for (std::uint32_t u = 0; u < state_.used_; ++u) {
    const LeafUpdate& update = state_.updates_[u];
    auto found = state_.user_stages_.find(update.leaf);
    if (found == state_.user_stages_.end() || state_.core_.frozen(update.leaf)) continue;
    Run run{.update = u,
            .leaf = update.leaf,
            .stages = &found->second,
            .rules = {},
            .x = {},
            .x_view = update.x,
            .dx = {},
            .higher = {},
            .states = found->second.states};
    run.rules = nb::list(state_.rules_[update.leaf].attr("_user_stages")());
    if (run.rules.size() != found->second.before.size() || run.states.size() != run.rules.size())
      value_error(std::string(call_) + ": the rule at \"" + state_.spec_->text(state_.spec_->leaf_node(update.leaf)) +
                  "\" has " + std::to_string(run.rules.size()) + " user-defined stages, had " +
                  std::to_string(found->second.before.size()) + " at setup");
    run.x = python_.attr("read_only")(parameter(root, flat, update.leaf));
    if (const auto master = state_.core_.master(update.leaf)) {
      const std::span<const std::int64_t> shape = state_.leaf(update.leaf).shape;
      nb::object wide = slot_view(*master, shape, nb::none());
      run.x = python_.attr("master_of")(run.x, wide);
      read(run.x, run.x_view);
    }
    runs_.push_back(std::move(run));
  }
}

// Gradients of higher order, of tied places summed; None where there is none.
void UserRun::read_higher(std::uint32_t root, std::span<PyObject* const> higher) {
  const TreeSpec& spec = *state_.spec_;
  for (PyObject* tree : higher) {
    Objects objects(spec);
    walk_gradients(spec, root, tree, call_, objects);
    for (Run& run : runs_) {
      nb::list parts;
      for (std::uint32_t p = spec.nodes[root].place_begin; p < spec.nodes[root].place_end; ++p) {
        const Place& place = spec.places[p];
        if (place.leaf != run.leaf || objects[place.node] == nullptr) continue;
        nb::object part = nb::borrow(objects[place.node]);
        parts.append(place.axes.empty() ? part : with_axes(part, place.axes));
      }
      run.higher.append(python_.attr("summed")(parts, run.x, call_, path_of(run)));
    }
  }
}

bool UserRun::counts_missing(std::uint32_t core_leaf) const {
  const auto& stages = state_.core_.spec(core_leaf).program.stages;
  return std::any_of(stages.begin(), stages.end(), [](const RuleValue& rule) { return rule.info().gating(); });
}

// What comes before the stage, for all leaves together, so that they share their global norms.
void UserRun::native_stages(std::size_t stage) {
  std::vector<LeafUpdate> updates;
  std::vector<std::byte*> out;
  std::vector<nb::object> buffers;
  std::vector<Run*> of;
  for (Run& run : runs_) {
    if (run.stopped || stage >= run.stages->before.size()) continue;
    LeafUpdate update = state_.updates_[run.update];
    update.leaf = run.stages->before[stage];
    update.x = run.x_view;
    backup_.add(update.leaf);
    buffers.push_back(python_.attr("empty_like")(run.x));
    ArrayView buffer;
    read(buffers.back(), buffer);
    updates.push_back(update);
    out.push_back(buffer.data);
    of.push_back(&run);
  }
  std::vector<std::byte*> came = out;
  state_.core_.set_seen({before_.skipped, std::nullopt});
  state_.core_.apply(updates, state_.further_, came, call_, flushes_);
  if (!first_norm_) first_norm_ = state_.core_.seen().norm;
  state_.core_.set_seen(before_);
  for (std::size_t i = 0; i < of.size(); ++i) {
    Run& run = *of[i];
    if (came[i] != nullptr) take(run, buffers[i]);
    else if (flushes_) let_go_on(run);
    else if (updates[i].dx.present || counts_missing(updates[i].leaf)) run.stopped = true;
  }
}

void UserRun::read(const nb::object& array, ArrayView& view) {
  if (read_any(array.ptr(), view, read_from_.emplace_back()) != Fault::none)
    type_error(std::string(call_) + ": a stage gave no array");
  state_.pins_.pin(read_from_.back().ptr(), view);
}

nb::str UserRun::path_of(const Run& run) const {
  const TreeSpec& spec = *state_.spec_;
  return nb::str(spec.text(spec.leaf_node(run.leaf)).c_str());
}

void UserRun::take(Run& run, const nb::object& dx) {
  LeafUpdate& update = state_.updates_[run.update];
  run.dx = dx;
  update.more = -1;
  read(dx, update.dx);
}

void UserRun::user_stage(Run& run, std::size_t stage) {
  const nb::str path = path_of(run);
  nb::object result =
      python_.attr("run_stage")(run.rules[stage], call_, path, run.states[stage], run.x, run.dx, run.higher);
  run.states[stage] = result[0];
  nb::object dx = result[1];
  if (!dx.is_none()) take(run, dx);
  else if (flushes_) let_go_on(run);
  else run.stopped = true;
}

// Nothing came to the stages that follow, which may hold something to be flushed all the same.
void UserRun::let_go_on(Run& run) {
  run.dx = {};
  state_.updates_[run.update].dx.present = false;
  state_.updates_[run.update].more = -1;
}

std::vector<LeafUpdate> UserRun::last_updates() const {
  std::vector<bool> stopped(state_.used_);
  for (const Run& run : runs_) stopped[run.update] = run.stopped;
  std::vector<LeafUpdate> updates;
  for (std::size_t u = 0; u < state_.used_; ++u)
    if (!stopped[u]) updates.push_back(state_.updates_[u]);
  return updates;
}

}  // namespace optimisers::python
