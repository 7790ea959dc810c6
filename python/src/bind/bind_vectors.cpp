// bind_vectors.cpp: models and their gradients as flat vectors, and back.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <deque>

#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "arrays/lent.hpp"
#include "arrays/streams.hpp"
#include "bind/model.hpp"
#include "errors.hpp"
#include "state/pack.hpp"
#include "unlocked.hpp"

namespace optimisers::python {

Vector vector_of(nb::handle flat, const char* call) {
  Vector vector{{}, {}};
  Fault fault = read_any(flat.ptr(), vector.view, vector.array);
  if (fault == Fault::not_array && is_jax(flat.ptr())) {
    vector.array = jax_values(flat.ptr());
    fault = vector.array.is_valid() ? read_array(vector.array.ptr(), vector.view) : jax_fault(flat.ptr());
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

std::int64_t vector_size(const Model& m) {
  std::int64_t n = 0;
  for (const ArrayView& a : m.flat.views) n += size_of(a);
  return n;
}

namespace {

nb::list segments_of(const Model& m, nb::handle flat) {
  const Vector vector = vector_of(flat, "re");
  const ArrayView& view = vector.view;
  check_length(view, vector_size(m), "re: the flat vector");
  if (view.device == on_host && !is_numpy(vector.array.ptr()))
    type_error("re: expected a NumPy array, got a " + type_name(flat.ptr()));
  nb::list leaves;
  std::int64_t begin = 0;
  for (const ArrayView& a : m.flat.views) {
    const std::span<const std::int64_t> shape(a.shape, static_cast<std::size_t>(a.ndim));
    leaves.append(view.device == on_host ? numpy_segment(vector.array.ptr(), view, begin, shape)
                                         : device_segment(vector.array, view, begin, shape));
    begin += size_of(a);
  }
  return leaves;
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

// What is to be packed into.
void check_written(const ArrayView& out, const std::string& what) {
  if (!is_trainable(out.dtype)) type_error(what + " has a dtype of integers; expected a real or complex float");
  if (!out.writable) value_error(what + " is read-only; pass a vector that may be written, or none");
  if (!is_contiguous(out)) value_error(what + " has gaps between its elements; pass a contiguous vector, or none");
}

// The model's own arrays, tied ones once.
void pack_model(const Model& m, nb::handle out) {
  m.check_memory();
  const Vector vector = vector_of(out, "destructure");
  check_length(vector.view, vector_size(m), "destructure: the flat vector");
  check_written(vector.view, "destructure: the flat vector");
  std::vector<FlatPart> segments = empty_segments(m);
  Pins pins;
  const bool others = others_may_run();
  for (std::size_t i = 0; i < segments.size(); ++i) {
    segments[i].array = m.flat.views[i];
    if (others) pins.pin(m.flat.arrays[i].ptr(), segments[i].array);
  }
  const OnStreams on(streams_of(out, vector.view), {});
  Lent lent;
  if (vector.view.device != on_host) {
    follow_imported(m.flat.read_from);
    lent.add(vector.array.ptr());
    for (const std::uint32_t p : m.flat.spec->first_place) lent.add(m.flat.read_from[p].ptr());
    lent.follow(on.streams());
  }
  {
    Unlocked unlocked;
    pack(segments, vector.view);
  }
  lent.finish(on.streams(), {});
}

// A vector the caller gave to be written.
void check_out(const ArrayView& out, nb::handle given, const std::string& dtype) {
  const std::string place = "flatten: out ";
  if (dtype_text(given.ptr()) != dtype)
    type_error(place + "has dtype " + dtype_text(given.ptr()) + ", the packed vector has " + dtype);
  check_written(out, "flatten: out");
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
  else check_written(vector.view, "flatten: the flat vector");
  const OnStreams on(streams_of(out, vector.view), {});
  Objects objects(spec);
  walk_gradients(spec, 0, tree.ptr(), "flatten", objects, "array", Entries::arrays);
  std::vector<FlatPart> segments = empty_segments(m);
  check_length(vector.view, vector_size(m), given_dtype.empty() ? "flatten: the flat vector" : "flatten: out");
  std::deque<std::vector<std::int64_t>> memory;  // of permuted views
  Pins pins;
  Lent lent;
  if (vector.view.device != on_host) lent.add(vector.array.ptr());
  const bool others = others_may_run();
  for (const Place& place : spec.places) {
    ArrayView view;
    if (!read_gradient(spec, place.node, objects, "flatten", view)) continue;
    if (others) pins.pin(objects[place.node], view);
    if (view.device != on_host) lent.add(objects[place.node]);
    if (static_cast<std::size_t>(view.ndim) == place.axes.size() && view.ndim > 0)
      permute_axes(view, place.axes, memory.emplace_back(2 * place.axes.size()).data());
    check_packed(spec, place.node, view, m.flat.views[place.leaf], objects[place.node]);
    if (!given_dtype.empty()) check_apart(vector.view, view, spec.text(place.node));
    FlatPart& segment = segments[place.leaf];
    if (segment.array.present) segment.further.push_back(view);
    else segment.array = view;
  }
  lent.follow(on.streams());
  {
    Unlocked unlocked;
    pack(segments, vector.view);
  }
  lent.finish(on.streams(), {});
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
  walk_gradients(spec, 0, tree.ptr(), "flatten", objects, "array", Entries::arrays);
  nb::list found;
  for (const Place& place : spec.places) {
    if (objects[place.node] == nullptr) continue;
    nb::list axes;
    for (int axis : place.axes) axes.append(axis);
    found.append(nb::make_tuple(place.leaf, nb::tuple(axes), nb::borrow(objects[place.node])));
  }
  return found;
}

}  // namespace

void bind_vectors(nb::class_<Model>& cls) {
  cls.def("size", &vector_size)
      .def("segments", &segments_of)
      .def("gathered", &gathered, nb::arg("tree").none())
      .def("pack_model", &pack_model)
      .def("pack", &pack_tree, nb::arg("tree").none(), nb::arg("out"), nb::arg("given_dtype"));
}

}  // namespace optimisers::python
