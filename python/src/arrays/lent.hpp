// lent.hpp: arrays of other libraries that a call uses on devices: what their libraries have to be told, since they
// give memory to others, or read it, as their own streams have it.
#pragma once
#include <nanobind/nanobind.h>

#include <optional>
#include <set>
#include <vector>

#include "arrays/array.hpp"
#include "arrays/streams.hpp"

namespace optimisers::python {

class Lent {
 public:
  // What a view on a device is of; others, and null, are passed over.
  void add(PyObject* object);
  bool has_tensors() const { return nb::len(tensors_) > 0; }
  // Before work is enqueued: behind torch. The others were asked as their arrays came in.
  void follow(const Streams& streams) const;
  // Once it is: torch's and CuPy's streams go on behind it; torch is told of a stream that was given.
  void give_back(const Streams& streams, std::optional<void*> given) const;
  // JAX takes memory back without asking which streams still read it: these are to be held until the device is done.
  std::vector<nb::object>& of_jax() { return of_jax_; }
  // give_back, and waits where there are arrays of JAX's.
  void finish(const Streams& streams, std::optional<void*> given);

 private:
  nb::list tensors_;
  std::set<int> cupy_;  // devices
  std::vector<nb::object> of_jax_;
};

}  // namespace optimisers::python
