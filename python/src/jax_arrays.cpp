// jax_arrays.cpp: asks JAX itself, and only once it has been imported.
#include "jax_arrays.hpp"

#include "array.hpp"

namespace optimisers::python {
namespace {

nb::object arrays() { return nb::module_::import_("optimisers._arrays"); }

}  // namespace

bool is_jax(PyObject* object) {
  static PyObject* array_class = nullptr;
  return is_instance_of(object, "jax", "Array", array_class);
}

nb::object jax_values(PyObject* object) { return arrays().attr("jax_values")(nb::borrow(object)); }
nb::object jax_from(const nb::object& array) { return arrays().attr("jax_from")(array); }

}  // namespace optimisers::python
