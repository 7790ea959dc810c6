// bind_leaves.cpp: what State holds of each leaf, read and set: slots, masters, clocks, rules.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays/device_array.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "state/state.hpp"

namespace optimisers::python {
namespace {

// Calls f with the core's leaf and stage of each native stage of a leaf, in order.
template <class F>
void each_stage(State& state, std::uint32_t leaf, F&& f) {
  for (std::uint32_t part : state.core_leaves(leaf)) {
    const std::size_t n = state.core().spec(part).program.stages.size();
    for (std::size_t stage = 0; stage < n; ++stage) f(part, static_cast<int>(stage));
  }
}

// Bytes of a leaf's slots and master copy.
std::size_t state_size(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  std::size_t bytes = 0;
  for (std::uint32_t part : state.core_leaves(leaf))
    for (const Memory& memory : memory_of(state.core(), part)) bytes += memory.bytes;
  return bytes;
}

nb::list slots_of(nb::handle self, std::uint32_t leaf) {
  State& state = nb::cast<State&>(self);
  state.check_leaf(leaf);
  Use use(state);
  nb::list stages;
  each_stage(state, leaf, [&](std::uint32_t part, int stage) {
    nb::list slots;
    for (const SlotView& slot : state.core().slots(part, stage))
      slots.append(nb::make_tuple(slot.name, slot_view(slot, state.leaf(leaf).shape, self)));
    stages.append(slots);
  });
  return stages;
}

nb::object master_of(nb::handle self, std::uint32_t leaf) {
  State& state = nb::cast<State&>(self);
  state.check_leaf(leaf);
  Use use(state);
  const auto master = state.core().master(leaf);
  return master ? slot_view(*master, state.leaf(leaf).shape, self) : nb::none();
}

nb::list clock_list(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  nb::list stages;
  each_stage(state, leaf, [&](std::uint32_t part, int stage) {
    const auto names = state.core().spec(part).program.stages[static_cast<std::size_t>(stage)].info().clock;
    const auto values = clock_of(state.core(), part, stage);
    nb::list clock;
    for (std::size_t i = 0; i < names.size(); ++i) clock.append(nb::make_tuple(names[i], values[i]));
    stages.append(clock);
  });
  return stages;
}

// All scalars of a leaf's clocks, stage by stage.
void set_leaf_clocks(State& state, std::uint32_t leaf, const std::vector<double>& values) {
  state.check_leaf(leaf);
  Use use(state);
  std::size_t known = 0;
  each_stage(state, leaf, [&](std::uint32_t part, int stage) { known += clock_of(state.core(), part, stage).size(); });
  if (values.size() != known)
    value_error("set_clocks: leaf " + std::to_string(leaf) + " has " + std::to_string(known) + " scalars, got " +
                std::to_string(values.size()));
  std::span<const double> rest(values);
  each_stage(state, leaf, [&](std::uint32_t part, int stage) {
    const std::size_t n = clock_of(state.core(), part, stage).size();
    state.core().set_clock(part, stage, rest.first(n));
    rest = rest.subspan(n);
  });
}

// One scalar of the clocks of all leaves below a node: `values` has a float64 for each leaf of the state.
void set_clock_scalar(State& state, std::uint32_t node, const std::string& name, nb::handle values) {
  state.check_node(node);
  Use use(state);
  ArrayView view;
  if (read_array(values.ptr(), view) != Fault::none || view.dtype != DType::float64 || view.device != on_host ||
      !is_contiguous(view) || size_of(view) != static_cast<std::int64_t>(state.rules().size()))
    value_error("set_clock_scalar: expected a float64 array on the host with one element for each of " +
                std::to_string(state.rules().size()) + " leaves");
  const auto* value = reinterpret_cast<const double*>(view.data);
  for (const std::uint32_t leaf : state.spec().leaves_below(node))
    each_stage(state, leaf, [&](std::uint32_t part, int stage) {
      const auto names = state.core().spec(part).program.stages[static_cast<std::size_t>(stage)].info().clock;
      std::vector<double> clock;
      for (const double scalar : clock_of(state.core(), part, stage)) clock.push_back(scalar);
      bool changed = false;
      for (std::size_t i = 0; i < names.size(); ++i)
        if (name == names[i]) clock[i] = value[leaf], changed = true;
      if (changed) state.core().set_clock(part, stage, clock);
    });
}

std::vector<RuleValue> rule_values_of(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  std::vector<RuleValue> values;
  each_stage(state, leaf, [&](std::uint32_t part, int stage) { values.push_back(state.core().rule(part, stage)); });
  return values;
}

nb::list user_states_of(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  nb::list states;
  if (auto found = state.user_stages().find(leaf); found != state.user_stages().end())
    for (const nb::object& s : found->second.states) states.append(s);
  return states;
}

void set_user_states(State& state, std::uint32_t leaf, const nb::list& states) {
  state.check_leaf(leaf);
  Use use(state);
  std::vector<nb::object> given;
  for (nb::handle s : states) given.push_back(nb::borrow(s));
  const auto found = state.user_stages().find(leaf);
  const std::size_t expected = found == state.user_stages().end() ? 0 : found->second.before.size();
  if (given.size() != expected)
    value_error("a leaf with " + std::to_string(expected) + " user-defined stages cannot take " +
                std::to_string(given.size()) + " states");
  if (expected > 0) found->second.states.swap(given);
}

nb::object rule_object(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  return state.rules()[leaf];
}

nb::tuple leaf_info(const State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  const LeafArray& array = state.leaf(leaf);
  nb::list shape;
  for (auto n : array.shape) shape.append(n);
  return nb::make_tuple(nb::tuple(shape), nb::str(std::string(name_of(array.dtype)).c_str()), name_of(array.library),
                        static_cast<int>(array.device));
}

bool is_frozen(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  return state.core().frozen(leaf);
}

}  // namespace

void bind_leaves(nb::class_<State>& state) {
  state.def("slots", [](nb::handle self, std::uint32_t leaf) { return slots_of(self, leaf); })
      .def("master", [](nb::handle self, std::uint32_t leaf) { return master_of(self, leaf); })
      .def("clocks", &clock_list)
      .def("set_clocks", &set_leaf_clocks)
      .def("set_clock_scalar", &set_clock_scalar)
      .def("rule_values", &rule_values_of)
      .def("leaf_info", &leaf_info)
      .def("state_size", &state_size)
      .def("is_frozen", &is_frozen)
      .def("user_states", &user_states_of)
      .def("set_user_states", &set_user_states)
      .def("rule_object", &rule_object);
}

}  // namespace optimisers::python
