// jax_arrays.cpp: asks JAX itself, and only once it has been imported.
#include "jax_arrays.hpp"

namespace optimisers::python {
namespace {

nb::object arrays() { return nb::module_::import_("optimisers._arrays"); }

}  // namespace

bool is_jax(PyObject* object) {
  static PyObject* array_class = nullptr;
  if (array_class == nullptr) {
    PyObject* jax = PyDict_GetItemString(PyImport_GetModuleDict(), "jax");
    array_class = jax == nullptr ? nullptr : PyObject_GetAttrString(jax, "Array");
    if (array_class == nullptr) {
      PyErr_Clear();
      return false;
    }
  }
  const int is_instance = PyObject_IsInstance(object, array_class);
  if (is_instance < 0) throw nb::python_error();
  return is_instance == 1;
}

nb::object jax_values(PyObject* object) { return arrays().attr("jax_values")(nb::borrow(object)); }
nb::object jax_from(const nb::object& array) { return arrays().attr("jax_from")(array); }

}  // namespace optimisers::python
