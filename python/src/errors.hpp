// errors.hpp: the package's exception classes and how the core's errors become them.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

#include "optimisers/error.hpp"

namespace optimisers::python {

namespace nb = nanobind;

// Creates the classes, adds them to the module and translates optimisers::Error from now on.
void bind_errors(nb::module_& m);

PyObject* value_error_class();  // for errors that have a cause

// Sets the Python error for the exception being handled; for code outside nanobind's own dispatch.
void set_python_error() noexcept;

[[noreturn]] inline void value_error(const std::string& message) { throw Error(ErrorKind::value, message); }
[[noreturn]] inline void type_error(const std::string& message) { throw Error(ErrorKind::type, message); }

}  // namespace optimisers::python
