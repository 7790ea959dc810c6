// module.cpp: the extension module optimisers._core, and what it says about the machine.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstdlib>

#include "arrays/array.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "forks.hpp"
#include "optimisers/config.hpp"
#include "optimisers/isa.hpp"
#include "optimisers/threads.hpp"

namespace optimisers::python {

void bind_machine(nb::module_& m) {
  m.attr("version") = version;
  m.def("isa", [] {
    const IsaChoice& isa = isa_choice();
    return nb::make_tuple(isa.chosen, isa.available, isa.note);
  });
  m.def("set_num_threads", &set_num_threads, nb::arg("threads"));
  m.def("get_num_threads", &get_num_threads);
}

namespace {

// Caches, classes, nanobind's records and NumPy's interface are the process's: a second interpreter that starts the
// module takes them from the first. What nanobind declares of this, from Python 3.12 on, binds only interpreters with
// a lock of their own.
int refuse_subinterpreters(PyObject*) {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return 0;
  PyErr_SetString(PyExc_ImportError,
                  "optimisers does not support loading in subinterpreters; use threads or processes instead");
  return -1;
}

// What an earlier import made: classes, once registered, are the process's.
PyObject* first_module = nullptr;
int (*bind_module)(PyObject*) = nullptr;  // nanobind's own step

// A module that was taken out of sys.modules and is imported again has the contents it had.
int fill(PyObject* module) {
  if (first_module == nullptr) {
    if (bind_module(module) != 0) return -1;
    first_module = Py_NewRef(module);
    return 0;
  }
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t at = 0; PyDict_Next(PyModule_GetDict(first_module), &at, &key, &value) != 0;) {
    const bool is_own = PyUnicode_Check(key) && PyUnicode_GET_LENGTH(key) > 2 && PyUnicode_READ_CHAR(key, 0) == '_' &&
                        PyUnicode_READ_CHAR(key, 1) == '_';  // __spec__ and the like
    if (!is_own && PyDict_SetItem(PyModule_GetDict(module), key, value) != 0) return -1;
  }
  return 0;
}

}  // namespace
}  // namespace optimisers::python

NB_MODULE(_core_anywhere, m) {
  using namespace optimisers::python;
  // At exit, states may still be held by module globals that a registered class keeps alive: no fault, and no reason
  // to alarm a user. Set the variable when looking for leaks.
  nb::set_leak_warnings(std::getenv("OPTIMISERS_LEAK_WARNINGS") != nullptr);
  import_numpy_api();
  bind_errors(m);
  watch_forks();
  optimisers::isa_choice();  // a wrong OPTIMISERS_ISA is an error now, not in the first update
  bind_rules(m);
  bind_state(m);
  bind_tree(m);
  bind_walks(m);
  bind_devices(m);
  bind_files(m);
  bind_machine(m);
  bind_xla(m);
}

// nanobind's module with one step more, before its own.
extern "C" NB_EXPORT PyObject* PyInit__core() {  // NOLINT(bugprone-reserved-identifier): Python gives the name
  static std::array<PyModuleDef_Slot, 8> slots{};
  auto* def = reinterpret_cast<PyModuleDef*>(PyInit__core_anywhere());
  if (def == nullptr || def->m_slots == slots.data()) return reinterpret_cast<PyObject*>(def);
  slots[0] = {Py_mod_exec, reinterpret_cast<void*>(&optimisers::python::refuse_subinterpreters)};
  for (std::size_t i = 0; def->m_slots[i].slot != 0; ++i) {
    slots.at(i + 1) = def->m_slots[i];
    if (def->m_slots[i].slot != Py_mod_exec) continue;
    optimisers::python::bind_module = reinterpret_cast<int (*)(PyObject*)>(def->m_slots[i].value);
    slots.at(i + 1).value = reinterpret_cast<void*>(&optimisers::python::fill);
  }
  def->m_slots = slots.data();
  return reinterpret_cast<PyObject*>(def);
}
