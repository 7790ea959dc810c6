// classes.hpp: what users have registered for classes of theirs: how a container comes apart and is put together
// again, and which of its children are trained.
#pragma once
#include "tree/containers.hpp"

namespace optimisers::python {

// Functions of Python; null where the user registered none.
struct Registered {
  PyObject* children = nullptr;   // (object) -> dict from key to child
  PyObject* rebuild = nullptr;    // (object, dict from key to child) -> object
  PyObject* trainable = nullptr;  // (object) -> dict with a subset of the children
  PyObject* class_reference = nullptr;
};

// A weak reference to the class whose end calls `method` with the address where the class was.
PyObject* reference_that_calls(PyMethodDef& method, PyTypeObject* type);

// Null where nothing is registered for the class or its bases.
const Registered* registered(PyTypeObject* type);

// `look_up`: class -> (children, rebuild, trainable), Nones included, or None. Forgets what was looked up
// before; None in its place lets everything go, before the interpreter does.
void set_class_registry(const nb::object& look_up);

// The children of an object of a registered class: a dict.
nb::object registered_children(PyObject* object);
nb::object registered_rebuild(PyObject* object, nb::handle children);

// Marks the children that the user's `trainable` for the object's class leaves out. `call` is for messages.
void mark_trained(PyObject* object, Kind kind, std::vector<Child>& children, const char* call);

}  // namespace optimisers::python
