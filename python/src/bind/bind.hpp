// bind.hpp: the parts of the extension module, one function each.
#pragma once
#include <nanobind/nanobind.h>

#include "optimisers/optimiser.hpp"
#include "optimisers/registry.hpp"

namespace optimisers::python {

namespace nb = nanobind;
class State;

void bind_rules(nb::module_& m);
void bind_state(nb::module_& m);
void bind_leaves(nb::class_<State>& state);  // its part about single leaves
void bind_handles(nb::module_& m);
void bind_update(nb::module_& m);  // without nanobind's argument handling, which costs more than a small update
void bind_tree(nb::module_& m);
void bind_walks(nb::module_& m);
void bind_devices(nb::module_& m);
void bind_files(nb::module_& m);
void bind_machine(nb::module_& m);
void bind_xla(nb::module_& m);

// How the garbage collector looks into a class, and takes it apart.
template <int (*traverse)(PyObject*, visitproc, void*), int (*clear)(PyObject*)>
inline PyType_Slot collected[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)}, {Py_tp_clear, reinterpret_cast<void*>(clear)}, {0, nullptr}};

bool is_numpy_bool(PyObject* object);
// "propagate", "raise" or "skip"; `call` is for messages.
NonFinite non_finite_from(PyObject* given, const char* call);
// A hyperparameter from Python; the rule's name is for messages.
Value value_from(nb::handle object, const char* rule, const FieldInfo& field);

}  // namespace optimisers::python
