// bind_tree.cpp: flattening models for Python: setup, trainables, destructure.
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "bind.hpp"
#include "errors.hpp"
#include "pack.hpp"
#include "state.hpp"

namespace optimisers::python {
namespace {

// A model flattened once: what setup and destructure start from.
struct Model {
  nb::object model;
  Flattened flat;
};

std::vector<LeafArray> leaf_arrays(const Flattened& flat) {
  std::vector<LeafArray> leaves;
  for (std::size_t i = 0; i < flat.views.size(); ++i) {
    const ArrayView& a = flat.views[i];
    leaves.push_back({{a.shape, a.shape + a.ndim}, a.dtype,
                      is_numpy(flat.arrays[i].ptr()) ? Library::numpy : Library::exchange});
  }
  return leaves;
}

nb::list leaves_of(const Model& m) {
  nb::list leaves;
  for (std::size_t i = 0; i < m.flat.arrays.size(); ++i)
    leaves.append(nb::make_tuple(m.flat.spec->path(m.flat.spec->places[m.flat.spec->first_place[i]].node),
                                 m.flat.arrays[i]));
  return leaves;
}

ArrayView vector_view(nb::handle flat, const char* call) {
  ArrayView view;
  const Fault fault = read_array(flat.ptr(), view);
  if (fault != Fault::none) type_error(std::string(call) + ": the flat vector " + fault_text(flat.ptr(), fault));
  return view;
}

void check_length(const ArrayView& view, std::int64_t size, const char* call) {
  if (view.ndim == 1 && view.shape[0] == size) return;
  value_error(std::string(call) + ": the flat vector has shape " +
              shape_text({view.shape, static_cast<std::size_t>(view.ndim)}) + ", the layout has " +
              shape_text(std::span(&size, 1)));
}

std::unique_ptr<State> new_state(const Model& m, nb::list rules) {
  return std::make_unique<State>(m.flat.spec, leaf_arrays(m.flat), std::move(rules), m.flat.views, std::nullopt);
}

std::unique_ptr<State> new_segmented_state(const Model& m, nb::list rules, nb::handle flat) {
  const ArrayView view = vector_view(flat, "setup");
  if (!is_trainable(view.dtype))
    type_error("setup: the flat vector has dtype " + dtype_text(flat.ptr()) + ", expected a real or complex float");
  Layout layout = layout_of(m.flat, view.dtype);
  check_length(view, layout.size, "setup");
  std::vector<LeafArray> leaves = leaf_arrays(m.flat);
  for (LeafArray& leaf : leaves) {
    leaf.dtype = view.dtype;
    leaf.library = is_numpy(flat.ptr()) ? Library::numpy : Library::exchange;
  }
  return std::make_unique<State>(m.flat.spec, std::move(leaves), std::move(rules), std::span(&view, 1), std::move(layout));
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
  const ArrayView view = vector_view(flat, "re");
  nb::list leaves;
  std::int64_t begin = 0;
  for (const ArrayView& a : m.flat.views) {
    leaves.append(numpy_segment(flat.ptr(), view, begin, {a.shape, static_cast<std::size_t>(a.ndim)}));
    begin += size_of(a);
  }
  return leaves;
}

void check_packed(const TreeSpec& spec, std::uint32_t node, const ArrayView& dx, const ArrayView& leaf, nb::handle tree) {
  const auto shape = [](const ArrayView& a) { return std::span(a.shape, static_cast<std::size_t>(a.ndim)); };
  const std::string place = "flatten: array at \"" + spec.text(node) + "\" ";
  if (!std::ranges::equal(shape(dx), shape(leaf)))
    value_error(place + "has shape " + shape_text(shape(dx)) + ", the model's has " + shape_text(shape(leaf)));
  if (is_complex_dtype(dx.dtype) && !is_complex_dtype(leaf.dtype))
    value_error(place + "is " + dtype_text(tree.ptr()) + ", the model's is real; take its real part");
}

// Shape and strides of a tied place in the order of the leaf's axes.
struct Transposed {
  std::vector<std::int64_t> shape, strides;
};

ArrayView on_leaf_axes(const ArrayView& view, const std::vector<int>& axes, Transposed& memory) {
  if (axes.empty() || view.ndim != static_cast<std::int32_t>(axes.size())) return view;
  ArrayView out = view;
  std::vector<std::int64_t> packed(axes.size());
  std::int64_t next = size_of(view.dtype);
  for (std::size_t i = axes.size(); i-- > 0;) {
    packed[i] = view.strides ? view.strides[i] * view.stride_unit : next;
    next *= view.shape[i];
  }
  for (int axis : axes) {
    memory.shape.push_back(view.shape[axis]);
    memory.strides.push_back(packed[static_cast<std::size_t>(axis)]);
  }
  out.shape = memory.shape.data();
  out.strides = memory.strides.data();
  out.stride_unit = 1;
  return out;
}

// The model's own arrays, tied ones once.
void pack_model(const Model& m, nb::handle out) {
  const ArrayView vector = vector_view(out, "destructure");
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  for (const ArrayView& a : m.flat.views) {
    segments.push_back({a, begin, size_of(a)});
    begin += size_of(a);
  }
  check_length(vector, begin, "destructure");
  nb::gil_scoped_release release;
  pack(segments, vector.data, vector.dtype);
}

void pack_tree(const Model& m, nb::handle tree, nb::handle out) {
  const TreeSpec& spec = *m.flat.spec;
  const ArrayView vector = vector_view(out, "flatten");
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), "flatten", objects);
  std::vector<std::int64_t> begins;
  std::int64_t size = 0;
  for (const ArrayView& a : m.flat.views) {
    begins.push_back(size);
    size += size_of(a);
  }
  check_length(vector, size, "flatten");
  std::vector<Segment> segments, further;
  std::vector<Transposed> memory(spec.places.size());
  std::vector<bool> seen(spec.leaf_count());
  for (std::uint32_t i = 0; i < spec.leaf_count(); ++i) segments.push_back({{}, begins[i], size_of(m.flat.views[i])});
  for (std::size_t p = 0; p < spec.places.size(); ++p) {
    const Place& place = spec.places[p];
    if (objects[place.node] == nullptr) continue;
    ArrayView view;
    Fault fault = read_array(objects[place.node], view);
    if (fault != Fault::none) {
      nb::object other = materialised(objects[place.node], fault);
      if (!other.is_valid() || read_array(other.ptr(), view) != Fault::none)
        type_error("flatten: array at \"" + spec.text(place.node) + "\" " + fault_text(objects[place.node], fault));
      objects.replace(place.node, std::move(other));
    }
    view = on_leaf_axes(view, place.axes, memory[p]);
    check_packed(spec, place.node, view, m.flat.views[place.leaf], objects[place.node]);
    Segment& segment = segments[place.leaf];
    if (!seen[place.leaf]) segment.array = view;
    else further.push_back({view, segment.begin, segment.size, true});
    seen[place.leaf] = true;
  }
  segments.insert(segments.end(), further.begin(), further.end());
  nb::gil_scoped_release release;
  pack(segments, vector.data, vector.dtype);
}

}  // namespace

void bind_tree(nb::module_& m) {
  nb::class_<Model>(m, "Model")
      .def("__init__", [](Model* self, nb::object model, const std::string& call) {
        Flattened flat = flatten(model, call.c_str());
        new (self) Model{std::move(model), std::move(flat)};
      }, nb::arg("model").none(), nb::arg("call"))
      .def_ro("model", &Model::model)
      .def("leaves", &leaves_of)
      .def("leaf_count", [](const Model& self) { return self.flat.arrays.size(); })
      .def("size", [](const Model& self) {
        std::int64_t n = 0;
        for (const ArrayView& a : self.flat.views) n += size_of(a);
        return n;
      })
      .def("state", &new_state)
      .def("segmented_state", &new_segmented_state)
      .def("rebuilt", &rebuilt)
      .def("segments", &segments_of)
      .def("pack_model", &pack_model)
      .def("pack", &pack_tree, nb::arg("tree").none(), nb::arg("out"));
}

}  // namespace optimisers::python
