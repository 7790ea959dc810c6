// pins.cpp: torch's storages, and copies of shapes.
#include "arrays/pins.hpp"

#include <algorithm>

namespace optimisers::python {
namespace {

// tensor.untyped_storage(), 40 ns; whatever a subclass makes of it.
nb::object storage_of(PyObject* tensor) {
  static PyObject* method = nullptr;
  if (method == nullptr) {
    const nb::object torch = nb::module_::import_("torch");
    method = nb::object(torch.attr("_C").attr("TensorBase").attr("untyped_storage")).release().ptr();
  }
  nb::object storage = nb::steal(PyObject_CallOneArg(method, tensor));
  if (!storage.is_valid()) throw nb::python_error();
  return storage;
}

}  // namespace

bool others_may_run() {
  PyThreadState* first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  return first != nullptr && PyThreadState_Next(first) != nullptr;
}

void Pins::pin(PyObject* object, ArrayView& view) {
  keep_outline(view);
  if (is_tensor(object)) storages_.push_back(storage_of(object));
}

void Pins::keep_outline(ArrayView& view) {
  const auto axes = static_cast<std::size_t>(view.ndim);
  std::int64_t* shape = room(2 * axes);
  std::copy_n(view.shape, axes, shape);
  if (view.strides != nullptr) view.strides = std::copy_n(view.strides, axes, shape + axes) - axes;
  view.shape = shape;
}

void Pins::clear() {
  storages_.clear();
  used_chunks_ = left_ = 0;
}

std::int64_t* Pins::room(std::size_t count) {
  if (used_chunks_ == 0 || count > left_) {
    if (used_chunks_ == chunks_.size()) chunks_.push_back(std::make_unique<std::int64_t[]>(chunk));
    ++used_chunks_;
    left_ = chunk;
  }
  std::int64_t* at = chunks_[used_chunks_ - 1].get() + (chunk - left_);
  left_ -= count;
  return at;
}

}  // namespace optimisers::python
