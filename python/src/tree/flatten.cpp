// flatten.cpp: flattening a model: what each part of it is, which arrays are trained, and which are one.
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "handle.hpp"
#include "text.hpp"
#include "tree/classes.hpp"
#include "tree/torch_module.hpp"
#include "tree/untrained.hpp"

namespace optimisers::python {
namespace {

// JAX hands dicts back with their keys sorted, and OrderedDicts as they are. Keys that have no order stay as they are
// too: JAX refuses them.
void sort_as_jax_does(PyObject* dict, std::vector<Child>& children) {
  static PyObject* ordered = nullptr;
  if (is_instance_of(dict, "collections", "OrderedDict", ordered)) return;
  nb::list keys;
  for (const Child& child : children) keys.append(child.key);
  nb::dict by_key;
  for (std::size_t i = 0; i < children.size(); ++i) by_key[children[i].key] = i;
  if (PyList_Sort(keys.ptr()) != 0) {
    nb::python_error failed;
    if (!failed.matches(PyExc_TypeError)) throw failed;
    return;
  }
  std::vector<Child> sorted;
  sorted.reserve(children.size());
  for (nb::handle key : keys) sorted.push_back(std::move(children[nb::cast<std::size_t>(by_key[key])]));
  children = std::move(sorted);
}

class Flattener {
 public:
  Flattener(TreeSpec& spec, const char* call, Order order) : spec_(spec), call_(call), order_(order) {}

  // False: there is an array of JAX, whose order is another one than this.
  bool run(nb::handle model) {
    spec_.nodes.push_back({});
    objects_.push_back(nb::borrow(model));
    classify(0, true);
    note_untrained(0, true, false);
    std::vector<std::uint32_t> open;
    if (is_container(spec_.nodes[0].kind)) open.push_back(0);
    while (!open.empty()) {
      const std::uint32_t n = open.back();
      if (spec_.nodes[n].end != 0) {  // all below it is done
        open.pop_back();
        spec_.nodes[n].end = static_cast<std::uint32_t>(spec_.nodes.size());
        ancestors_.erase(objects_[n].ptr());
        continue;
      }
      expand(n);
      if (met_jax_ && order_ == Order::of_library) return false;
      for (std::uint32_t i = spec_.nodes[n].count; i-- > 0;)
        if (is_container(spec_.nodes[spec_.nodes[n].first + i].kind)) open.push_back(spec_.nodes[n].first + i);
    }
    spec_.number_places();
    return true;
  }

  std::optional<std::uint32_t> traced;  // a node whose array has no values, if there is one

  nb::object& object(std::uint32_t node) { return objects_[node]; }
  // What to read the array at a node from: itself, or a view of it that can be read.
  nb::object readable(std::uint32_t node) {
    const nb::object& object = objects_[node];
    ArrayView view;
    if (read_array(object.ptr(), view) != Fault::not_array) return object;
    if (auto known = views_.find(object.ptr()); known != views_.end()) return known->second;
    const bool jax = is_jax(object.ptr());
    met_jax_ |= jax;
    nb::object readable;
    const Fault fault = import_device_array(object.ptr(), readable);
    if (fault == Fault::not_array && !jax) return object;
    if (fault == Fault::not_array) readable = values_or_outline(node);
    else if (fault != Fault::none) refuse(node, fault);
    // JAX shares memory among arrays that are not one; its ties are the same object at several places.
    if (jax && read_array(readable.ptr(), view) == Fault::none && !jax_memory_.insert(view.data).second)
      readable = view.device == on_host ? numpy_copy(readable.ptr()) : device_copy(view, view.dtype);
    return views_[object.ptr()] = std::move(readable);
  }

 private:
  void expand(std::uint32_t n) {
    if (!ancestors_.insert(objects_[n].ptr()).second)
      value_error(std::string(call_) + ": the model contains itself at \"" + spec_.text(n) + "\"");
    children_of(objects_[n].ptr(), spec_.nodes[n].kind, children_, place_of(n));
    mark_trained(objects_[n].ptr(), spec_.nodes[n].kind, children_, call_);
    if (order_ == Order::sorted && spec_.nodes[n].kind == Kind::dict) sort_as_jax_does(objects_[n].ptr(), children_);
    const auto first = static_cast<std::uint32_t>(spec_.nodes.size());
    spec_.nodes[n].first = first;
    spec_.nodes[n].count = static_cast<std::uint32_t>(children_.size());
    spec_.nodes[n].end = first;  // marks it as expanded; first > 0
    for (Child& child : children_) {
      Node node;
      node.parent = n;
      node.key = child.key.release().ptr();
      if (node.key != nullptr && PyUnicode_CheckExact(node.key)) PyUnicode_InternInPlace(&node.key);
      spec_.nodes.push_back(node);
      objects_.push_back(std::move(child.value));
      const auto added = static_cast<std::uint32_t>(spec_.nodes.size() - 1);
      classify(added, child.trained);
      note_untrained(added, child.trained, child.asleep);
      if (met_jax_ && order_ == Order::of_library) return;  // it begins anew
    }
    const Kind kind = spec_.nodes[n].kind;
    if (kind == Kind::module) note_buffers(n);
    if (by_functions(kind) || (kind == Kind::dataclass && call_ == std::string_view("setup"))) check_kept(n);
  }

  void note_untrained(std::uint32_t n, bool trained, bool asleep) {
    Node& node = spec_.nodes[n];
    node.watched = node.kind == Kind::value && (trained || asleep);
    if (!node.watched) return;
    const nb::object& object = objects_[n];
    const bool compared =
        PyLong_CheckExact(object.ptr()) || PyBool_Check(object.ptr()) || PyUnicode_CheckExact(object.ptr());
    spec_.untrained.push_back({n, asleep, asleep ? "" : what_is(object.ptr()), compared ? object : nb::object()});
  }
  void note_buffers(std::uint32_t n) {
    PyObject *key, *value;
    PyObject* buffers = module_dicts(objects_[n].ptr()).buffers;
    for (Py_ssize_t pos = 0; buffers != nullptr && PyDict_Next(buffers, &pos, &key, &value);)
      spec_.buffers.emplace_back(n, nb::borrow(key));
  }

  PlaceText place_of(std::uint32_t n) const {
    return [this, n] { return std::string(call_) + (n == 0 ? ": the model" : ": model at \"" + spec_.text(n) + "\""); };
  }

  // What the functions of a class, or a dataclass's properties, hand out must be what the object keeps: to write into
  // copies would train nothing.
  void check_kept(std::uint32_t n) {
    constexpr std::uint32_t deepest = 1000;  // of containers that come to be when they are asked for
    const Node& node = spec_.nodes[n];
    children_of(objects_[n].ptr(), node.kind, children_, place_of(n));
    const std::string what = " is " + a_type(objects_[n].ptr()) + " that ";
    if (children_.size() != node.count) value_error(place_of(n)() + what + "has other children each time it is asked");
    for (std::uint32_t i = 0; i < node.count; ++i) {
      const std::uint32_t child = node.first + i;
      if (children_[i].value.is(objects_[child])) continue;
      if (is_container(spec_.nodes[child].kind)) {
        const auto parent = fresh_.find(n);
        fresh_[child] = parent == fresh_.end() ? 1 : parent->second + 1;
        if (fresh_[child] > deepest) value_error(place_of(n)() + what + "has containers in containers without end");
      }
      ArrayView first, second;
      if (spec_.nodes[child].kind != Kind::leaf || read_array(objects_[child].ptr(), first) != Fault::none) continue;
      const bool is_array = read_array(children_[i].value.ptr(), second) == Fault::none;
      if (first.writable && (!is_array || first.data != second.data) && size_of(first) > 0)
        value_error(place_of(child)() + " is a new array each time the " + type_name(objects_[n].ptr()) +
                    " is asked for it, so that it would keep nothing that is written to it; pass a dict of its arrays");
    }
  }

  nb::object values_or_outline(std::uint32_t node) {
    PyObject* array = objects_[node].ptr();
    nb::object values = jax_values(array);
    if (values.is_valid()) return values;
    if (jax_fault(array) == Fault::deleted) refuse(node, Fault::deleted);
    if (!traced) traced = node;
    return jax_outline(array);
  }

  void classify(std::uint32_t n, bool trained) {
    if (!trained) return;
    PyObject* object = objects_[n].ptr();
    Kind& kind = spec_.nodes[n].kind;
    kind = kind_of(object);
    if (kind != Kind::value || object == Py_None || PyFloat_CheckExact(object) || PyLong_CheckExact(object) ||
        PyUnicode_CheckExact(object))
      return;
    std::vector<Child> none;
    if (mark_trained(object, kind, none, call_)) return;  // refuses an override that names children there are not
    if (nb::isinstance<Duplicated>(objects_[n]))
      type_error(std::string(call_) + ": Duplicated at \"" + spec_.text(n) +
                 "\"; it holds a whole model and cannot stand inside one or where only a model is expected");
    if (is_jax_extended(object)) return;
    ArrayView view;
    const Fault fault = read_array(readable(n).ptr(), view);
    if (fault == Fault::none && is_trainable(view.dtype)) kind = Kind::leaf;
    if (fault == Fault::none) return;
    if ((fault == Fault::byte_order || fault == Fault::masked) && !is_trainable(view.dtype)) return;
    static PyObject* tensor_class = nullptr;
    const bool known = fault == Fault::not_array && is_instance_of(object, "torch", "Tensor", tensor_class);  // too old
    if (!known && (fault == Fault::not_array || fault == Fault::not_numeric)) return examine(n);
    refuse(n, fault);
  }

  // What is neither container nor array must not pass for something that is not trained where it holds numbers that
  // somebody may want to be.
  void examine(std::uint32_t n) const {
    PyObject* object = objects_[n].ptr();
    if (PyBool_Check(object) || PyBytes_CheckExact(object) || PyComplex_CheckExact(object) ||
        PyFunction_Check(object) || PyCFunction_Check(object) || PyMethod_Check(object) || PyType_Check(object) ||
        is_numpy_scalar(object))
      return;
    const nb::object objection = nb::module_::import_("optimisers._opaque").attr("objection")(objects_[n]);
    if (objection.is_none()) return;
    ask_again();  // it may be registered before the next call
    type_error(place_of(n)() + " " + str_text(objection));
  }

  [[noreturn]] void refuse(std::uint32_t n, Fault fault) const {
    const std::string message =
        std::string(call_) + ": array at \"" + spec_.text(n) + "\" " + fault_text(objects_[n].ptr(), fault);
    fault == Fault::not_array || fault == Fault::device ? type_error(message) : value_error(message);
  }

  TreeSpec& spec_;
  const char* call_;
  const Order order_;
  bool met_jax_ = false;
  std::vector<nb::object> objects_;
  std::vector<Child> children_;
  std::unordered_set<PyObject*> ancestors_;
  std::unordered_map<PyObject*, nb::object> views_;  // of arrays that cannot be read themselves
  std::unordered_set<const std::byte*> jax_memory_;
  std::unordered_map<std::uint32_t, std::uint32_t> fresh_;  // how many containers around one are made when asked for
};

}  // namespace

bool is_tie(const ArrayView& a, const ArrayView& b) {
  if (a.data != b.data || a.dtype != b.dtype || a.ndim != b.ndim) return false;
  if (a.shape == b.shape) return true;  // one object, as mostly
  std::int64_t dense = size_of(a.dtype);
  for (int i = a.ndim - 1; i >= 0; --i) {
    if (a.shape[i] != b.shape[i]) return false;
    const std::int64_t l = a.strides ? a.strides[i] * a.stride_unit : dense;
    const std::int64_t r = b.strides ? b.strides[i] * b.stride_unit : dense;
    if (a.shape[i] != 1 && l != r) return false;
    dense *= a.shape[i];
  }
  return true;
}

void check_values(const Flattened& flat, const char* call) {
  if (!flat.traced) return;
  type_error(std::string(call) + ": array at \"" + flat.spec->text(*flat.traced) + "\" " +
             fault_text(Py_None, Fault::traced));
}

Flattened flatten(nb::handle model, const char* call, Ties ties, Order order) {
  Flattened result{std::make_shared<TreeSpec>(), {}, {}, {}, {}, {}};
  std::optional<Flattener> way(std::in_place, *result.spec, call, order);
  if (!way->run(model)) {  // at the first array of JAX: little has been looked at
    result.spec = std::make_shared<TreeSpec>();
    way.emplace(*result.spec, call, Order::sorted).run(model);
  }
  Flattener& flattener = *way;
  TreeSpec& spec = *result.spec;

  result.traced = flattener.traced;
  std::vector<ArrayView> views(spec.places.size());
  for (std::size_t p = 0; p < views.size(); ++p) {
    read_array(result.read_from.emplace_back(flattener.readable(spec.places[p].node)).ptr(), views[p]);
    result.at_places.push_back(flattener.object(spec.places[p].node));
  }
  if (ties == Ties::ignored) {
    result.arrays = result.at_places;
    result.views = std::move(views);
    return result;
  }
  const std::vector<Alias> aliases =
      find_aliases(views, [&](std::size_t p) { return spec.text(spec.places[p].node); }, call);
  spec.first_place.clear();
  for (std::uint32_t p = 0; p < views.size(); ++p) {
    Place& place = spec.places[p];
    if (aliases[p].first != p) {
      place.leaf = spec.places[aliases[p].first].leaf;
      place.axes = aliases[p].axes;
      continue;
    }
    place.leaf = static_cast<std::uint32_t>(spec.first_place.size());
    spec.first_place.push_back(p);
    result.arrays.push_back(flattener.object(place.node));
    result.views.push_back(views[p]);
  }
  return result;
}

}  // namespace optimisers::python
