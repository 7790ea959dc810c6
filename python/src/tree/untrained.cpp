// untrained.cpp: looking at what is not trained. Only models that have such children get here.
#include "tree/untrained.hpp"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "tree/torch_module.hpp"

namespace optimisers::python {
namespace {

constexpr int looked_at = 64;  // objects in a container without anything trained, where gradients tell of the rest

bool is_function(PyObject* object) {
  return PyFunction_Check(object) || PyCFunction_Check(object) || PyMethod_Check(object);
}

// Whether a path below a node leads to, or into, something that is marked as not trained.
bool is_marked(const TreeSpec& spec, std::uint32_t n, const nb::tuple& path) {
  for (nb::handle key : path) {
    n = spec.child(n, key.ptr());
    if (n == 0) return false;
    if (!is_container(spec.nodes[n].kind)) return !spec.nodes[n].watched;
  }
  return false;
}

// The path of the first array in the object at a node that would be trained; not valid: there is none.
std::optional<std::string> first_trained(const TreeSpec& spec, std::uint32_t n, PyObject* object, const char* call) {
  const Flattened flat = flatten(nb::handle(object), call, Ties::ignored);
  for (const Place& place : flat.spec->places)
    if (!is_marked(spec, n, flat.spec->path(place.node)))
      return place.node == 0 ? std::string() : "." + flat.spec->text(place.node);
  return {};
}

[[noreturn]] void refuse_trained(const TreeSpec& spec, std::uint32_t n, const std::string& below,
                                 const std::string& then, const std::string& now, const char* call) {
  std::string path = n == 0 ? "" : spec.text(n);
  path += path.empty() && !below.empty() ? below.substr(1) : below;
  value_error(std::string(call) + ": \"" + path + "\" " + now + ", and " + then +
              " at setup; extend_(state, model) gives it a state and keeps all others");
}

void check_value(const TreeSpec& spec, const UntrainedValue& value, Objects& model, const char* call) {
  PyObject* object = model[value.node];
  if (object == nullptr || is_plain_value(object)) return;
  model.own();
  if (value.asleep) {
    if (requires_grad(object)) refuse_trained(spec, value.node, "", "required none", "requires a gradient", call);
    return;
  }
  if (const auto below = first_trained(spec, value.node, object, call))
    refuse_trained(spec, value.node, *below,
                   (below->empty() ? "" : "\"" + spec.text(value.node) + "\" ") + "was " + value.what, "is trained now",
                   call);
}

// Looks through an object in which nothing was trained, along the spec.
class Unchanged {
 public:
  // At most so many objects outside of Modules are looked at: a list without anything trained may be somebody's log.
  Unchanged(const TreeSpec& spec, int most) : spec_(spec), left_(most) {}

  // False: look closer.
  bool operator()(std::uint32_t n, PyObject* object) {
    open_.emplace_back(n, object);
    while (!open_.empty()) {
      const auto [node, there] = open_.back();
      open_.pop_back();
      if (!look(node, there)) return false;
    }
    return true;
  }

 private:
  static constexpr std::uint32_t added = std::uint32_t(-1);  // since setup

  bool look(std::uint32_t n, PyObject* object) {
    if (n != added) {
      const Node& node = spec_.nodes[n];
      if (node.kind == Kind::module) return is_torch_module(Py_TYPE(object)) && enter_module(node, object);
      if (node.kind == Kind::dict) return PyDict_CheckExact(object) && enter_dict(node, object);
      if (node.kind == Kind::list || node.kind == Kind::tuple)
        return (PyList_Check(object) || PyTuple_Check(object)) && enter_sequence(node, object);
      if (is_container(node.kind) || !node.watched) return true;  // only gradients tell; or marked
      if (spec_.untrained_at(n)->asleep) return object == Py_None || !requires_grad(object);
    }
    return is_plain_value(object) || is_known_container(Py_TYPE(object));
  }

  bool enter_module(const Node& node, PyObject* module) {
    PyObject *key, *value;
    const ModuleDicts dicts = module_dicts(module);
    if (dicts.size() != static_cast<Py_ssize_t>(node.count)) return false;
    std::uint32_t child = node.first;
    for (PyObject* dict : {dicts.parameters, dicts.modules})
      for (Py_ssize_t pos = 0; dict != nullptr && PyDict_Next(dict, &pos, &key, &value); ++child) {
        if (!same_key(spec_.nodes[child].key, key)) return false;
        open_.emplace_back(child, value);
      }
    return true;
  }
  bool enter_dict(const Node& node, PyObject* dict) {
    PyObject *key, *value;
    std::uint32_t child = node.first;
    for (Py_ssize_t pos = 0; PyDict_Next(dict, &pos, &key, &value) && left_-- > 0; ++child) {
      const bool known = child < node.first + node.count;
      if (known && !same_key(spec_.nodes[child].key, key)) return false;
      open_.emplace_back(known ? child : added, value);
    }
    return true;
  }
  bool enter_sequence(const Node& node, PyObject* object) {  // from its end, where something new is
    for (Py_ssize_t i = PySequence_Fast_GET_SIZE(object); i-- > 0 && left_-- > 0;) {
      const bool known = i < static_cast<Py_ssize_t>(node.count);
      open_.emplace_back(known ? node.first + static_cast<std::uint32_t>(i) : added,
                         PySequence_Fast_GET_ITEM(object, i));
    }
    return true;
  }

  const TreeSpec& spec_;
  int left_;
  std::vector<std::pair<std::uint32_t, PyObject*>> open_;
};

void check_idle(const TreeSpec& spec, std::uint32_t n, Objects& model, const char* call, bool all) {
  PyObject* object = model[n];
  if (object == nullptr) return;
  if (spec.runs.empty()) model.own();  // there may be Modules, which are asked
  if (Unchanged(spec, all ? std::numeric_limits<int>::max() : looked_at)(n, object)) return;
  model.own();
  if (const auto below = first_trained(spec, n, object, call))
    refuse_trained(spec, n, *below, "nothing in \"" + spec.text(n) + "\" was", "is trained now", call);
}

}  // namespace

bool is_no_number(PyObject* object) {
  return PyUnicode_CheckExact(object) || PyBytes_CheckExact(object) || is_function(object) || PyType_Check(object) ||
         object == Py_Ellipsis;
}

bool is_leaf_array(PyObject* object) {
  ArrayView view;
  nb::object kept;
  Fault fault = read_any(object, view, kept);
  if (fault == Fault::not_array && is_jax(object) && !is_jax_extended(object)) {
    kept = jax_outline(object);
    fault = read_array(kept.ptr(), view);
  }
  return fault == Fault::none && is_trainable(view.dtype);
}

std::string what_is(PyObject* object) {
  if (object == Py_None) return "None";
  if (is_function(object)) return "a function";
  if (nb::hasattr(nb::handle(object), "dtype") && nb::hasattr(nb::handle(object), "shape")) {
    if (is_tensor(object)) return "a tensor of " + dtype_text(object);
    ArrayView view;
    Fault fault;
    const bool scalar =
        !read_quietly(object, view, fault) && PyNumber_Check(object) && !is_numpy(object) && !is_jax(object);
    return (scalar ? "a scalar of " : "an array of ") + dtype_text(object);
  }
  return a_type(object);
}

bool is_plain_value(PyObject* object) {
  if (object == Py_None || PyFloat_CheckExact(object) || PyLong_CheckExact(object) || PyBool_Check(object)) return true;
  if (is_no_number(object) || is_opaque(Py_TYPE(object))) return true;
  ArrayView view;
  return read_plain_numpy(object, view) && !is_trainable(view.dtype);
}

void check_still_untrained(const TreeSpec& spec, std::uint32_t root, Objects& model, const char* call, bool all) {
  each_untrained(
      spec, root, [&](const UntrainedValue& u) { check_value(spec, u, model, call); },
      [&](std::uint32_t n) { check_idle(spec, n, model, call, all); });
}

bool plainly_untrained(const TreeSpec& spec, const Objects& model, const Objects& gradients) {
  for (const UntrainedValue& u : spec.untrained) {
    if (model[u.node] != nullptr && !is_plain_value(model[u.node])) return false;
    PyObject* entry = gradients[u.node];
    const bool own = entry == nullptr || entry == u.value.ptr() || (PyUnicode_CheckExact(entry) && u.what == "a str");
    if (!own) return false;
  }
  for (const std::uint32_t n : spec.idle) {
    PyObject* entry = gradients[n];
    if (model[n] != nullptr && !Unchanged(spec, looked_at)(n, model[n])) return false;
    if (entry == nullptr) continue;
    const bool empty =
        (PyDict_CheckExact(entry) && PyDict_GET_SIZE(entry) == 0) ||
        ((PyTuple_CheckExact(entry) || PyList_CheckExact(entry)) && PySequence_Fast_GET_SIZE(entry) == 0);
    if (!empty) return false;
  }
  return true;
}

}  // namespace optimisers::python
