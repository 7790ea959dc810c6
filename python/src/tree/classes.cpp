// classes.cpp: asking Python's registries once for each class.
#include "tree/classes.hpp"

#include <unordered_map>
#include <utility>

#include <nanobind/stl/string.h>

#include "arrays/array.hpp"
#include "errors.hpp"
#include "text.hpp"

namespace optimisers::python {
namespace {

PyObject* look_up = nullptr;  // null before the package is complete, and at the interpreter's end

std::unordered_map<PyTypeObject*, Registered>& known_classes() {
  static auto& known = *new std::unordered_map<PyTypeObject*, Registered>;
  return known;
}

void drop(const Registered& r) {
  Py_XDECREF(r.children);
  Py_XDECREF(r.rebuild);
  Py_XDECREF(r.trainable);
  Py_XDECREF(r.class_reference);
}

// Called when a class dies; `address` is where it was.
PyObject* forget_class(PyObject* address, PyObject*) {
  auto found = known_classes().find(static_cast<PyTypeObject*>(PyLong_AsVoidPtr(address)));
  if (found != known_classes().end()) {
    const Registered gone = found->second;
    known_classes().erase(found);
    forget_kinds();
    drop(gone);
  }
  Py_RETURN_NONE;
}
PyMethodDef forgetting = {"forget_class", forget_class, METH_O, nullptr};

PyObject* function_or_null(nb::handle function) { return function.is_none() ? nullptr : function.inc_ref().ptr(); }

nb::object checked(PyObject* object) {
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

}  // namespace

PyObject* reference_that_calls(PyMethodDef& method, PyTypeObject* type) {
  nb::object address = nb::steal(PyLong_FromVoidPtr(type));
  nb::object callback = nb::steal(PyCFunction_New(&method, address.ptr()));
  PyObject* reference = PyWeakref_NewRef(reinterpret_cast<PyObject*>(type), callback.ptr());
  if (reference == nullptr) throw nb::python_error();
  return reference;
}

const Registered* registered(PyObject* object) {
  if (look_up == nullptr) return nullptr;
  PyTypeObject* type = Py_TYPE(object);
  auto& known = known_classes();
  auto found = known.find(type);
  if (found == known.end()) {
    nb::object answer = checked(PyObject_CallOneArg(look_up, object));
    Registered r;
    if (!answer.is_none()) {
      r = {function_or_null(answer[0]), function_or_null(answer[1]), function_or_null(answer[2])};
      r.kind = kind_named(str_text(answer[3]));
    }
    r.class_reference = reference_that_calls(forgetting, type);
    const auto [at, is_new] = known.emplace(type, r);
    if (!is_new) drop(r);  // looking up looked it up
    found = at;
  }
  const Registered& r = found->second;
  return r.children || r.trainable ? &r : nullptr;
}

void ask_again() {
  std::vector<Registered> gone;
  std::erase_if(known_classes(), [&](const auto& known) {
    const bool nothing = known.second.children == nullptr && known.second.trainable == nullptr;
    if (nothing) gone.push_back(known.second);
    return nothing;
  });
  forget_kinds();
  for (const Registered& r : gone) drop(r);
}

bool has_class_registry() { return look_up != nullptr; }

void set_class_registry(const nb::object& new_look_up) {
  auto old = std::move(known_classes());
  known_classes().clear();
  forget_kinds();
  for (const auto& [type, r] : old) drop(r);
  PyObject* old_look_up = std::exchange(look_up, function_or_null(new_look_up));
  Py_XDECREF(old_look_up);
}

void forget_class_registry(nb::handle known_look_up) {
  if (look_up != nullptr && look_up == known_look_up.ptr()) set_class_registry(nb::none());
}

nb::object registered_children(PyObject* object) {
  const Registered* r = registered(object);
  const bool is_sequence = r->kind == Kind::sequence;
  const nb::object function = nb::borrow(r->children);  // which might register another
  nb::object children = checked(PyObject_CallOneArg(function.ptr(), object));
  if (!(is_sequence ? PyList_CheckExact(children.ptr()) : PyDict_CheckExact(children.ptr())))
    type_error("the function registered for the children of " + type_name(object) + " returned a " +
               type_name(children.ptr()) + ", expected a dict from key to child");
  return children;
}

nb::object children_or_refused(PyObject* object, const PlaceText& place) {
  try {
    return registered_children(object);
  } catch (nb::python_error& error) {
    if (registered(object)->kind == Kind::registered) throw;
    if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
    const std::string text = repr_text(error.value());
    const std::string message = place() + " is " + a_type(object) + " whose children cannot be read: " + text;
    nb::raise_from(error, value_error_class(), "%s", message.c_str());
  }
}

nb::object registered_rebuild(PyObject* object, nb::handle children) {
  const nb::object function = nb::borrow(registered(object)->rebuild);
  return checked(PyObject_CallFunctionObjArgs(function.ptr(), object, children.ptr(), nullptr));
}

bool mark_trained(PyObject* object, Kind kind, std::vector<Child>& children, const char* call) {
  const Registered* r = registered(object);
  if (r == nullptr || r->trainable == nullptr) return false;
  const std::string place = std::string(call) + ": trainable of " + type_name(object) + " ";
  nb::object chosen = checked(PyObject_CallOneArg(r->trainable, object));
  if (!PyDict_CheckExact(chosen.ptr()))
    type_error(place + "returned a " + type_name(chosen.ptr()) + ", expected a dict from key to child");
  if (!is_container(kind)) {
    if (PyDict_GET_SIZE(chosen.ptr()) == 0) return true;
    type_error(place + "has children to choose from only for containers; register the class with register_container");
  }
  Py_ssize_t found = 0;
  for (std::size_t i = 0; i < children.size(); ++i) {
    nb::object key = children[i].key.is_valid() ? children[i].key : nb::object(nb::int_(i));
    const int present = PyDict_Contains(chosen.ptr(), key.ptr());
    if (present < 0) throw nb::python_error();
    found += present;
    children[i].trained = present == 1;
    children[i].asleep = false;
  }
  if (found == PyDict_GET_SIZE(chosen.ptr())) return true;
  std::string known;
  for (std::size_t i = 0; i < children.size() && i < 10; ++i)
    known += (i ? ", " : "") + repr_text(children[i].key.is_valid() ? children[i].key : nb::object(nb::int_(i)));
  nb::dict unknown = nb::steal<nb::dict>(checked(PyDict_Copy(chosen.ptr())).release());
  for (std::size_t i = 0; i < children.size(); ++i) {
    nb::object key = children[i].key.is_valid() ? children[i].key : nb::object(nb::int_(i));
    if (unknown.contains(key)) nb::del(unknown[key]);
  }
  value_error(place + "names the child " + repr_text(nb::list(unknown.keys())[0]) +
              ", which the object lacks; its children are " + (known.empty() ? "none" : known));
}

}  // namespace optimisers::python
