// bind_state.cpp: State and the handles into it; update_, which has to be fast, is in bind_update.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "arrays/device_array.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "handle.hpp"
#include "state/state.hpp"
#include "text.hpp"

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

// A change is (name of a rule or None, field by its name in C++, value, whether it is a factor).
Adjustment adjustment_from(nb::handle object, bool levels) {
  if (!PyTuple_Check(object.ptr()) || PyTuple_GET_SIZE(object.ptr()) != 4)
    type_error("adjust: expected changes of four parts each, got " + repr_text(object));
  const nb::tuple change = nb::borrow<nb::tuple>(object);
  Adjustment a{.field = str_text(change[1]),
               .value = 0.0,
               .scales = change[3].is(nb::handle(Py_True)),
               .levels = true,
               .rule = change[0].is_none() ? nullptr : find_rule(str_text(change[0]))};
  if (!change[0].is_none() && a.rule == nullptr) value_error("adjust: there is no such rule");
  for (const RuleInfo& info : rule_registry()) {
    const FieldInfo* field = a.rule == nullptr || a.rule == &info ? info.field(a.field) : nullptr;
    if (field == nullptr) continue;
    a.value = value_from(change[2], "adjust", a.scales ? "scale" : field->name, field->kind);
    if (a.scales && field->kind != FieldKind::number) value_error("adjust: " + a.field + " is no number to be scaled");
    break;
  }
  a.levels = levels || a.scales || a.rule != nullptr || a.field != "eta";
  return a;
}

// None: not done, since rules written in Python are concerned. (): done. The least and greatest learning rate: not
// done, since they differ and a number for all of them would level them.
nb::object adjust(State& state, std::uint32_t node, const nb::list& changes, bool levels) {
  state.check_node(node);
  if (state.has_user_stages(node)) return nb::none();
  std::vector<Adjustment> adjustments;
  for (nb::handle change : changes) adjustments.push_back(adjustment_from(change, levels));
  const Adjusted adjusted = state.adjust(node, adjustments);
  if (!(adjusted.lowest < adjusted.highest)) return nb::make_tuple();
  return nb::make_tuple(adjusted.lowest, adjusted.highest);
}

void set_frozen(State& state, std::uint32_t node, bool frozen) {
  state.check_node(node);
  Use use(state);
  state.core().set_frozen(state.core_leaves_below(node), frozen);
}

bool is_frozen(State& state, std::uint32_t leaf) {
  state.check_leaf(leaf);
  Use use(state);
  return state.core().frozen(leaf);
}

std::unique_ptr<State> copied(State& state) {
  state.check_node(0);
  Use use(state);
  return std::make_unique<State>(state);
}

// Copies of state and model after a step.
nb::tuple stepped_copies(State& state, std::uint32_t node, nb::handle model, const GradientSource& source,
                         const char* call) {
  std::unique_ptr<State> new_state;
  CopiedModel copy = state.copied_model(node, model.ptr(), call, new_state);
  new_state->update(node, copy.model.ptr(), source, call);
  nb::object new_model = state.jax_model(node, model.ptr(), std::move(copy), call);
  return nb::make_tuple(std::move(new_state), new_model);
}

// `gradients` has one tree and those of higher order; empty: the model's arrays keep theirs.
nb::tuple update_copy(State& state, std::uint32_t node, nb::handle model, const nb::tuple& gradients, bool once,
                      nb::handle non_finite) {
  state.check_node(node);
  std::vector<PyObject*> higher;
  for (std::size_t i = 1; i < gradients.size(); ++i) higher.push_back(nb::handle(gradients[i]).ptr());
  GradientSource source{.tree = nullptr,
                        .kept_by = model.ptr(),
                        .once = once,
                        .non_finite = non_finite_from(non_finite.ptr(), "update"),
                        .higher = higher};
  source.depth = 2;
  if (gradients.size() > 0) source.tree = nb::handle(gradients[0]).ptr();
  return stepped_copies(state, node, model, source, "update");
}

GradientSource nothing_but_what_is_held() { return {.tree = Py_None, .flushes = true}; }
void flush(State& state, std::uint32_t node, nb::handle model) {
  state.check_node(node);
  state.update(node, model.ptr(), nothing_but_what_is_held(), "flush");
}
nb::tuple flush_copy(State& state, std::uint32_t node, nb::handle model) {
  state.check_node(node);
  return stepped_copies(state, node, model, nothing_but_what_is_held(), "flush");
}

bool apply(State& state, nb::handle x, nb::handle dx, nb::handle out, const nb::tuple& higher, nb::handle rule) {
  std::vector<PyObject*> trees;
  for (nb::handle tree : higher) trees.push_back(tree.ptr());
  return state.apply(x.ptr(), dx.ptr(), out.ptr(), trees, rule.is_none() ? nullptr : rule.ptr());
}

// A node of the tree, which marks are not.
const Node& node_of(const State& state, std::uint32_t node) {
  state.check_node(node);
  if (state.spec().is_mark(node)) value_error("marked leaves are no node of a state tree");
  return state.spec().nodes[node];
}

std::uint32_t leaf_at(const State& state, std::uint32_t node) {
  if (!node_of(state, node).live()) value_error("there is no leaf at \"" + state.spec().text(node) + "\"");
  return state.spec().places[node_of(state, node).place_begin].leaf;
}

void take_over(nb::handle self, State& old, const std::vector<std::pair<std::uint32_t, std::uint32_t>>& leaves,
               const nb::list& handles, const std::vector<std::uint32_t>& nodes) {
  State& state = nb::cast<State&>(self);
  std::vector<Handle*> moved;
  for (nb::handle handle : handles) moved.push_back(&nb::cast<Handle&>(handle));
  if (moved.size() != nodes.size()) value_error("there must be one node for each handle");
  for (const std::uint32_t node : nodes) state.check_node(node);
  for (const auto& [leaf, before] : leaves) {
    state.check_leaf(leaf);
    old.check_leaf(before);
  }
  state.take_over(old, leaves, moved, nodes, nb::borrow(self));
}

// (path, leaf, axes of the leaf there) of each place.
nb::list paths_of(const State& state) {
  state.check_node(0);
  nb::list paths;
  for (const Place& place : state.spec().places) {
    nb::list axes;
    for (int axis : place.axes) axes.append(axis);
    paths.append(nb::make_tuple(state.spec().path(place.node), place.leaf, nb::tuple(axes)));
  }
  return paths;
}

// Paths of what is marked as not trained.
nb::list left_alone(const State& state) {
  state.check_node(0);
  nb::list paths;
  const TreeSpec& spec = state.spec();
  for (std::uint32_t n = 0; n < spec.nodes.size(); ++n)
    if (spec.nodes[n].kind == Kind::value && !spec.nodes[n].watched) paths.append(spec.path(n));
  return paths;
}

// The nodes of the tree as the handles need them.
void bind_nodes(nb::class_<State>& cls) {
  cls.def(
         "child",
         [](const State& s, std::uint32_t node, nb::handle key) {
           node_of(s, node);
           return s.spec().child(node, key.ptr());
         },
         nb::arg(), nb::arg().none())
      .def("kind", [](const State& s, std::uint32_t node) { return name_of(node_of(s, node).kind); })
      .def("children",
           [](const State& s, std::uint32_t node) {
             const Node& n = node_of(s, node);
             return nb::make_tuple(n.first, n.first + n.count);
           })
      .def("key", [](const State& s, std::uint32_t node) { return node_of(s, node), s.spec().key(node); })
      .def("path", [](const State& s, std::uint32_t node) { return s.check_node(node), s.spec().path(node); })
      .def("marks", [](const State& s) { return s.spec().mark_states(); })
      .def("node_count", [](const State& s) { return s.spec().nodes.size(); })
      .def("path_text", [](const State& s, std::uint32_t node) { return s.check_node(node), s.spec().text(node); })
      .def("leaf", &leaf_at)
      .def("leaf_node", [](const State& s, std::uint32_t leaf) { return s.check_leaf(leaf), s.spec().leaf_node(leaf); })
      .def("leaves", [](const State& s, std::uint32_t node) { return s.check_node(node), s.spec().leaves_below(node); })
      .def("leaf_count", [](const State& s, std::uint32_t node) {
        return node_of(s, node).place_end - node_of(s, node).place_begin;
      });
}

constexpr const char* duplicated_doc =
    R"(A model together with the arrays its gradients are accumulated in, as one argument.

`setup` looks at the model only; `update_` and `update` take the gradients from it. They have been accumulated already:
of a tied array one and the same gradient (or views of the same elements) counts once, different ones are summed. It may
not stand inside a model.

Args:
    model: any model.
    grads: a tree of the model's shape.

Example:
    >>> import numpy as np, optimisers as opt
    >>> pair = opt.Duplicated({"w": np.ones(2)}, {"w": np.array([1.0, 2.0])})
    >>> state = opt.setup(opt.Descent(0.5), pair)
    >>> state, pair = opt.update_(state, pair)
    >>> pair.model["w"]
    array([0.5, 0. ])
)";

// A user's class in whose module a state stands, and much else, makes a cycle only the garbage collector can find.
int traverse_state(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  return nb::inst_ptr<State>(self)->visit_objects(visit, arg);
}
int clear_state(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<State>(self)->drop_objects();
  return 0;
}
int traverse_handle(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<Handle>(self)->core.ptr());
  return 0;
}
int clear_handle(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  Handle* handle = nb::inst_ptr<Handle>(self);
  handle->state = nullptr;
  const nb::object core = std::exchange(handle->core, nb::none());
  return 0;
}
int traverse_duplicated(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  Py_VISIT(nb::inst_ptr<Duplicated>(self)->model.ptr());
  Py_VISIT(nb::inst_ptr<Duplicated>(self)->grads.ptr());
  return 0;
}
int clear_duplicated(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  Duplicated* pair = nb::inst_ptr<Duplicated>(self);
  const nb::object model = std::exchange(pair->model, nb::none()), grads = std::exchange(pair->grads, nb::none());
  return 0;
}

template <int (*traverse)(PyObject*, visitproc, void*), int (*clear)(PyObject*)>
PyType_Slot collected[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)}, {Py_tp_clear, reinterpret_cast<void*>(clear)}, {0, nullptr}};

}  // namespace

Handle::Handle(nb::object core, std::uint32_t node) : core(std::move(core)), state(nullptr), node(node) {
  if (!nb::try_cast<State*>(this->core, state) || state == nullptr)
    type_error("expected the native part of a state, got a " + type_name(this->core.ptr()));
  state->check_node(node);
}

void bind_state(nb::module_& m) {
  nb::class_<State> state(m, "State", nb::is_weak_referenceable(),
                          nb::type_slots(collected<traverse_state, clear_state>));
  state.def("slots", [](nb::handle self, std::uint32_t leaf) { return slots_of(self, leaf); })
      .def("master", [](nb::handle self, std::uint32_t leaf) { return master_of(self, leaf); })
      .def("clocks", &clock_list)
      .def("set_clocks", &set_leaf_clocks)
      .def("set_clock_scalar", &set_clock_scalar)
      .def("count_into", &State::count_into)
      .def("rule_values", &rule_values_of)
      .def("leaf_info", &leaf_info)
      .def("state_size", &state_size)
      .def("adjust", &adjust)
      .def("set_frozen", &set_frozen)
      .def("is_frozen", &is_frozen)
      .def("copy", &copied)
      .def("wait", &State::wait)
      .def("update_copy", &update_copy, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none())
      .def("flush", &flush, nb::arg(), nb::arg().none())
      .def("flush_copy", &flush_copy, nb::arg(), nb::arg().none())
      .def("skipped", [](State& s) { return s.seen().skipped; })
      .def("norm", [](State& s) { return s.seen().norm; })
      .def("apply", &apply, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none())
      .def("user_states", &user_states_of)
      .def("set_user_states", &set_user_states)
      .def("replace_rules", [](State& s, const std::vector<std::uint32_t>& leaves,
                               const nb::list& rules) { s.replace_rules(leaves, rules); })
      .def_prop_ro("revision", &State::revision)
      .def("has_layout", &State::has_layout)
      .def("segments", [](State& s) { return s.layout() ? s.layout()->offsets : std::vector<std::int64_t>(); })
      .def("rule_object", &rule_object)
      .def("take_over", &take_over)
      .def("paths", &paths_of)
      .def("left_alone", &left_alone)
      .def_prop_rw(
          "setup_rule", [](State& s) { return s.setup_rule(); },
          [](State& s, nb::object rule) { s.setup_rule() = std::move(rule); }, nb::arg("rule").none())
      .def_prop_ro("rules", [](State& s) { return nb::list(s.rules()); })
      .def("__deepcopy__", [](State& s, nb::handle) { return copied(s); })
      .def("pickled", &State::pickled);
  bind_nodes(state);
  m.def("unpickled_state", &State::unpickled);
  nb::class_<Handle>(m, "Handle", nb::is_weak_referenceable(), nb::type_slots(collected<traverse_handle, clear_handle>))
      .def(nb::init<nb::object, std::uint32_t>(), nb::arg("core"), nb::arg("node"))
      .def_ro("_core", &Handle::core)
      .def_ro("_node", &Handle::node);
  nb::class_<Duplicated>(m, "Duplicated", nb::type_slots(collected<traverse_duplicated, clear_duplicated>),
                         duplicated_doc)
      .def(nb::init<nb::object, nb::object>(), nb::arg("model").none(), nb::arg("grads").none())
      .def_ro("model", &Duplicated::model)
      .def_ro("grads", &Duplicated::grads)
      .def("__reduce__",
           [](nb::handle self) {
             const Duplicated& pair = nb::cast<const Duplicated&>(self);
             return nb::make_tuple(self.type(), nb::make_tuple(pair.model, pair.grads));
           })
      .def("__repr__",
           [](const Duplicated& pair) { return nb::str("Duplicated({!r}, {!r})").format(pair.model, pair.grads); });
  bind_update(m);
}

}  // namespace optimisers::python
