// lifetimes.cpp: what an update tells the libraries whose arrays it used: torch that values changed, and all of them
// what devices may still be reading.
#include <set>

#include "arrays/device_array.hpp"
#include "state/state.hpp"

namespace optimisers::python {

void State::tell_torch(std::uint32_t root, PyObject* flat) {
  if (flat == nullptr && !has_tensors_) return;
  nb::list written;
  if (flat != nullptr) {
    if (is_tensor(flat)) written.append(nb::borrow(flat));
  } else {
    std::size_t i = 0;
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      PyObject* x = model_[spec_->places[p].node];
      if (!is_tensor(x)) continue;
      if (!spec_->tied()) i = p - top.place_begin;
      else i = static_cast<std::size_t>(update_of_leaf_[spec_->places[p].leaf]);
      if (core_.wrote(updates_[i])) written.append(nb::borrow(x));
    }
  }
  if (nb::len(written) > 0) bump_versions(written);
}

// JAX takes memory back without asking which streams still read it.
void State::hold_jax_arrays(std::uint32_t root) {
  const Node& top = spec_->nodes[root];
  const auto hold = [this](PyObject* object) {
    const DeviceArray* array = object == nullptr ? nullptr : as_device_array(object);
    if (array != nullptr && !array->writable && PyCapsule_CheckExact(array->owner.ptr()))
      held_.push_back(nb::borrow(object));
  };
  hold(gradients_[root]);
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) hold(gradients_[spec_->places[p].node]);
}

// CuPy gives the memory of an array that is gone to what comes next on its own stream.
void State::let_cupy_follow(std::uint32_t root) {
  std::set<int> devices;
  const auto look = [&](PyObject* object) {
    const DeviceArray* array = object == nullptr ? nullptr : as_device_array(object);
    if (array != nullptr && array->library == Library::cupy) devices.insert(array->device);
  };
  for (const nb::object& object : imported_) look(object.ptr());
  look(gradients_[root]);
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) look(gradients_[spec_->places[p].node]);
  for (const int device : devices) Streams::let_cupy_follow(device);
}

// torch takes memory back as soon as the stream it was allocated for is done with it, unless told of others.
void State::record_stream(std::uint32_t root, PyObject* flat, void* stream) {
  nb::list tensors;
  const auto record = [&](PyObject* object) {
    if (object != nullptr && is_tensor(object)) tensors.append(nb::borrow(object));
  };
  if (flat != nullptr) record(flat);
  if (flat != nullptr) record(gradients_[root]);
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    if (flat == nullptr) record(model_[spec_->places[p].node]);
    record(gradients_[spec_->places[p].node]);
  }
  if (nb::len(tensors) > 0)
    nb::module_::import_("optimisers._arrays").attr("record_stream")(tensors, reinterpret_cast<std::uintptr_t>(stream));
}

}  // namespace optimisers::python
