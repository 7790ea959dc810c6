// exchange.cpp: looking up a class's exchange API once.
#include "arrays/exchange.hpp"

#include <unordered_map>

namespace optimisers::python {
namespace {

// Builtins that are asked about most, and can never have the attribute.
bool is_plain(PyTypeObject* type) {
  return type == &PyLong_Type || type == &PyFloat_Type || type == &PyUnicode_Type || type == &PyBool_Type ||
         type == Py_TYPE(Py_None) || type == &PyDict_Type || type == &PyList_Type || type == &PyTuple_Type ||
         type == &PyFunction_Type || type == &PyComplex_Type;
}

const DLPackExchange* look_up(PyTypeObject* type) {
  PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
  void* api = capsule && PyCapsule_CheckExact(capsule) ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : nullptr;
  Py_XDECREF(capsule);
  PyErr_Clear();
  const auto* exchange = static_cast<const DLPackExchange*>(api);
  const bool usable = exchange != nullptr && exchange->major == 1 && exchange->tensor_from_object != nullptr;
  return usable ? exchange : nullptr;
}

}  // namespace

namespace {

struct ExchangeDType {
  std::uint8_t code, bits;
  DType dtype;
};
constexpr ExchangeDType exchange_dtypes[] = {
    {2, 32, DType::float32},   {2, 64, DType::float64},     {4, 16, DType::bfloat16}, {2, 16, DType::float16},
    {5, 64, DType::complex64}, {5, 128, DType::complex128}, {0, 8, DType::int8},      {0, 16, DType::int16},
    {0, 32, DType::int32},     {0, 64, DType::int64},       {1, 8, DType::uint8},     {1, 16, DType::uint16},
    {1, 32, DType::uint32},    {1, 64, DType::uint64},      {6, 8, DType::boolean}};

}  // namespace

bool exchange_dtype(const DLPackTensor& tensor, DType& out) {
  for (const ExchangeDType& d : exchange_dtypes) {
    if (d.code != tensor.code || d.bits != tensor.bits) continue;
    out = d.dtype;
    return tensor.lanes == 1;
  }
  return false;
}

void set_exchange_dtype(DLPackTensor& tensor, DType dtype) {
  for (const ExchangeDType& d : exchange_dtypes)
    if (d.dtype == dtype) tensor.code = d.code, tensor.bits = d.bits, tensor.lanes = 1;
}

const DLPackExchange* torch_exchange() {
  static const DLPackExchange* api = nullptr;
  if (api != nullptr) return api;
  PyObject* torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
  PyObject* tensor = torch == nullptr ? nullptr : PyObject_GetAttrString(torch, "Tensor");
  if (tensor != nullptr && PyType_Check(tensor)) api = exchange_of(reinterpret_cast<PyTypeObject*>(tensor));
  Py_XDECREF(tensor);
  PyErr_Clear();
  return api;
}

const DLPackExchange* find_exchange(PyTypeObject* type) {
  static std::size_t next = 0;
  if (is_plain(type)) return nullptr;
  static auto& known = *new std::unordered_map<PyTypeObject*, const DLPackExchange*>;
  auto found = known.find(type);
  if (found == known.end()) {
    const DLPackExchange* api = look_up(type);
    if (api == nullptr) return nullptr;
    Py_INCREF(type);  // so that its address stays its own
    found = known.emplace(type, api).first;
  }
  recent_exchanges[next++ % std::size(recent_exchanges)] = {type, found->second};
  return found->second;
}

}  // namespace optimisers::python
