// classes.hpp: classes whose containers come apart, and are put together again, by functions of Python: those that
// users have registered, and those the package knows functions for; and which children are trained.
#pragma once
#include "tree/containers.hpp"

namespace optimisers::python {

// Functions of Python; null where there is none.
struct Registered {
  PyObject* children = nullptr;   // (object) -> dict from key to child; of a Sequence a list
  PyObject* rebuild = nullptr;    // (object, what `children` returned with other children) -> object
  PyObject* trainable = nullptr;  // (object) -> dict with a subset of the children
  PyObject* class_reference = nullptr;
  Kind kind = Kind::value;  // of objects of the class, where there is `children`
};

// A weak reference to the class whose end calls `method` with the address where the class was.
PyObject* reference_that_calls(PyMethodDef& method, PyTypeObject* type);

// Null where there is nothing for the object's class.
const Registered* registered(PyObject* object);

// `look_up`: an object of a class not met before -> (children, rebuild, trainable, name of the kind), Nones included,
// or None. Forgets what was looked up before; None in its place lets everything go, before the interpreter does.
void set_class_registry(const nb::object& look_up);
void forget_class_registry(nb::handle look_up);  // unless it is another one by now
bool has_class_registry();
// The next object of a class there was nothing for is looked up again: others' registries may know it by now.
void ask_again();

// The children of an object whose kind is by_functions: a dict, of a Sequence a list.
nb::object registered_children(PyObject* object);
// The same, where Mappings and Sequences may fail at it: then an error that begins with `place`, and has the other as
// its cause.
nb::object children_or_refused(PyObject* object, const PlaceText& place);
nb::object registered_rebuild(PyObject* object, nb::handle children);

// Marks the children that `trainable` for the object's class leaves out. False: there is none. `call` is for messages.
bool mark_trained(PyObject* object, Kind kind, std::vector<Child>& children, const char* call);

}  // namespace optimisers::python
