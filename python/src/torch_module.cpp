// torch_module.cpp: the dicts in which a Module keeps its parameters and children, without Module.__getattr__.
#include "torch_module.hpp"

namespace optimisers::python {
namespace {

// One of a Module's own dicts; borrowed by the module's.
PyObject* own_dict(PyObject* module, const char* name, PyObject*& interned) {
  if (interned == nullptr) interned = PyUnicode_InternFromString(name);
  nb::object attributes = nb::steal(PyObject_GenericGetDict(module, nullptr));
  if (!attributes.is_valid()) throw nb::python_error();
  PyObject* dict = PyDict_GetItemWithError(attributes.ptr(), interned);
  if (dict == nullptr && PyErr_Occurred()) throw nb::python_error();
  return dict != nullptr && PyDict_Check(dict) ? dict : nullptr;  // null before Module.__init__ has run
}
PyObject* parameters_of(PyObject* module) {
  static PyObject* name = nullptr;
  return own_dict(module, "_parameters", name);
}
PyObject* modules_of(PyObject* module) {
  static PyObject* name = nullptr;
  return own_dict(module, "_modules", name);
}

bool requires_grad(PyObject* parameter) {
  nb::object flag = nb::steal(PyObject_GetAttrString(parameter, "requires_grad"));
  if (!flag.is_valid()) throw nb::python_error();
  return PyObject_IsTrue(flag.ptr()) == 1;
}

}  // namespace

bool is_torch_module(PyTypeObject* type) {
  static PyTypeObject* base = nullptr;
  if (base == nullptr) {
    PyObject* torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch.nn.modules.module");
    PyObject* cls = torch == nullptr ? nullptr : PyObject_GetAttrString(torch, "Module");
    if (cls == nullptr) {  // torch is not there, or not yet
      PyErr_Clear();
      return false;
    }
    base = reinterpret_cast<PyTypeObject*>(cls);
  }
  return PyType_IsSubtype(type, base);
}

void module_children(PyObject* module, std::vector<Child>& out) {
  PyObject *key, *value;
  if (PyObject* parameters = parameters_of(module))
    for (Py_ssize_t pos = 0; PyDict_Next(parameters, &pos, &key, &value);)
      out.push_back({nb::borrow(key), nb::borrow(value), value != Py_None && requires_grad(value)});
  if (PyObject* modules = modules_of(module))
    for (Py_ssize_t pos = 0; PyDict_Next(modules, &pos, &key, &value);)
      out.push_back({nb::borrow(key), nb::borrow(value)});
}

Py_ssize_t module_child_count(PyObject* module) {
  PyObject *parameters = parameters_of(module), *modules = modules_of(module);
  return (parameters ? PyDict_GET_SIZE(parameters) : 0) + (modules ? PyDict_GET_SIZE(modules) : 0);
}

nb::object module_child(PyObject* module, PyObject* name) {
  for (PyObject* dict : {parameters_of(module), modules_of(module)}) {
    PyObject* value = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, name);
    if (value != nullptr) return nb::borrow(value);
    if (PyErr_Occurred()) throw nb::python_error();
  }
  return {};
}

nb::object copied_module(PyObject* module, const nb::dict& memo) {
  return nb::module_::import_("copy").attr("deepcopy")(nb::borrow(module), memo);
}

}  // namespace optimisers::python
