// bind_walks.cpp: walks over models outside any state: children, companions, norm, lerp.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <set>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "arrays/lent.hpp"
#include "arrays/pins.hpp"
#include "arrays/streams.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "optimisers/sweeps.hpp"
#include "text.hpp"
#include "tree/classes.hpp"
#include "tree/walk.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// (key, child, trained) of a container, with or without asking the user's `trainable`; None for anything else.
nb::object children_list(nb::handle object, bool overridden) {
  const Kind kind = kind_of(object.ptr());
  if (!is_container(kind)) return nb::none();
  std::vector<Child> children;
  children_of(object.ptr(), kind, children);
  if (overridden) mark_trained(object.ptr(), kind, children, "trainable");
  nb::list out;
  for (std::size_t i = 0; i < children.size(); ++i) {
    const Child& child = children[i];
    out.append(nb::make_tuple(child.key.is_valid() ? child.key : nb::object(nb::int_(i)), child.value, child.trained));
  }
  return out;
}

// Two arrays are the same when their elements are, in whatever order of axes.
using Fingerprint = std::pair<const std::byte*, std::vector<std::pair<std::int64_t, std::int64_t>>>;
Fingerprint fingerprint(const ArrayView& a) {
  Fingerprint print{a.data, {{static_cast<std::int64_t>(a.dtype), 0}}};
  std::int64_t next = size_of(a.dtype);
  for (int i = a.ndim - 1; i >= 0; --i) {
    if (a.shape[i] != 1) print.second.emplace_back(a.strides ? a.strides[i] * a.stride_unit : next, a.shape[i]);
    next *= a.shape[i];
  }
  std::sort(print.second.begin() + 1, print.second.end());
  return print;
}

// Of the devices the arrays are on.
Streams streams_of(const Flattened& flat, const char* call) {
  Streams streams;
  for (std::size_t i = 0; i < flat.views.size(); ++i) {
    if (flat.views[i].device == on_host) continue;
    require_cuda(std::string(call) + ": an array");
    streams.add(flat.views[i].device, library_of(flat.arrays[i].ptr()));
  }
  return streams;
}

Lent lent_by(const Flattened& flat, const Streams& streams) {
  Lent lent;
  if (streams.empty()) return lent;
  for (const nb::object& object : flat.read_from) lent.add(object.ptr());
  return lent;
}

// For a call that lets other threads run meanwhile.
void pin(Pins& pins, Flattened& flat) {
  for (std::size_t i = 0; i < flat.views.size(); ++i) pins.pin(flat.arrays[i].ptr(), flat.views[i]);
}

double number_from(nb::handle object, const char* what) {
  PyObject* o = object.ptr();
  const bool numeric = !PyBool_Check(o) && PyNumber_Check(o);
  const double number = numeric ? PyFloat_AsDouble(o) : 0;
  if (numeric && (number != -1 || !PyErr_Occurred())) return number;
  PyErr_Clear();
  type_error(std::string(what) + " must be a real number, got " + repr_text(object));
}

double norm_of(nb::handle tree, nb::handle order, nb::handle stream) {
  const double p = number_from(order, "norm: p");
  Flattened flat = flatten(tree, "norm", Ties::ignored);
  check_values(flat, "norm");
  const OnStreams on(streams_of(flat, "norm"), stream_from(stream));
  follow_imported(flat.read_from);
  lent_by(flat, on.streams()).follow(on.streams());
  Pins pins;
  if (others_may_run()) pin(pins, flat);
  std::set<Fingerprint> seen;
  std::vector<ArrayView> views;
  for (const ArrayView& view : flat.views)
    if (size_of(view) == 0 || seen.insert(fingerprint(view)).second) views.push_back(view);
  Unlocked unlocked;
  return norm(views, p);
}

// The arrays of `source` at the leaves of `target`.
class Sources {
 public:
  Sources(const Flattened& target, nb::handle source) : spec_(*target.spec), objects_(spec_) {
    walk_gradients(spec_, 0, source.ptr(), "lerp_", objects_, "source", Entries::arrays);
    views.resize(spec_.leaf_count());
    for (std::uint32_t p = 0; p < spec_.places.size(); ++p) {
      const Place& place = spec_.places[p];
      ArrayView view = read(place.node);
      const bool fits = view.ndim == static_cast<std::int32_t>(place.axes.size());
      if (fits) permute_axes(view, place.axes, permuted_.emplace_back(2 * place.axes.size()).data());
      if (spec_.first_place[place.leaf] == p) views[place.leaf] = view;
      else if (!is_tie(view, views[place.leaf]))
        value_error("lerp_: \"" + spec_.text(place.node) + "\" and \"" + spec_.text(spec_.leaf_node(place.leaf)) +
                    "\" are one array in the target, and two in the source");
    }
  }
  std::vector<ArrayView> views;

  void lend(Lent& lent) const {
    for (std::size_t i = 0; i < views.size(); ++i)
      if (views[i].device != on_host) lent.add(objects_[spec_.leaf_node(i)]);
  }
  void pin(Flattened& target) {
    python::pin(pins_, target);
    for (std::size_t i = 0; i < views.size(); ++i) pins_.pin(objects_[spec_.leaf_node(i)], views[i]);
  }

 private:
  ArrayView read(std::uint32_t node) {
    PyObject* object = objects_[node];
    if (object == nullptr) refuse_missing(node);
    ArrayView view;
    Fault fault = read_array(object, view);
    if (fault == Fault::none) return view;
    nb::object other = materialised(object, fault);
    if (!other.is_valid() || read_array(other.ptr(), view) != Fault::none)
      type_error("lerp_: source at \"" + spec_.text(node) + "\" " + fault_text(object, fault));
    objects_.replace(node, std::move(other));
    return view;
  }

  // Says what the source has instead, where it has anything there at all.
  [[noreturn]] void refuse_missing(std::uint32_t node) const {
    std::string text = "lerp_: source has nothing at \"" + spec_.text(node) + "\", target has an array";
    PyObject* parent = node == 0 ? nullptr : objects_[spec_.nodes[node].parent];
    if (nb::object known = children_list(nb::handle(parent ? parent : Py_None), false); !known.is_none()) {
      text += "; there are ";
      for (std::size_t i = 0; i < nb::len(known) && i < 10; ++i)
        text += (i ? ", " : "") + std::string(nb::repr(known[i][0]).c_str());
    }
    value_error(text);
  }

  const TreeSpec& spec_;
  Objects objects_;
  std::deque<std::vector<std::int64_t>> permuted_;
  Pins pins_;
};

// How many arrays it moved.
std::size_t lerp_trees(nb::handle target, nb::handle source, nb::handle weight, nb::handle stream) {
  const double w = number_from(weight, "lerp_: w");
  Flattened to = flatten(target, "lerp_");
  check_values(to, "lerp_");
  const std::optional<void*> given = stream_from(stream);
  const OnStreams on(streams_of(to, "lerp_"), given);
  follow_imported(to.read_from);
  Sources from(to, source);
  Lent lent = lent_by(to, on.streams());
  from.lend(lent);
  lent.follow(on.streams());
  if (others_may_run()) from.pin(to);
  nb::list tensors;
  for (const nb::object& array : to.arrays)
    if (is_tensor(array.ptr())) tensors.append(array);
  {
    Unlocked unlocked;
    lerp(to.views, from.views, w, [&](std::size_t i) {
      const nb::gil_scoped_acquire gil;
      return to.spec->text(to.spec->leaf_node(static_cast<std::uint32_t>(i)));
    });
  }
  lent.finish(on.streams(), given);
  if (nb::len(tensors) > 0) bump_versions(tensors);
  return to.arrays.size();
}

bool may_write(nb::handle x) {
  ArrayView view;
  nb::object kept;
  return read_any(x.ptr(), view, kept) == Fault::none && view.writable;
}

}  // namespace

void bind_walks(nb::module_& m) {
  m.def("children", &children_list, nb::arg("object").none(), nb::arg("overridden") = false);
  m.def("is_numeric", [](nb::handle x) { return is_leaf_array(x.ptr()); }, nb::arg("x").none());
  m.def("may_write", &may_write, nb::arg("x").none());
  m.def("norm", &norm_of, nb::arg("tree").none(), nb::arg("p").none(), nb::arg("stream").none());
  m.def("lerp_", &lerp_trees, nb::arg("target").none(), nb::arg("source").none(), nb::arg("w").none(),
        nb::arg("stream").none());
  m.def("with_axes", [](const nb::object& array, const std::vector<int>& axes) { return with_axes(array, axes); });
  m.def("set_class_registry", &set_class_registry, nb::arg("look_up").none());
  m.def("forget_class_registry", &forget_class_registry, nb::arg("look_up"));
  m.def(
      "array_places",
      [](nb::handle node) {
        nb::list arrays;
        for (const nb::object& array : flatten(node, "Marker", Ties::ignored).at_places) arrays.append(array);
        return arrays;
      },
      nb::arg("node").none());
}

}  // namespace optimisers::python
