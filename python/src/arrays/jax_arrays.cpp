// jax_arrays.cpp: asks JAX itself, and only once it has been imported.
#include "arrays/jax_arrays.hpp"

#include "arrays/array.hpp"

namespace optimisers::python {
namespace {

nb::object arrays() { return nb::module_::import_("optimisers._arrays"); }

}  // namespace

bool is_jax(PyObject* object) {
  static PyObject* array_class = nullptr;
  return is_instance_of(object, "jax", "Array", array_class);
}

bool is_jax_extended(PyObject* object) {
  return is_jax(object) && nb::cast<bool>(arrays().attr("is_extended")(nb::borrow(object)));
}

nb::object jax_values(PyObject* object) {
  nb::object values = arrays().attr("jax_values")(nb::borrow(object));
  return values.is_none() ? nb::object() : values;
}
Fault jax_fault(PyObject* object) {
  const nb::handle array(object);
  const bool traced = nb::cast<bool>(arrays().attr("is_tracer")(array));
  return traced || !nb::cast<bool>(array.attr("is_deleted")()) ? Fault::traced : Fault::deleted;
}
nb::object jax_outline(PyObject* object) { return arrays().attr("jax_outline")(nb::borrow(object)); }
nb::object jax_from(const nb::object& array, PyObject* like) {
  return arrays().attr("jax_from")(array, nb::borrow(like));
}

}  // namespace optimisers::python
