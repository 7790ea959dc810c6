// errors.cpp: one class for each kind of fault, all derived from OptimisersError.
#include "errors.hpp"

#include <array>
#include <cstring>
#include <new>

#include "environment.hpp"

namespace optimisers::python {
namespace {

std::array<PyObject*, 7> classes{};  // indexed by ErrorKind

struct ClassInfo {
  ErrorKind kind;
  const char* name;
  const char* doc;
  PyObject* builtin;
};

// An OSError, of which Python makes a FileNotFoundError and the like. Takes the text.
void set_file_error(const FileError& error, PyObject* text) {
  PyObject* path = PyUnicode_DecodeFSDefault(error.path());
  PyObject* arguments = path == nullptr ? nullptr : Py_BuildValue("(iOO)", error.code(), text, path);
  if (arguments != nullptr) PyErr_SetObject(PyExc_OSError, arguments);
  Py_XDECREF(arguments);
  Py_XDECREF(path);
  Py_DECREF(text);
}

// Of any bytes: names in C++ need not be UTF-8.
void set_error(const Error& error) {
  PyObject* text =
      PyUnicode_DecodeUTF8(error.what(), static_cast<Py_ssize_t>(std::strlen(error.what())), "backslashreplace");
  if (text == nullptr) return;
  if (error.kind() == ErrorKind::file) return set_file_error(static_cast<const FileError&>(error), text);
  PyErr_SetObject(classes[static_cast<std::size_t>(error.kind())], text);
  Py_DECREF(text);
}

}  // namespace

void bind_errors(nb::module_& m) {
  nb::object base = nb::steal(PyErr_NewExceptionWithDoc("optimisers.OptimisersError",
                                                        "Base class of the package's own errors.", nullptr, nullptr));
  m.attr("OptimisersError") = base;
  const ClassInfo infos[] = {
      {ErrorKind::value, "InvalidValueError", "A value out of range, a wrong shape, structure or length.",
       PyExc_ValueError},
      {ErrorKind::type, "InvalidTypeError", "A wrong kind of object.", PyExc_TypeError},
      {ErrorKind::non_finite, "NonFiniteError", "A norm that must be finite is not; nothing was written.",
       PyExc_FloatingPointError},
      {ErrorKind::busy, "BusyError", "The state is in use by the same thread, further up the stack.",
       PyExc_RuntimeError},
      {ErrorKind::memory, "DeviceMemoryError", "A CUDA device has too little memory; nothing was changed.",
       PyExc_MemoryError},
      {ErrorKind::device, "DeviceError", "A CUDA device failed, or cannot be used in this process.",
       PyExc_RuntimeError},
  };
  for (const ClassInfo& info : infos) {
    nb::tuple bases = nb::make_tuple(base, nb::borrow(info.builtin));
    nb::object cls = nb::steal(
        PyErr_NewExceptionWithDoc((std::string("optimisers.") + info.name).c_str(), info.doc, bases.ptr(), nullptr));
    if (!cls.is_valid()) throw nb::python_error();
    m.attr(info.name) = cls;
    classes[static_cast<std::size_t>(info.kind)] = cls.release().ptr();  // the module lives as long as the process
  }
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const Error& error) {
      set_error(error);
    }
  });
}

PyObject* value_error_class() { return classes[static_cast<std::size_t>(ErrorKind::value)]; }

void set_python_error() noexcept {
  try {
    throw;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const Error& error) {
    set_error(error);
  } catch (const StackTooSmall& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

}  // namespace optimisers::python
