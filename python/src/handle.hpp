// handle.hpp: a node of a state tree as Python holds it.
#pragma once
#include "state.hpp"

namespace optimisers::python {

struct Handle {
  Handle(nb::object core, std::uint32_t node)
      : core(std::move(core)), state(&nb::cast<State&>(this->core)), node(node) {}
  nb::object core;
  State* state;
  std::uint32_t node;
};

// A model with the arrays its gradients are accumulated in.
struct Duplicated {
  Duplicated(nb::object model, nb::object grads) : model(std::move(model)), grads(std::move(grads)) {}
  nb::object model, grads;
};

// Adds `update_`, without nanobind's argument handling, which costs more than a small update.
void bind_update(nb::module_& m);

}  // namespace optimisers::python
