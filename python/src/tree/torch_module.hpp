// torch_module.hpp: torch.nn.Module as a container: its parameters, then its child modules. Buffers are no children.
#pragma once
#include "tree/tree.hpp"

namespace optimisers::python {

bool is_torch_module(PyTypeObject* type);
bool requires_grad(PyObject* parameter);
// A parameter that requires no gradient is not trained.
void module_children(PyObject* module, std::vector<Child>& out);
// Its own dicts, borrowed; null before Module.__init__ has run.
struct ModuleDicts {
  PyObject *parameters, *modules, *buffers;

  Py_ssize_t size() const {
    return (parameters ? PyDict_GET_SIZE(parameters) : 0) + (modules ? PyDict_GET_SIZE(modules) : 0);
  }
};
ModuleDicts module_dicts(PyObject* module);
// Null: there is none of this name.
nb::object module_child(const ModuleDicts& dicts, PyObject* name);

// A copy in which `memo` (id -> object) stands for what has new objects already. All else that is not trained is copied
// as well, or is the module's own.
enum class Untrained : bool { copied, shared };
nb::object copied_module(PyObject* module, const nb::dict& memo, Untrained untrained);

}  // namespace optimisers::python
