// torch_module.cpp: the dicts in which a Module keeps its parameters and children, without Module.__getattr__.
#include "tree/torch_module.hpp"

#include <cstring>
#include <string_view>

namespace optimisers::python {
namespace {

// Null: there is none of this name.
PyObject* dict_in(PyObject* attributes, const char* name, PyObject*& interned) {
  if (interned == nullptr) interned = PyUnicode_InternFromString(name);
  PyObject* dict = PyDict_GetItemWithError(attributes, interned);
  if (dict == nullptr && PyErr_Occurred()) throw nb::python_error();
  return dict != nullptr && PyDict_Check(dict) ? dict : nullptr;
}

}  // namespace

bool requires_grad(PyObject* parameter) {
  static PyObject* name = PyUnicode_InternFromString("requires_grad");
  nb::object flag = nb::steal(PyObject_GetAttr(parameter, name));
  const int truth = flag.is_valid() ? PyObject_IsTrue(flag.ptr()) : -1;
  if (truth < 0) throw nb::python_error();
  return truth == 1;
}

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

namespace {

// What torch.compile and the data-parallel classes put around a module: its only child, under a name of theirs. Null if
// this is no such class.
PyObject* wrapped(PyObject* module, const ModuleDicts& dicts) {
  if (dicts.modules == nullptr || PyDict_GET_SIZE(dicts.modules) != 1) return nullptr;
  if (dicts.parameters != nullptr && PyDict_GET_SIZE(dicts.parameters) != 0) return nullptr;
  const std::string_view name = Py_TYPE(module)->tp_name;
  const bool compiled = name == "OptimizedModule";
  if (!compiled && name != "DistributedDataParallel" && name != "DataParallel") return nullptr;
  const nb::object home = nb::getattr(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(module))), "__module__");
  if (!nb::isinstance<nb::str>(home) || std::strncmp(nb::cast<nb::str>(home).c_str(), "torch.", 6) != 0) return nullptr;
  return PyDict_GetItemString(dicts.modules, compiled ? "_orig_mod" : "module");
}

}  // namespace

ModuleDicts module_dicts(PyObject* module) {
  static PyObject *parameters = nullptr, *modules = nullptr, *buffers = nullptr;
  nb::object attributes = nb::steal(PyObject_GenericGetDict(module, nullptr));
  if (!attributes.is_valid()) throw nb::python_error();
  const ModuleDicts dicts{dict_in(attributes.ptr(), "_parameters", parameters),
                          dict_in(attributes.ptr(), "_modules", modules),
                          dict_in(attributes.ptr(), "_buffers", buffers)};
  PyObject* inside = wrapped(module, dicts);
  return inside == nullptr ? dicts : module_dicts(inside);
}

void module_children(PyObject* module, std::vector<Child>& out) {
  PyObject *key, *value;
  const auto [parameters, modules, buffers] = module_dicts(module);
  if (parameters != nullptr)
    for (Py_ssize_t pos = 0; PyDict_Next(parameters, &pos, &key, &value);) {
      const bool trained = value == Py_None || requires_grad(value);
      out.push_back({nb::borrow(key), nb::borrow(value), trained, !trained});
    }
  if (modules != nullptr)
    for (Py_ssize_t pos = 0; PyDict_Next(modules, &pos, &key, &value);)
      out.push_back({nb::borrow(key), nb::borrow(value)});
}

nb::object module_child(const ModuleDicts& dicts, PyObject* name) {
  for (PyObject* dict : {dicts.parameters, dicts.modules}) {
    PyObject* value = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, name);
    if (value != nullptr) return nb::borrow(value);
    if (PyErr_Occurred()) throw nb::python_error();
  }
  return {};
}

nb::object copied_module(PyObject* module, const nb::dict& memo, Untrained untrained) {
  const bool shared = untrained == Untrained::shared;
  const nb::object copy = shared ? nb::module_::import_("optimisers._modules").attr("sharing_copy")
                                 : nb::module_::import_("copy").attr("deepcopy");
  return copy(nb::borrow(module), memo);
}

}  // namespace optimisers::python
