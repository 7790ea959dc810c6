// bind_handles.cpp: what Python holds around a State: handles into it, and a model together with its gradients.
#include <utility>

#include "bind/bind.hpp"
#include "errors.hpp"
#include "handle.hpp"
#include "state/state.hpp"
#include "text.hpp"

namespace optimisers::python {
namespace {

constexpr const char* duplicated_doc =
    R"(A model together with the arrays its gradients are accumulated in, as one argument.

`setup` looks at the model only; `update_` and `update` take the gradients from it. They have been accumulated already:
of a tied array one and the same gradient (or views of the same elements) counts once, different ones are summed. It may
not stand inside a model.

Args:
    model: any model.
    grads: a tree of the model's shape.

Example:
    >>> import numpy as np, optimisers as opt
    >>> pair = opt.Duplicated({"w": np.ones(2)}, {"w": np.array([1.0, 2.0])})
    >>> state = opt.setup(opt.Descent(0.5), pair)
    >>> state, pair = opt.update_(state, pair)
    >>> pair.model["w"]
    array([0.5, 0. ])
)";

int traverse_handle(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<Handle>(self)->core.ptr());
  return 0;
}
int clear_handle(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  Handle* handle = nb::inst_ptr<Handle>(self);
  handle->state = nullptr;
  const nb::object core = std::exchange(handle->core, nb::none());
  return 0;
}
int traverse_duplicated(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  Py_VISIT(nb::inst_ptr<Duplicated>(self)->model.ptr());
  Py_VISIT(nb::inst_ptr<Duplicated>(self)->grads.ptr());
  return 0;
}
int clear_duplicated(PyObject* self) {
  if (!nb::inst_ready(self)) return 0;
  Duplicated* pair = nb::inst_ptr<Duplicated>(self);
  const nb::object model = std::exchange(pair->model, nb::none()), grads = std::exchange(pair->grads, nb::none());
  return 0;
}

}  // namespace

Handle::Handle(nb::object core, std::uint32_t node) : core(std::move(core)), state(nullptr), node(node) {
  if (!nb::try_cast<State*>(this->core, state) || state == nullptr)
    type_error("expected the native part of a state, got a " + type_name(this->core.ptr()));
  state->check_node(node);
}

void bind_handles(nb::module_& m) {
  nb::class_<Handle>(m, "Handle", nb::is_weak_referenceable(), nb::type_slots(collected<traverse_handle, clear_handle>))
      .def(nb::init<nb::object, std::uint32_t>(), nb::arg("core"), nb::arg("node"))
      .def_ro("_core", &Handle::core)
      .def_ro("_node", &Handle::node);
  nb::class_<Duplicated>(m, "Duplicated", nb::type_slots(collected<traverse_duplicated, clear_duplicated>),
                         duplicated_doc)
      .def(nb::init<nb::object, nb::object>(), nb::arg("model").none(), nb::arg("grads").none())
      .def_ro("model", &Duplicated::model)
      .def_ro("grads", &Duplicated::grads)
      .def("__reduce__",
           [](nb::handle self) {
             const Duplicated& pair = nb::cast<const Duplicated&>(self);
             return nb::make_tuple(self.type(), nb::make_tuple(pair.model, pair.grads));
           })
      .def("__repr__",
           [](const Duplicated& pair) { return nb::str("Duplicated({!r}, {!r})").format(pair.model, pair.grads); });
}

}  // namespace optimisers::python
