// kept.hpp: gradients that an array library keeps beside its arrays (torch's .grad).
#pragma once
#include <nanobind/nanobind.h>

#include <string>

namespace optimisers::python {

namespace nb = nanobind;

bool keeps_gradient(PyObject* array);
[[noreturn]] void refuse_without_gradient(PyObject* array, const std::string& place, const char* call);
// None where there is none yet.
nb::object kept_gradient(PyObject* array);

}  // namespace optimisers::python
