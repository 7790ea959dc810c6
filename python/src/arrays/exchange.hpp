// exchange.hpp: the parts of DLPack 1.2 that importing and exporting tensors takes: the tensor, its managed forms that
// capsules hold, and the C exchange API of a class.
#pragma once
#include <Python.h>

#include <cstdint>

#include "optimisers/dtype.hpp"

namespace optimisers::python {

// Of the kinds of devices, those whose memory is read here.
namespace dl {
inline constexpr std::int32_t cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13;
inline constexpr bool on_cuda(std::int32_t type) { return type == cuda || type == cuda_managed; }
inline constexpr bool on_host(std::int32_t type) { return type == cpu || type == cuda_host; }
}  // namespace dl

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

struct DLPackManaged {  // capsule "dltensor"
  DLPackTensor tensor;
  void* context;
  void (*deleter)(DLPackManaged* self);
};

struct DLPackVersioned {  // capsule "dltensor_versioned", DLPack 1.0 and later
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(DLPackVersioned* self);
  std::uint64_t flags;
  DLPackTensor tensor;
  static constexpr std::uint64_t read_only = 1;
};

struct DLPackExchange {
  std::uint32_t major, minor;
  void* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*tensor_from_object)(void* object, DLPackTensor* out);  // borrows: shape and strides are the tensor's own
  int (*current_stream)(std::int32_t device_type, std::int32_t device, void** stream);
};

// False: none of ours.
bool exchange_dtype(const DLPackTensor& tensor, DType& out);
void set_exchange_dtype(DLPackTensor& tensor, DType dtype);

// The API of a class of arrays, or null. Cached for each class that has one; those asked for last are here.
struct ExchangeClass {
  PyTypeObject* type;
  const DLPackExchange* api;
};
inline ExchangeClass recent_exchanges[4] = {};
const DLPackExchange* find_exchange(PyTypeObject* type);
inline const DLPackExchange* recent_exchange(PyTypeObject* type) {
  for (const ExchangeClass& known : recent_exchanges)
    if (known.type == type) return known.api;
  return nullptr;
}
inline const DLPackExchange* exchange_of(PyTypeObject* type) {
  const DLPackExchange* known = recent_exchange(type);
  return known != nullptr ? known : find_exchange(type);
}

// torch's, or null while nobody has imported torch.
const DLPackExchange* torch_exchange();

}  // namespace optimisers::python
