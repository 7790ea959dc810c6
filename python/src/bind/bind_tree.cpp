// bind_tree.cpp: flattening models for Python: setup, trainables, destructure.
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <deque>

#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "state/pack.hpp"
#include "state/state.hpp"
#include "tree/classes.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// A model flattened once: what setup and destructure start from.
struct Model {
  nb::object model;
  Flattened flat;
  std::string call;  // it was made for
};

// The leaves that got a rule. Those that got None are values in the spec: no state, never touched.
struct Chosen {
  std::shared_ptr<const TreeSpec> spec;
  nb::list rules;
  std::vector<std::size_t> leaves;
};

Chosen chosen_leaves(const Model& m, const nb::list& rules, const nb::list& marks) {
  Chosen chosen;
  std::vector<bool> left_alone;
  for (std::size_t i = 0; i < m.flat.views.size(); ++i) {
    left_alone.push_back(rules[i].is_none());
    if (left_alone.back()) continue;
    chosen.leaves.push_back(i);
    chosen.rules.append(rules[i]);
  }
  chosen.spec = m.flat.spec;
  if (chosen.leaves.size() == left_alone.size() && nb::len(marks) == 0) return chosen;
  std::shared_ptr<TreeSpec> spec = m.flat.spec->without(left_alone);
  spec->take_marks(marks);
  chosen.spec = std::move(spec);
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

// A flat vector, and what its view is of.
struct Vector {
  ArrayView view;
  nb::object array;
};
Vector vector_of(nb::handle flat, const char* call) {
  Vector vector{{}, {}};
  Fault fault = read_any(flat.ptr(), vector.view, vector.array);
  if (fault == Fault::not_array && is_jax(flat.ptr())) {
    vector.array = jax_values(flat.ptr());
    fault = vector.array.is_valid() ? read_array(vector.array.ptr(), vector.view) : Fault::traced;
  }
  const std::string place = std::string(call) + ": the flat vector";
  if (fault != Fault::none) type_error(place + " " + fault_text(flat.ptr(), fault));
  if (vector.view.device != on_host) require_cuda(place);
  return vector;
}

void check_length(const ArrayView& view, std::int64_t size, const std::string& what) {
  if (view.ndim == 1 && view.shape[0] == size) return;
  value_error(what + " has shape " + shape_text({view.shape, static_cast<std::size_t>(view.ndim)}) +
              ", the layout has " + shape_text(std::span(&size, 1)));
}

std::unique_ptr<State> new_state(const Model& m, const nb::list& rules, const nb::list& marks) {
  check_values(m.flat, m.call.c_str());
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
  return std::make_unique<State>(chosen.spec, std::move(leaves), std::move(chosen.rules), views, std::nullopt);
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
  return std::make_unique<State>(chosen.spec, std::move(leaves), std::move(chosen.rules), std::span(&view, 1),
                                 std::move(layout));
}

// The model with other leaves: for destructure's re(flat).
nb::object rebuilt(const Model& m, const nb::list& new_leaves) {
  Objects objects(*m.flat.spec);
  walk_model(*m.flat.spec, 0, m.model.ptr(), "destructure", objects);
  std::vector<nb::object> leaves;
  for (nb::handle leaf : new_leaves) leaves.push_back(nb::borrow(leaf));
  return rebuild(*m.flat.spec, 0, objects.all(), leaves);
}

nb::list segments_of(const Model& m, nb::handle flat) {
  const Vector vector = vector_of(flat, "re");
  const ArrayView& view = vector.view;
  nb::list leaves;
  std::int64_t begin = 0;
  for (const ArrayView& a : m.flat.views) {
    const std::span<const std::int64_t> shape(a.shape, static_cast<std::size_t>(a.ndim));
    leaves.append(view.device == on_host ? numpy_segment(flat.ptr(), view, begin, shape)
                                         : device_segment(vector.array, view, begin, shape));
    begin += size_of(a);
  }
  return leaves;
}

// What a companion tree has at each place of the model; None where it has nothing.
nb::list companion(const Model& m, nb::handle tree, const std::string& call, const std::string& what) {
  const TreeSpec& spec = *m.flat.spec;
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), call.c_str(), objects, what.c_str());
  nb::list found;
  for (const Place& place : spec.places)
    found.append(objects[place.node] ? nb::borrow(objects[place.node]) : nb::none());
  return found;
}

nb::object selected_part(const Model& m, nb::handle tree) {
  Objects objects(*m.flat.spec);
  walk_gradients(*m.flat.spec, 0, tree.ptr(), "select_trainables", objects, "tree");
  return selected(*m.flat.spec, objects.all());
}

void check_packed(const TreeSpec& spec, std::uint32_t node, const ArrayView& dx, const ArrayView& leaf,
                  nb::handle tree) {
  const auto shape = [](const ArrayView& a) { return std::span(a.shape, static_cast<std::size_t>(a.ndim)); };
  const std::string place = "flatten: array at \"" + spec.text(node) + "\" ";
  if (!std::ranges::equal(shape(dx), shape(leaf)))
    value_error(place + "has shape " + shape_text(shape(dx)) + ", the model's has " + shape_text(shape(leaf)));
  if (is_complex_dtype(dx.dtype) && !is_complex_dtype(leaf.dtype))
    value_error(place + "is " + dtype_text(tree.ptr()) + ", the model's is real; take its real part");
  if (dx.device != leaf.device) value_error(place + "is on another device than the model's; move it there");
}

Streams streams_of(nb::handle array, const ArrayView& view) {
  Streams streams;
  streams.add(view.device, library_of(array.ptr()));
  return streams;
}

// Where each leaf goes, zeros until something is found for it.
std::vector<FlatPart> empty_segments(const Model& m) {
  std::vector<FlatPart> segments;
  std::int64_t begin = 0;
  for (const ArrayView& a : m.flat.views) {
    segments.push_back({{}, begin, size_of(a)});
    begin += size_of(a);
  }
  return segments;
}

// The model's own arrays, tied ones once.
void pack_model(const Model& m, nb::handle out) {
  const Vector vector = vector_of(out, "destructure");
  std::vector<FlatPart> segments = empty_segments(m);
  for (std::size_t i = 0; i < segments.size(); ++i) segments[i].array = m.flat.views[i];
  const OnStreams on(streams_of(out, vector.view), {});
  Unlocked unlocked;
  pack(segments, vector.view);
}

// A vector the caller gave to be written.
void check_out(const ArrayView& out, nb::handle given, const std::string& dtype) {
  const std::string place = "flatten: out ";
  if (dtype_text(given.ptr()) != dtype)
    type_error(place + "has dtype " + dtype_text(given.ptr()) + ", the packed vector has " + dtype);
  if (!out.writable) value_error(place + "is read-only; pass a vector that may be written, or none");
  if (!is_contiguous(out)) value_error(place + "has gaps between its elements; pass a contiguous vector, or none");
}

// Only what shares an element is in the way: a strided array may lie around a vector.
void check_apart(const ArrayView& out, const ArrayView& array, const std::string& path) {
  const Extent a = extent_of(out), b = extent_of(array);
  if (out.device != array.device || a.lo >= b.hi || b.lo >= a.hi) return;
  const ArrayView both[] = {out, array};
  if (find_aliases(both, [&](std::size_t i) { return i == 0 ? "out" : path; }, "flatten")[1].first == 0)
    value_error("flatten: out has the memory of the array at \"" + path + "\"; pass another vector, or none");
}

// `given_dtype`: of an `out` that is the caller's; empty: it was made for this call.
void pack_tree(const Model& m, nb::handle tree, nb::handle out, const std::string& given_dtype) {
  const TreeSpec& spec = *m.flat.spec;
  const Vector vector = vector_of(out, given_dtype.empty() ? "flatten" : "flatten: out");
  if (!given_dtype.empty()) check_out(vector.view, out, given_dtype);
  const OnStreams on(streams_of(out, vector.view), {});
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), "flatten", objects);
  std::vector<FlatPart> segments = empty_segments(m);
  check_length(vector.view, segments.empty() ? 0 : segments.back().begin + segments.back().size,
               given_dtype.empty() ? "flatten: the flat vector" : "flatten: out");
  std::deque<std::vector<std::int64_t>> memory;  // of permuted views
  for (const Place& place : spec.places) {
    ArrayView view;
    if (!read_gradient(spec, place.node, objects, "flatten", view)) continue;
    if (static_cast<std::size_t>(view.ndim) == place.axes.size() && view.ndim > 0)
      permute_axes(view, place.axes, memory.emplace_back(2 * place.axes.size()).data());
    check_packed(spec, place.node, view, m.flat.views[place.leaf], objects[place.node]);
    if (!given_dtype.empty()) check_apart(vector.view, view, spec.text(place.node));
    FlatPart& segment = segments[place.leaf];
    if (segment.array.present) segment.further.push_back(view);
    else segment.array = view;
  }
  {
    Unlocked unlocked;
    pack(segments, vector.view);
  }
  if (is_tensor(out.ptr()) && !given_dtype.empty()) {
    nb::list written;
    written.append(out);
    bump_versions(written);
  }
}

// The tree's object for each place of the model that has one: (leaf, axes of the leaf there, object).
nb::list gathered(const Model& m, nb::handle tree) {
  const TreeSpec& spec = *m.flat.spec;
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), "flatten", objects);
  nb::list found;
  for (const Place& place : spec.places) {
    if (objects[place.node] == nullptr) continue;
    nb::list axes;
    for (int axis : place.axes) axes.append(axis);
    found.append(nb::make_tuple(place.leaf, nb::tuple(axes), nb::borrow(objects[place.node])));
  }
  return found;
}

// A model that holds its own `re` is a cycle only the garbage collector can find.
int traverse_model(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  const Model* m = nb::inst_ptr<Model>(self);
  Py_VISIT(m->model.ptr());
  for (const nb::object& array : m->flat.arrays) Py_VISIT(array.ptr());
  return 0;
}
int clear_model(PyObject* self) {
  Model* m = nb::inst_ptr<Model>(self);
  nb::object model = std::move(m->model);
  std::vector<nb::object> arrays = std::move(m->flat.arrays);
  m->flat.views.clear();
  return 0;
}
PyType_Slot model_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_model)},
                             {Py_tp_clear, reinterpret_cast<void*>(clear_model)},
                             {0, nullptr}};

}  // namespace

void bind_tree(nb::module_& m) {
  nb::class_<Model>(m, "Model", nb::type_slots(model_slots))
      .def(
          "__init__",
          [](Model* self, nb::object model, const std::string& call) {
            if (PyDict_GetItemString(PyImport_GetModuleDict(), "jax") != nullptr) ask_again();  // its registry grows
            Flattened flat = flatten(model, call.c_str());
            new (self) Model{std::move(model), std::move(flat), call};
          },
          nb::arg("model").none(), nb::arg("call"))
      .def_ro("model", &Model::model)
      .def("leaves", &leaves_of)
      .def("infos", &infos_of)
      .def("leaf_count", [](const Model& self) { return self.flat.arrays.size(); })
      .def("size",
           [](const Model& self) {
             std::int64_t n = 0;
             for (const ArrayView& a : self.flat.views) n += size_of(a);
             return n;
           })
      .def("state", &new_state, nb::arg("rules"), nb::arg("marks") = nb::list())
      .def("segmented_state", &new_segmented_state, nb::arg("rules"), nb::arg("flat"), nb::arg("marks") = nb::list())
      .def("places", &places_of)
      .def("companion", &companion, nb::arg("tree").none(), nb::arg("call"), nb::arg("what"))
      .def("selected", &selected_part, nb::arg("tree").none())
      .def("rebuilt", &rebuilt)
      .def("segments", &segments_of)
      .def("gathered", &gathered, nb::arg("tree").none())
      .def("pack_model", &pack_model)
      .def("pack", &pack_tree, nb::arg("tree").none(), nb::arg("out"), nb::arg("given_dtype"));
}

}  // namespace optimisers::python
