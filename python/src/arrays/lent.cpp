// lent.cpp: telling torch, CuPy and JAX what became of arrays they lent.
#include "arrays/lent.hpp"

#include "arrays/device_array.hpp"

namespace optimisers::python {

void Lent::add(PyObject* object) {
  if (object == nullptr) return;
  if (const DeviceArray* array = as_device_array(object)) {
    if (array->library == Library::cupy) cupy_.insert(array->device);
    if (!array->writable && array->owner.is_valid() && PyCapsule_CheckExact(array->owner.ptr()))
      of_jax_.push_back(nb::borrow(object));
    return;
  }
  ArrayView view;
  if (is_tensor(object) && read_array(object, view) == Fault::none && view.device != on_host)
    tensors_.append(nb::borrow(object));
}

void Lent::follow(const Streams& streams) const {
  if (has_tensors()) streams.follow_torch();
}

void Lent::give_back(const Streams& streams, std::optional<void*> given) const {
  for (const int device : cupy_) Streams::let_cupy_follow(device);
  if (!has_tensors()) return;
  if (!given) return streams.let_torch_follow();
  nb::module_::import_("optimisers._arrays").attr("record_stream")(tensors_, reinterpret_cast<std::uintptr_t>(*given));
}

void Lent::finish(const Streams& streams, std::optional<void*> given) {
  give_back(streams, given);
  if (!of_jax_.empty()) wait_for(streams.marks());
}

}  // namespace optimisers::python
