// jax_arrays.hpp: JAX arrays, which are never written: read through NumPy, or DLPack on a device; made anew.
#pragma once
#include <nanobind/nanobind.h>

namespace optimisers::python {

namespace nb = nanobind;

bool is_jax(PyObject* object);
// A read-only NumPy array of the same memory. While JAX traces there are no values: an array of the same shape.
nb::object jax_values(PyObject* object);
// A JAX array of a NumPy array or a DeviceArray that nobody writes any more.
nb::object jax_from(const nb::object& array);

}  // namespace optimisers::python
