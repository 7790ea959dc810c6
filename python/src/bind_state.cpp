// bind_state.cpp: State and the handles into it, and the two calls that have to be fast.
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "bind.hpp"
#include "errors.hpp"
#include "handle.hpp"

namespace optimisers::python {
namespace {

nb::list slots_of(nb::handle self, std::uint32_t leaf) {
  State& state = nb::cast<State&>(self);
  Use use(state);
  nb::list stages;
  const std::size_t n = state.core().spec(leaf).program.stages.size();
  for (std::size_t stage = 0; stage < n; ++stage) {
    nb::list slots;
    for (const SlotView& slot : state.core().slots(leaf, static_cast<int>(stage)))
      slots.append(nb::make_tuple(slot.name, numpy_view(slot.data, slot.dtype, state.leaf(leaf).shape, self)));
    stages.append(slots);
  }
  return stages;
}

nb::object master_of(nb::handle self, std::uint32_t leaf) {
  State& state = nb::cast<State&>(self);
  Use use(state);
  const auto master = state.core().master(leaf);
  return master ? numpy_view(master->data, master->dtype, state.leaf(leaf).shape, self) : nb::none();
}

nb::list clocks_of(State& state, std::uint32_t leaf) {
  Use use(state);
  nb::list stages;
  const LeafSpec& spec = state.core().spec(leaf);
  for (std::size_t stage = 0; stage < spec.program.stages.size(); ++stage) {
    const auto names = spec.program.stages[stage].info().clock;
    const auto values = state.core().clock(leaf, static_cast<int>(stage));
    nb::list clock;
    for (std::size_t i = 0; i < names.size(); ++i) clock.append(nb::make_tuple(names[i], values[i]));
    stages.append(clock);
  }
  return stages;
}

std::vector<RuleValue> rule_values_of(State& state, std::uint32_t leaf) {
  Use use(state);
  std::vector<RuleValue> values;
  const std::size_t n = state.core().spec(leaf).program.stages.size();
  for (std::size_t stage = 0; stage < n; ++stage) values.push_back(state.core().rule(leaf, static_cast<int>(stage)));
  return values;
}

nb::tuple leaf_info(const State& state, std::uint32_t leaf) {
  const LeafArray& array = state.leaf(leaf);
  nb::list shape;
  for (auto n : array.shape) shape.append(n);
  return nb::make_tuple(nb::tuple(shape), nb::str(std::string(name_of(array.dtype)).c_str()),
                        array.library == Library::exchange);
}

// Fields by their names in C++; the caller has made sure that some rule has each.
void adjust(State& state, std::uint32_t node, const nb::dict& fields) {
  Use use(state);
  const std::vector<std::uint32_t> leaves = state.spec().leaves_below(node);
  std::vector<std::pair<std::string, Value>> values;
  for (auto [key, object] : fields) {
    const std::string name = nb::cast<std::string>(key);
    for (const RuleInfo& info : rule_registry()) {
      const FieldInfo* field = info.field(name);
      if (field == nullptr) continue;
      values.emplace_back(name, value_from(object, "adjust", field->name, field->kind));
      break;
    }
  }
  state.core().adjust(leaves, values);
}

void set_frozen(State& state, std::uint32_t node, bool frozen) {
  Use use(state);
  state.core().set_frozen(state.spec().leaves_below(node), frozen);
}

bool is_frozen(State& state, std::uint32_t leaf) {
  Use use(state);
  return state.core().frozen(leaf);
}

std::unique_ptr<State> copied(State& state) {
  Use use(state);
  return std::make_unique<State>(state);
}

nb::tuple update_copy(State& state, std::uint32_t node, nb::handle model, nb::handle gradients) {
  nb::object new_model = state.copied_model(node, model.ptr(), "update");
  std::unique_ptr<State> new_state = copied(state);
  new_state->update(node, new_model.ptr(), gradients.ptr(), "update");
  return nb::make_tuple(std::move(new_state), new_model);
}

// The nodes of the tree as the handles need them.
void bind_nodes(nb::class_<State>& cls) {
  cls.def(
         "child", [](const State& s, std::uint32_t node, nb::handle key) { return s.spec().child(node, key.ptr()); },
         nb::arg(), nb::arg().none())
      .def("kind", [](const State& s, std::uint32_t node) { return name_of(s.spec().nodes[node].kind); })
      .def("children",
           [](const State& s, std::uint32_t node) {
             const Node& n = s.spec().nodes[node];
             return nb::make_tuple(n.first, n.first + n.count);
           })
      .def("key", [](const State& s, std::uint32_t node) { return s.spec().key(node); })
      .def("path", [](const State& s, std::uint32_t node) { return s.spec().path(node); })
      .def("path_text", [](const State& s, std::uint32_t node) { return s.spec().text(node); })
      .def("leaf",
           [](const State& s, std::uint32_t node) { return s.spec().places[s.spec().nodes[node].place_begin].leaf; })
      .def("leaf_node",
           [](const State& s, std::uint32_t leaf) { return s.spec().places[s.spec().first_place[leaf]].node; })
      .def("leaves", [](const State& s, std::uint32_t node) { return s.spec().leaves_below(node); })
      .def("leaf_count", [](const State& s, std::uint32_t node) {
        return s.spec().nodes[node].place_end - s.spec().nodes[node].place_begin;
      });
}

}  // namespace

void bind_state(nb::module_& m) {
  nb::class_<State> state(m, "State", nb::is_weak_referenceable());
  state.def("slots", [](nb::handle self, std::uint32_t leaf) { return slots_of(self, leaf); })
      .def("master", [](nb::handle self, std::uint32_t leaf) { return master_of(self, leaf); })
      .def("clocks", &clocks_of)
      .def("rule_values", &rule_values_of)
      .def("leaf_info", &leaf_info)
      .def("adjust", &adjust)
      .def("set_frozen", &set_frozen)
      .def("is_frozen", &is_frozen)
      .def("copy", &copied)
      .def("update_copy", &update_copy, nb::arg(), nb::arg().none(), nb::arg().none())
      .def(
          "apply",
          [](State& s, nb::handle x, nb::handle dx, nb::handle out) { return s.apply(x.ptr(), dx.ptr(), out.ptr()); },
          nb::arg().none(), nb::arg().none(), nb::arg())
      .def("set_rules", &State::set_rules)
      .def("has_layout", &State::has_layout)
      .def_prop_ro("rules", [](State& s) { return nb::list(s.rules()); })
      .def("__deepcopy__", [](State& s, nb::handle) { return copied(s); })
      .def("pickled", &State::pickled);
  bind_nodes(state);
  m.def("unpickled_state", &State::unpickled);
  nb::class_<Handle>(m, "Handle", nb::is_weak_referenceable())
      .def(nb::init<nb::object, std::uint32_t>(), nb::arg("core"), nb::arg("node"))
      .def_ro("_core", &Handle::core)
      .def_ro("_node", &Handle::node);
  bind_update(m);
}

}  // namespace optimisers::python
