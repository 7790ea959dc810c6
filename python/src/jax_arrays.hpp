// jax_arrays.hpp: JAX arrays, which are never written: read through NumPy, made anew from NumPy.
#pragma once
#include <nanobind/nanobind.h>

namespace optimisers::python {

namespace nb = nanobind;

bool is_jax(PyObject* object);
// A read-only NumPy array of the same memory. While JAX traces there are no values: an array of the same shape.
nb::object jax_values(PyObject* object);
nb::object jax_from_numpy(const nb::object& array);

}  // namespace optimisers::python
