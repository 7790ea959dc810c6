// bind_tree.cpp: flattening models for Python: setup, trainables.
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>

#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "bind/model.hpp"
#include "errors.hpp"
#include "state/state.hpp"
#include "tree/classes.hpp"
#include "tree/torch_module.hpp"

namespace optimisers::python {

Model::Model(nb::object m, Flattened f, std::string c) : model(std::move(m)), flat(std::move(f)), call(std::move(c)) {
  for (ArrayView& view : flat.views) pins.keep_outline(view);
}

void Model::check_memory() const {
  for (std::size_t i = 0; i < flat.views.size(); ++i)
    if (flat.views[i].device == on_host && !still_has(flat.read_from[flat.spec->first_place[i]].ptr(), flat.views[i]))
      value_error(call + ": array at \"" + flat.spec->text(flat.spec->leaf_node(i)) +
                  "\" was given other memory or another size in the middle of this call");
}

namespace {

// The leaves that got a rule. Those that got None are values in the spec: no state, never touched.
struct Chosen {
  std::unique_ptr<TreeSpec> spec;
  nb::list rules;
  std::vector<std::size_t> leaves;
};

void check_count(const Model& m, const char* what, std::size_t count) {
  if (count != m.flat.views.size())
    value_error("the model has " + std::to_string(m.flat.views.size()) + " leaves, got " + std::to_string(count) + " " +
                what);
}

Chosen chosen_leaves(const Model& m, const nb::list& rules, const nb::list& marks) {
  Chosen chosen;
  check_count(m, "rules", rules.size());
  std::vector<bool> left_alone;
  for (std::size_t i = 0; i < m.flat.views.size(); ++i) {
    left_alone.push_back(rules[i].is_none());
    if (left_alone.back()) continue;
    chosen.leaves.push_back(i);
    chosen.rules.append(rules[i]);
  }
  const bool all = chosen.leaves.size() == left_alone.size();
  chosen.spec = all ? m.flat.spec->copy() : m.flat.spec->without(left_alone);
  chosen.spec->take_marks(marks);
  return chosen;
}

std::vector<LeafArray> leaf_arrays(const Flattened& flat, const std::vector<std::size_t>& which) {
  std::vector<LeafArray> leaves;
  for (std::size_t i : which) {
    const ArrayView& a = flat.views[i];
    leaves.push_back({{a.shape, a.shape + a.ndim}, a.dtype, library_of(flat.arrays[i].ptr()), a.device});
  }
  return leaves;
}

nb::list leaves_of(const Model& m) {
  nb::list leaves;
  for (std::size_t i = 0; i < m.flat.arrays.size(); ++i)
    leaves.append(nb::make_tuple(m.flat.spec->path(m.flat.spec->leaf_node(i)), m.flat.arrays[i]));
  return leaves;
}

// (shape, dtype, library, device) of each leaf; the host is device -1.
nb::list infos_of(const Model& m) {
  nb::list infos;
  for (std::size_t i = 0; i < m.flat.views.size(); ++i) {
    const ArrayView& a = m.flat.views[i];
    nb::list shape;
    for (int axis = 0; axis < a.ndim; ++axis) shape.append(a.shape[axis]);
    infos.append(nb::make_tuple(nb::tuple(shape), nb::str(std::string(name_of(a.dtype)).c_str()),
                                name_of(library_of(m.flat.arrays[i].ptr())), static_cast<int>(a.device)));
  }
  return infos;
}

// (leaf, path, array, axes) of each place: tied leaves have several. Axis i of the leaf is axis axes[i] there.
nb::list places_of(const Model& m) {
  nb::list places;
  const TreeSpec& spec = *m.flat.spec;
  for (std::size_t p = 0; p < spec.places.size(); ++p) {
    nb::list axes;
    for (int axis : spec.places[p].axes) axes.append(axis);
    places.append(
        nb::make_tuple(spec.places[p].leaf, spec.path(spec.places[p].node), m.flat.at_places[p], nb::tuple(axes)));
  }
  return places;
}

std::unique_ptr<State> new_state(const Model& m, const nb::list& rules, const nb::list& marks) {
  check_values(m.flat, m.call.c_str());
  m.check_memory();
  Chosen chosen = chosen_leaves(m, rules, marks);
  std::vector<ArrayView> views;
  views.reserve(chosen.leaves.size());
  for (std::size_t i : chosen.leaves) views.push_back(m.flat.views[i]);
  for (std::size_t i : chosen.leaves)
    if (m.flat.views[i].device != on_host)
      require_cuda("setup: array at \"" + m.flat.spec->text(m.flat.spec->leaf_node(i)) + "\"");
  std::vector<LeafArray> leaves = leaf_arrays(m.flat, chosen.leaves);
  const OnStreams on(streams_of(leaves), {});
  follow_imported(m.flat.read_from);
  return std::make_unique<State>(std::move(chosen.spec), std::move(leaves), std::move(chosen.rules), views,
                                 std::nullopt);
}

std::unique_ptr<State> new_segmented_state(const Model& m, const nb::list& rules, nb::handle flat,
                                           const nb::list& marks) {
  const Vector vector = vector_of(flat, "setup");
  const ArrayView& view = vector.view;
  if (!is_trainable(view.dtype))
    type_error("setup: the flat vector has dtype " + dtype_text(flat.ptr()) + ", expected a real or complex float");
  const Layout whole = layout_of(m.flat, view.dtype);
  check_length(view, whole.size, "setup: the flat vector");
  Chosen chosen = chosen_leaves(m, rules, marks);
  Layout layout{whole.dtype, whole.size, {}, {}, {}};
  for (std::size_t i : chosen.leaves) {
    layout.offsets.push_back(whole.offsets[i]);
    layout.shapes.push_back(whole.shapes[i]);
    layout.strides.push_back(whole.strides[i]);
  }
  std::vector<LeafArray> leaves = leaf_arrays(m.flat, chosen.leaves);
  for (LeafArray& leaf : leaves) {
    leaf.dtype = view.dtype;
    leaf.library = library_of(flat.ptr());
    leaf.device = view.device;
  }
  const OnStreams on(streams_of(leaves), {});
  follow_imported({&vector.array, 1});
  return std::make_unique<State>(std::move(chosen.spec), std::move(leaves), std::move(chosen.rules),
                                 std::span(&view, 1), std::move(layout));
}

// The model with other leaves.
nb::object rebuilt(const Model& m, const nb::list& new_leaves) {
  check_count(m, "arrays", new_leaves.size());
  Objects objects(*m.flat.spec);
  walk_model(*m.flat.spec, 0, m.model.ptr(), m.call.c_str(), objects);
  std::vector<nb::object> leaves;
  for (nb::handle leaf : new_leaves) leaves.push_back(nb::borrow(leaf));
  return rebuild(*m.flat.spec, 0, objects.all(), leaves, Untrained::shared);
}

// What a companion tree has at each place of the model; None where it has nothing.
nb::list companion(const Model& m, nb::handle tree, const std::string& call, const std::string& what) {
  const TreeSpec& spec = *m.flat.spec;
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), call.c_str(), objects, what.c_str(), Entries::arrays);
  nb::list found;
  for (const Place& place : spec.places)
    found.append(objects[place.node] ? nb::borrow(objects[place.node]) : nb::none());
  return found;
}

nb::object selected_part(const Model& m, nb::handle tree) {
  Objects objects(*m.flat.spec);
  walk_gradients(*m.flat.spec, 0, tree.ptr(), "select_trainables", objects, "tree", Entries::any);
  return selected(*m.flat.spec, objects.all());
}

// A model that holds its own `re` is a cycle only the garbage collector can find.
int traverse_model(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  const Model* m = nb::inst_ptr<Model>(self);
  Py_VISIT(m->model.ptr());
  for (const std::vector<nb::object>* objects : {&m->flat.arrays, &m->flat.at_places, &m->flat.read_from})
    for (const nb::object& object : *objects) Py_VISIT(object.ptr());
  return m->flat.spec ? m->flat.spec->visit_objects(visit, arg) : 0;
}
int clear_model(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  Model* m = nb::inst_ptr<Model>(self);  // it becomes the model None
  const nb::object model = std::exchange(m->model, nb::none());
  const Flattened gone = std::exchange(m->flat, flatten(nb::none(), "collected"));
  return 0;
}
PyType_Slot model_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_model)},
                             {Py_tp_clear, reinterpret_cast<void*>(clear_model)},
                             {0, nullptr}};

}  // namespace

void bind_tree(nb::module_& m) {
  nb::class_<Model> model(m, "Model", nb::type_slots(model_slots));
  model
      .def(
          "__init__",
          [](Model* self, nb::object model, const std::string& call, bool by_insertion) {
            if (PyDict_GetItemString(PyImport_GetModuleDict(), "jax") != nullptr) ask_again();  // its registry grows
            Flattened flat =
                flatten(model, call.c_str(), Ties::found, by_insertion ? Order::insertion : Order::of_library);
            new (self) Model(std::move(model), std::move(flat), call);
          },
          nb::arg("model").none(), nb::arg("call"), nb::arg("by_insertion") = false)
      .def_ro("model", &Model::model)
      .def("leaves", &leaves_of)
      .def("infos", &infos_of)
      .def("leaf_count", [](const Model& self) { return self.flat.arrays.size(); })
      .def("state", &new_state, nb::arg("rules"), nb::arg("marks") = nb::list())
      .def("segmented_state", &new_segmented_state, nb::arg("rules"), nb::arg("flat"), nb::arg("marks") = nb::list())
      .def("places", &places_of)
      .def("companion", &companion, nb::arg("tree").none(), nb::arg("call"), nb::arg("what"))
      .def("selected", &selected_part, nb::arg("tree").none())
      .def("rebuilt", &rebuilt);
  bind_vectors(model);
}

}  // namespace optimisers::python
