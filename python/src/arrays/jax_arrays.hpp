// jax_arrays.hpp: JAX arrays, which are never written: read through NumPy, or DLPack on a device; made anew.
#pragma once
#include <nanobind/nanobind.h>

#include "arrays/array.hpp"

namespace optimisers::python {

namespace nb = nanobind;

bool is_jax(PyObject* object);
// Whether an array of JAX holds something other than numbers, such as random keys.
bool is_jax_extended(PyObject* object);
// A read-only NumPy array of the same memory. Not valid where there are no values: while JAX traces, or of an array
// that was donated. Then `jax_fault` says which.
nb::object jax_values(PyObject* object);
Fault jax_fault(PyObject* object);
// A NumPy array of the same shape and dtype, whatever is in it.
nb::object jax_outline(PyObject* object);
// A JAX array of a NumPy array or a DeviceArray that nobody writes any more, on the devices of `like`.
nb::object jax_from(const nb::object& array, PyObject* like);

}  // namespace optimisers::python
