// model.hpp: what Python calls _core.Model, and vectors of the model's length.
#pragma once
#include "arrays/pins.hpp"
#include "bind/bind.hpp"
#include "tree/walk.hpp"

namespace optimisers::python {

// A model flattened once: what setup and destructure start from.
struct Model {
  nb::object model;
  Flattened flat;
  std::string call;  // it was made for
  Pins pins;         // arrays may be given other shapes later

  Model(nb::object model, Flattened flat, std::string call);
  // Where values are read: since the model was walked, code of the caller's may have run.
  void check_memory() const;
};
std::int64_t vector_size(const Model& m);

// A flat vector, and what its view is of.
struct Vector {
  ArrayView view;
  nb::object array;
};
Vector vector_of(nb::handle flat, const char* call);
void check_length(const ArrayView& view, std::int64_t size, const std::string& what);

void bind_vectors(nb::class_<Model>& cls);  // models as vectors, and back

}  // namespace optimisers::python
