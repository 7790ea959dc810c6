// bind_state.cpp: State: adjust, steps that copy, its tree; update_, which has to be fast, is in bind_update.cpp.
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
    FieldInfo named = *field;
    if (a.scales) named.name = "scale";
    a.value = value_from(change[2], "adjust", named);
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
}  // namespace

void bind_state(nb::module_& m) {
  nb::class_<State> state(m, "State", nb::is_weak_referenceable(),
                          nb::type_slots(collected<traverse_state, clear_state>));
  state.def("count_into", &State::count_into)
      .def("adjust", &adjust)
      .def("set_frozen", &set_frozen)
      .def("copy", &copied)
      .def("wait", &State::wait)
      .def("update_copy", &update_copy, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none())
      .def("flush", &flush, nb::arg(), nb::arg().none())
      .def("flush_copy", &flush_copy, nb::arg(), nb::arg().none())
      .def("skipped", [](State& s) { return s.seen().skipped; })
      .def("norm", [](State& s) { return s.seen().norm; })
      .def("apply", &apply, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none())
      .def("replace_rules", [](State& s, const std::vector<std::uint32_t>& leaves,
                               const nb::list& rules) { s.replace_rules(leaves, rules); })
      .def_prop_ro("revision", &State::revision)
      .def("has_layout", &State::has_layout)
      .def("segments", [](State& s) { return s.layout() ? s.layout()->offsets : std::vector<std::int64_t>(); })
      .def("take_over", &take_over)
      .def("paths", &paths_of)
      .def("left_alone", &left_alone)
      .def_prop_rw(
          "setup_rule", [](State& s) { return s.setup_rule(); },
          [](State& s, nb::object rule) { s.setup_rule() = std::move(rule); }, nb::arg("rule").none())
      .def_prop_ro("rules", [](State& s) { return nb::list(s.rules()); })
      .def("__deepcopy__", [](State& s, nb::handle) { return copied(s); })
      .def("pickled", &State::pickled);
  bind_leaves(state);
  bind_nodes(state);
  m.def("unpickled_state", &State::unpickled);
  bind_handles(m);
  bind_update(m);
}

}  // namespace optimisers::python
