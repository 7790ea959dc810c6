// array_text.cpp: what is said about arrays, to people in errors and to torch after an update.
#include "arrays/array.hpp"
#include "arrays/jax_arrays.hpp"
#include "text.hpp"

namespace optimisers::python {

std::string type_name(PyObject* object) {
  const std::string name = Py_TYPE(object)->tp_name;
  return name.substr(name.rfind('.') + 1);
}

std::string a_type(PyObject* object) {
  const std::string name = type_name(object);
  return (name.find_first_of("aeiouAEIOU") == 0 ? "an " : "a ") + name;
}

std::string dtype_text(PyObject* array) {
  nb::object dtype = nb::steal(PyObject_GetAttrString(array, "dtype"));
  if (!dtype.is_valid()) {
    PyErr_Clear();
    return type_name(array);
  }
  std::string text = str_text(dtype);
  return text.rfind("torch.", 0) == 0 ? text.substr(6) : text;
}

std::string fault_text(PyObject* object, Fault fault) {
  switch (fault) {
    case Fault::none:
      return "is fine";
    case Fault::not_array:
      if (static PyObject* tensor_class = nullptr; is_instance_of(object, "torch", "Tensor", tensor_class))
        return "is a tensor of torch " + str_text(nb::module_::import_("torch").attr("__version__")) +
               ", which has no DLPack C exchange API for tensors; install a newer torch";
      return "is " + a_type(object) + ", expected a NumPy array or a torch tensor; convert it first";
    case Fault::unsupported:
    case Fault::not_numeric:
      return "has dtype " + dtype_text(object) +
             ", expected float16, bfloat16, float32, float64, complex64 or complex128; convert it with astype";
    case Fault::byte_order:
      return "has dtype " + dtype_text(object) +
             " in foreign byte order; convert it with "
             "a.astype(a.dtype.newbyteorder(\"=\"))";
    case Fault::device: {
      nb::object device = nb::getattr(nb::borrow(object), "device", nb::none());
      const bool named = !device.is_none() && !nb::isinstance<nb::int_>(device);
      const std::string where = named ? str_text(device) : "an accelerator";
      return "is on " + where + ", expected the CPU or a CUDA device; move it there first";
    }
    case Fault::axes: {
      nb::object shape = nb::getattr(nb::borrow(object), "shape", nb::none());
      const Py_ssize_t axes = PyObject_Length(shape.ptr());
      if (axes < 0) PyErr_Clear();
      const std::string count = axes < 0 ? "too many" : std::to_string(axes);
      return "has " + count + " axes, expected at most " + std::to_string(max_ndim) + "; reshape it";
    }
    case Fault::layout:
      return "is " + a_type(object) + " without memory of its own (sparse, meta, fake, or let go); make it dense";
    case Fault::gone:
      return "is " + a_type(object) +
             " whose memory CUDA does not know: it was freed, or its context destroyed, or it never was a device's";
    case Fault::lazy:
      return "is a lazy conjugate or negative; compute it with .resolve_conj().resolve_neg()";
    case Fault::masked:
      return "is a masked array, whose mask would be ignored; pass .filled(0), or the data alone";
    case Fault::traced:
      return "is traced by JAX (jit, grad, vmap) and has no values; call this outside of the traced function, or step "
             "inside it with optimisers.jax";
    case Fault::deleted:
      return "was deleted: it was donated to an earlier call of a JAX function; use what that one returned";
  }
  return "";
}

namespace {
constexpr const char* libraries[] = {"numpy", "torch", "cupy", "jax", "other"};  // in the order of Library
}

const char* name_of(Library library) { return libraries[static_cast<int>(library)]; }
std::optional<Library> library_from_name(std::string_view name) {
  for (std::size_t i = 0; i < std::size(libraries); ++i)
    if (libraries[i] == name) return static_cast<Library>(i);
  return {};
}

bool is_instance_of(PyObject* object, const char* module, const char* name, PyObject*& known) {
  if (known == nullptr) {
    PyObject* loaded = PyDict_GetItemString(PyImport_GetModuleDict(), module);
    known = loaded == nullptr ? nullptr : PyObject_GetAttrString(loaded, name);
    if (known == nullptr) {
      PyErr_Clear();
      return false;
    }
  }
  const int is_instance = PyObject_IsInstance(object, known);
  if (is_instance < 0) throw nb::python_error();
  return is_instance == 1;
}

Library library_of(PyObject* array) {
  if (is_numpy(array)) return Library::numpy;
  if (is_tensor(array)) return Library::torch;
  if (is_jax(array)) return Library::jax;
  static PyObject* cupy_class = nullptr;
  return is_instance_of(array, "cupy", "ndarray", cupy_class) ? Library::cupy : Library::other;
}

namespace {

// torch's own function runs no Python, in which a Ctrl-C that came during the step would be raised and be lost here.
nb::object increment_function(PyObject* torch) {
  nb::object own = nb::getattr(nb::borrow(torch).attr("_C"), "_increment_version", nb::none());
  return own.is_none() ? nb::borrow(torch).attr("autograd").attr("graph").attr("increment_version") : own;
}

}  // namespace

// The update is done: a tensor that cannot count its versions is no reason to report a failure.
void bump_versions(const nb::list& tensors) {
  static PyObject* increment = nullptr;
  if (increment == nullptr) {
    PyObject* torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
    if (torch == nullptr) return;
    increment = increment_function(torch).release().ptr();
  }
  const auto told = [](PyObject* what) {
    PyObject* result = PyObject_CallOneArg(increment, what);
    if (result == nullptr) PyErr_Clear();
    Py_XDECREF(result);
    return result != nullptr;
  };
  if (told(tensors.ptr())) return;
  for (nb::handle tensor : tensors) told(tensor.ptr());  // all but the one that cannot
}

}  // namespace optimisers::python
