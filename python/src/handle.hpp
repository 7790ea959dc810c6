// handle.hpp: what Python holds in its hands: a node of a state tree, and a model with its gradients.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>

namespace optimisers::python {

namespace nb = nanobind;

class State;

struct Handle {
  Handle(nb::object core, std::uint32_t node);  // throws where `core` is no State
  nb::object core;
  State* state;
  std::uint32_t node;
};

// A model with the arrays its gradients are accumulated in.
struct Duplicated {
  Duplicated(nb::object model, nb::object grads) : model(std::move(model)), grads(std::move(grads)) {}
  nb::object model, grads;
};

}  // namespace optimisers::python
