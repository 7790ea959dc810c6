// lifetimes.cpp: what an update tells the libraries whose arrays it used: torch that values changed, and all of them
// what devices may still be reading.
#include <set>

#include "arrays/device_array.hpp"
#include "state/state.hpp"

namespace optimisers::python {

// The tensors that may be written, listed before they are: from then on nothing may fail.
void State::list_tensors(std::uint32_t root, PyObject* flat) {
  tensors_ = nb::object();
  if (flat == nullptr && !has_tensors_) return;
  nb::list tensors;
  if (flat != nullptr) {
    if (is_tensor(flat)) tensors.append(nb::borrow(flat));
  } else {
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p)
      if (PyObject* x = model_[spec_->places[p].node]; is_tensor(x)) tensors.append(nb::borrow(x));
  }
  if (nb::len(tensors) > 0) tensors_ = tensors;
}

void State::tell_torch(std::uint32_t root, PyObject* flat) {
  if (!tensors_.is_valid()) return;
  const nb::list tensors = nb::steal<nb::list>(tensors_.release());
  const Node& top = spec_->nodes[root];
  const auto update_at = [&](std::uint32_t p) -> const LeafUpdate& {
    return updates_[spec_->tied() ? static_cast<std::size_t>(update_of_leaf_[spec_->places[p].leaf])
                                  : p - top.place_begin];
  };
  // Those that were not written come off the list, from its end.
  auto left = static_cast<Py_ssize_t>(nb::len(tensors));
  for (std::uint32_t p = top.place_end; flat == nullptr && p-- > top.place_begin && left > 0;) {
    if (PyList_GET_ITEM(tensors.ptr(), left - 1) != model_[spec_->places[p].node]) continue;
    --left;
    if (!core_.wrote(update_at(p)) && PyList_SetSlice(tensors.ptr(), left, left + 1, nullptr) != 0) PyErr_Clear();
  }
  if (nb::len(tensors) > 0) bump_versions(tensors);
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
