// exchange.hpp: the part of the DLPack C exchange API (DLPack 1.2) that importing a tensor takes.
#pragma once
#include <Python.h>

#include <cstdint>

namespace optimisers::python {

struct DLPackTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

struct DLPackExchange {
  std::uint32_t major, minor;
  void* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*tensor_from_object)(void* object, DLPackTensor* out);  // borrows: shape and strides are the tensor's own
  void* current_stream;
};

// The API of a class of arrays, or null. Cached for each class that has one.
const DLPackExchange* exchange_of(PyTypeObject* type);

}  // namespace optimisers::python
