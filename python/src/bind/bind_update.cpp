// bind_update.cpp: update_(state, model, grads, *higher): the one call every training step makes.
#include "bind/bind.hpp"
#include "errors.hpp"
#include "handle.hpp"
#include "state/state.hpp"
#include "text.hpp"

namespace optimisers::python {
namespace {

constexpr const char* doc =
    R"(update_(state, model, grads=..., *higher, zero_grad=False, non_finite="propagate", stream=None)
--

Apply one optimisation step in place: the arrays of `model`, and the state.

Args:
    state: what `setup` returned, or a part of it.
    model: the model `setup` was given, or the part of it that belongs to `state`; or `Duplicated(model, grads)`.
    grads: gradients, a tree of the model's shape. `None` or a missing key leaves what is below untouched,
        its clock too. With a layout, a flat vector is accepted as well. Where the model has something that is not
        trained (a number, an array of integers, `None`), a gradient is an error, unless it says nothing (no elements,
        JAX's float0) or that child is marked: by `trainable`, field metadata, a rule of `None`, `freeze_`, as a
        buffer, by `requires_grad=False`. Not given at all: each array's own gradient, `.grad` of torch parameters; an
        array without one is left untouched. Gradients of a tied array are summed: in a tree at each place, kept ones
        once for each array object.
    *higher: gradients of higher order, for user-defined rules; built-in rules do not look at them.
    zero_grad: what becomes of the gradients after the step, where the arrays or `Duplicated` keep them: `True` sets
        each `.grad` to None, frozen leaves' too; `"zeros"` sets the arrays to zero, which to rules with moments is
        another thing. The gradients of `Duplicated` are arrays to be added to: both mean zeros.
    non_finite: what to do where a gradient has elements that are infinite or not a number: `"propagate"` computes with
        them, `"raise"` is an error that names the first such array, `"skip"` writes nothing, clocks included, counts
        the step in `state.skipped` and returns as usual; `zero_grad` is still done. For the latter two all gradients
        are read once before the step. Frozen leaves do not count; what an array's dtype cannot hold does. On a device
        this waits for the gradients, and gradients of a tied array count as if their largest elements met.
    stream: for arrays on CUDA devices, the stream to enqueue on: a handle, or torch's or CuPy's object. By default
        the one the arrays' library is using. Ordering it with others is then the caller's.

Returns:
    `(state, model)`, the same objects.

Raises:
    ValueError: shape, structure or overlap do not fit, or an array is read-only (use `update`).
    TypeError: something that should be an array is none.
    FloatingPointError: a gradient is not finite and `non_finite` is `"raise"`; a norm that must be finite is not. On a device that is found out later, when the step
        has written nothing: the next call on the state raises it, or `wait`.
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

constexpr const char* names[] = {"state", "model", "grads", "zero_grad", "non_finite", "stream"};
constexpr int name_count = int(std::size(names));

ZeroGrad zero_grad_from(PyObject* given) {
  if (PyBool_Check(given) || is_numpy_bool(given)) {
    const int truth = PyObject_IsTrue(given);
    if (truth < 0) throw nb::python_error();
    return truth == 1 ? ZeroGrad::to_none : ZeroGrad::no;
  }
  const bool is_text = PyUnicode_Check(given);
  if (is_text && PyUnicode_CompareWithASCIIString(given, "zeros") == 0) return ZeroGrad::to_zeros;
  const std::string expected = "update_: zero_grad must be False, True (.grad becomes None) or \"zeros\", got ";
  if (is_text) value_error(expected + repr_text(given));
  type_error(expected + a_type(given));
}

struct Arguments {
  PyObject* given[name_count] = {};  // borrowed; null: not given
  std::span<PyObject* const> higher;

  PyObject* state() const { return given[0]; }
  PyObject* model() const { return given[1]; }
  PyObject* grads() const { return given[2]; }
  PyObject* stream() const { return given[5]; }
  ZeroGrad zero() const { return given[3] == nullptr ? ZeroGrad::no : zero_grad_from(given[3]); }
  NonFinite non_finite() const {
    return given[4] == nullptr ? NonFinite::propagate : non_finite_from(given[4], "update_");
  }
};

// Positional and keyword arguments into their places; false with a Python error set.
bool sort_arguments(PyObject* const* args, Py_ssize_t n, PyObject* keywords, Arguments& out) {
  for (Py_ssize_t i = 0; i < n && i < 3; ++i) out.given[i] = args[i];
  if (n > 3) out.higher = {args + 3, static_cast<std::size_t>(n - 3)};
  for (Py_ssize_t k = 0; keywords != nullptr && k < PyTuple_GET_SIZE(keywords); ++k) {
    PyObject* name = PyTuple_GET_ITEM(keywords, k);
    int at = 0;
    while (at < name_count && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) ++at;
    if (at == name_count || out.given[at] != nullptr) {
      PyErr_Format(PyExc_TypeError,
                   at == name_count ? "update_() got an unexpected keyword argument %A"
                                    : "update_() got multiple values for argument %A",
                   name);
      return false;
    }
    out.given[at] = args[n + k];
  }
  for (int i = 0; i < 2; ++i) {
    if (out.given[i] != nullptr) continue;
    PyErr_Format(PyExc_TypeError, "update_() missing required argument '%s'", names[i]);
    return false;
  }
  return true;
}

// Where the gradients are; `model` becomes the model itself.
GradientSource source_of(const Arguments& arguments, PyObject*& model) {
  GradientSource source{.tree = arguments.grads(),
                        .kept_by = nullptr,
                        .once = arguments.grads() == nullptr,
                        .zero = arguments.zero(),
                        .non_finite = arguments.non_finite(),
                        .higher = arguments.higher};
  if (arguments.stream() != nullptr) source.stream = stream_from(arguments.stream());
  Duplicated* pair = nullptr;
  if (nb::try_cast<Duplicated*>(nb::handle(model), pair) && pair != nullptr) {
    if (source.tree != nullptr)
      type_error("update_: got Duplicated(model, grads) and gradients as well; pass one of them");
    model = pair->model.ptr();
    source.tree = pair->grads.ptr();
    if (source.zero == ZeroGrad::to_none) source.zero = ZeroGrad::to_zeros;  // there is nothing to set to None
  }
  if (source.zero != ZeroGrad::no && !source.once)
    type_error(
        "update_: zero_grad is for gradients that the arrays or Duplicated keep; these were given as an argument");
  if (source.tree == nullptr) source.kept_by = model;
  return source;
}

PyObject* update_in_place(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* keywords) {
  Arguments arguments;
  nb::object result;  // made before anything is written
  if (!sort_arguments(args, n, keywords, arguments)) return nullptr;
  try {
    Handle* handle = nullptr;
    if (!nb::try_cast<Handle*>(nb::handle(arguments.state()), handle) || handle == nullptr)
      type_error("update_: expected the state that setup returned, got a " + type_name(arguments.state()));
    if (handle->state == nullptr) type_error("update_: this state has been let go by the garbage collector");
    PyObject* model = arguments.model();
    const GradientSource source = source_of(arguments, model);
    result = nb::steal(PyTuple_Pack(2, arguments.state(), arguments.model()));
    if (!result.is_valid()) throw nb::python_error();
    const nb::object core = handle->core;  // extend_ may give the handle another while this one waits
    handle->state->update(handle->node, model, source, "update");
  } catch (...) {
    set_python_error();
    return nullptr;
  }
  return result.release().ptr();
}

PyMethodDef definition = {"update_", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(update_in_place)),
                          METH_FASTCALL | METH_KEYWORDS, doc};

}  // namespace

NonFinite non_finite_from(PyObject* given, const char* call) {
  constexpr std::pair<const char*, NonFinite> choices[] = {
      {"propagate", NonFinite::propagate}, {"raise", NonFinite::raise}, {"skip", NonFinite::skip}};
  const bool is_text = PyUnicode_Check(given);
  for (const auto& [name, choice] : choices)
    if (is_text && PyUnicode_CompareWithASCIIString(given, name) == 0) return choice;
  const std::string expected = std::string(call) + ": non_finite must be \"propagate\", \"raise\" or \"skip\", got ";
  if (is_text) value_error(expected + nb::repr(given).c_str());
  type_error(expected + a_type(given));
}

void bind_update(nb::module_& m) {
  nb::str module_name("optimisers");
  nb::object function = nb::steal(PyCFunction_NewEx(&definition, nullptr, module_name.ptr()));
  if (!function.is_valid()) throw nb::python_error();
  m.attr("update_") = function;
}

}  // namespace optimisers::python
