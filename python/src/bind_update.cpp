// bind_update.cpp: update_(state, model, grads, *higher): the one call every training step makes.
#include <string_view>

#include "errors.hpp"
#include "handle.hpp"

namespace optimisers::python {
namespace {

constexpr const char* doc = R"(update_(state, model, grads, *higher)
--

Apply one optimisation step in place: the arrays of `model`, and the state.

Args:
    state: what `setup` returned, or a part of it.
    model: the model `setup` was given, or the part of it that belongs to `state`.
    grads: gradients, a tree of the model's shape. `None` or a missing key leaves what is below untouched,
        its clock too. With a layout, a flat vector is accepted as well.
    *higher: gradients of higher order, for rules that use them; built-in rules do not.

Returns:
    `(state, model)`, the same objects.

Raises:
    ValueError: shape, structure or overlap do not fit, or an array is read-only (use `update`).
    TypeError: something that should be an array is none.
    FloatingPointError: a norm that must be finite is not.
    RuntimeError: the state is being used further up the stack.
    A call that raises has changed nothing.

Example:
    >>> import numpy as np, optimisers as opt
    >>> model = {"w": np.ones(2)}
    >>> state = opt.setup(opt.Descent(0.5), model)
    >>> state, model = opt.update_(state, model, {"w": np.array([1.0, 2.0])})
    >>> model["w"]
    array([0.5, 0. ])
)";

constexpr std::string_view names[] = {"state", "model", "grads"};

// Positional and keyword arguments into their places; false with a Python error set.
bool sort_arguments(PyObject* const* args, Py_ssize_t n, PyObject* keywords, PyObject* (&out)[3]) {
  for (Py_ssize_t i = 0; i < n && i < 3; ++i) out[i] = args[i];
  for (Py_ssize_t k = 0; keywords != nullptr && k < PyTuple_GET_SIZE(keywords); ++k) {
    const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(keywords, k));
    if (name == nullptr) return false;
    int at = 0;
    while (at < 3 && names[at] != name) ++at;
    if (at == 3 || out[at] != nullptr) {
      PyErr_Format(PyExc_TypeError,
                   at == 3 ? "update_() got an unexpected keyword argument '%s'"
                           : "update_() got multiple values for argument '%s'",
                   name);
      return false;
    }
    out[at] = args[n + k];
  }
  for (int i = 0; i < 3; ++i) {
    if (out[i] != nullptr) continue;
    PyErr_Format(PyExc_TypeError, "update_() missing required argument '%s'", names[i].data());
    return false;
  }
  return true;
}

PyObject* update_in_place(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  PyObject* given[3] = {};
  if (!sort_arguments(args, n, keywords, given)) return nullptr;
  try {
    Handle* handle = nullptr;
    if (!nb::try_cast<Handle*>(nb::handle(given[0]), handle) || handle == nullptr)
      type_error("update_: expected the state that setup returned, got a " + type_name(given[0]));
    handle->state->update(handle->node, given[1], given[2], "update");
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  return PyTuple_Pack(2, given[0], given[1]);
}

PyMethodDef definition = {"update_", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(update_in_place)),
                          METH_FASTCALL | METH_KEYWORDS, doc};

}  // namespace

void bind_update(nb::module_& m) {
  nb::str module_name("optimisers");
  nb::object function = nb::steal(PyCFunction_NewEx(&definition, nullptr, module_name.ptr()));
  if (!function.is_valid()) throw nb::python_error();
  m.attr("update_") = function;
}

}  // namespace optimisers::python
