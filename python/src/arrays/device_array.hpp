// device_array.hpp: arrays in a CUDA device's memory whose library has no fast road of its own (see exchange.hpp): as
// they come in, through DLPack or the CUDA array interface, and as this package hands out memory of its own.
#pragma once
#include <nanobind/nanobind.h>

#include <span>
#include <vector>

#include "arrays/array.hpp"
#include "optimisers/cuda.hpp"
#include "optimisers/optimiser.hpp"

namespace optimisers::python {

// Not copied and not moved: views point into it.
struct DeviceArray {
  std::byte* data = nullptr;
  std::vector<std::int64_t> shape, strides;  // strides in bytes; empty: C order without gaps
  DType dtype = DType::float32;
  int device = 0;
  bool writable = true;
  cuda::Mark written;         // of one's own: what may still be writing it
  void* stream = nullptr;     // of one that came in, as long as its call lasts: where that was enqueued
  bool names_stream = false;  // the library said which
  Library library = Library::other;
  nb::object owner;  // keeps the memory; not valid: the memory is this object's own

  DeviceArray() = default;
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray();
  ArrayView view() const {
    ArrayView view;
    view_into(view);
    return view;
  }
  void view_into(ArrayView& view) const {  // field by field: the view is read at once, and whole
    view.data = data;
    view.shape = shape.data();
    view.strides = strides.empty() ? nullptr : strides.data();
    view.stride_unit = 1;
    view.ndim = static_cast<std::int32_t>(shape.size());
    view.dtype = dtype;
    view.writable = writable;
    view.present = true;
    view.device = static_cast<std::int8_t>(device);
  }
  // `other` goes on behind what writes the array.
  void precede(void* other) const;
  // Whether its library may have to be told what is done with it.
  bool imported() const { return owner.is_valid() && (library != Library::other || !writable); }

  static inline PyTypeObject* type = nullptr;  // since it was bound
};

// Of a DeviceArray object, or null.
inline DeviceArray* as_device_array(PyObject* object) {
  return Py_TYPE(object) == DeviceArray::type ? nb::inst_ptr<DeviceArray>(object) : nullptr;
}

// An array of a library that none of the fast roads reads, as a DeviceArray that keeps it; Fault::not_array for what is
// no array on an accelerator, Fault::device for one on another kind of accelerator. Its library is told to finish what
// writes it before this thread's stream goes on.
Fault import_device_array(PyObject* object, nb::object& out);

// This thread's stream goes on behind what writes the array; not while it captures a graph, which nothing outside of
// the graph can be ordered with.
void follow_array(const DeviceArray& array);
// Arrays that came in before this thread's streams were set.
void follow_imported(std::span<const nb::object> arrays);

// import_device_array for an array of any library, with what the view is of.
Fault read_any(PyObject* object, ArrayView& view, nb::object& read_from);

// Memory that `owner` keeps, in C order.
nb::object device_view(std::byte* data, int device, DType dtype, std::span<const std::int64_t> shape, nb::handle owner);
// The memory of a slot that `owner` keeps, as a NumPy array or a DeviceArray.
nb::object slot_view(const SlotView& slot, std::span<const std::int64_t> shape, nb::handle owner);
// Elements [begin, begin + size) of a vector, in this shape.
nb::object device_segment(nb::handle flat, const ArrayView& view, std::int64_t begin,
                          std::span<const std::int64_t> shape);
// New memory on the device, zeros.
nb::object device_zeros(int device, DType dtype, std::span<const std::int64_t> shape);
// The values in new memory on the same device, converted; enqueued.
nb::object device_copy(const ArrayView& view, DType dtype);

// Sets arrays on devices to zero; enqueued.
void device_zero(std::span<const ArrayView> arrays);

}  // namespace optimisers::python
