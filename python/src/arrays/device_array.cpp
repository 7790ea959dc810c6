// device_array.cpp: importing arrays of other libraries, and memory of one's own.
#include "arrays/device_array.hpp"

#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "arrays/exchange.hpp"
#include "arrays/jax_arrays.hpp"
#include "arrays/streams.hpp"
#include "errors.hpp"
#include "optimisers/cuda.hpp"
#include "text.hpp"

namespace optimisers::python {
namespace {

bool type_has(PyObject* object, const char* name) {
  return PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)), name) == 1;
}

// A DeviceArray that is not yet filled in.
std::pair<nb::object, DeviceArray*> new_array() {
  nb::object object = nb::inst_alloc(nb::type<DeviceArray>());
  auto* array = new (nb::inst_ptr<DeviceArray>(object)) DeviceArray;
  nb::inst_mark_ready(object);
  return {object, array};
}

// __dlpack__ of libraries from before DLPack 1.0 does not know max_version.
nb::object capsule_of(PyObject* object, const nb::object& stream) {
  static auto& old = *new std::unordered_set<PyTypeObject*>;
  nb::object method = nb::borrow(object).attr("__dlpack__");
  if (!old.contains(Py_TYPE(object))) {
    nb::object capsule = nb::steal(PyObject_Call(method.ptr(), nb::tuple().ptr(),
                                                 [&] {
                                                   nb::dict keywords;
                                                   keywords["stream"] = stream;
                                                   keywords["max_version"] = nb::make_tuple(1, 0);
                                                   return keywords;
                                                 }()
                                                     .ptr()));
    if (capsule.is_valid()) return capsule;
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw nb::python_error();
    PyErr_Clear();
    Py_INCREF(Py_TYPE(object));  // so that its address stays its own
    old.insert(Py_TYPE(object));
  }
  return method(nb::arg("stream") = stream);
}

// The stream an array is to be ready on: this thread's. CuPy's, where this thread has none yet and CuPy captures a
// graph: the default stream cannot wait for that.
void* stream_for(int device, Library library) {
  void* here = cuda::stream(device);
  if (here != nullptr || library != Library::cupy) return here;
  void* theirs = cupy_stream(device);
  return captures(device, theirs) ? theirs : here;
}

// A library that is told -1 orders nothing: what is captured cannot wait for what is not. JAX would take -1 for the
// handle of a stream; told None, it waits on the host until the values are there.
nb::object stream_asked_for(PyObject* object, void* stream, bool in_order) {
  if (in_order) return nb::int_(public_handle(stream));
  return is_jax(object) ? nb::none() : nb::object(nb::int_(-1));
}

Fault import_dlpack(PyObject* object, int device, nb::object& out) {
  auto [result, array] = new_array();
  const bool ordered = cuda_status().on;
  array->library = library_of(object);
  array->stream = ordered ? stream_for(device, array->library) : nullptr;
  const bool in_order = !ordered || !captures(device, array->stream);
  array->owner = capsule_of(object, stream_asked_for(object, array->stream, in_order));
  const DLPackTensor* tensor = nullptr;
  if (PyCapsule_IsValid(array->owner.ptr(), "dltensor_versioned")) {
    auto* managed = static_cast<DLPackVersioned*>(PyCapsule_GetPointer(array->owner.ptr(), "dltensor_versioned"));
    if (managed->major != 1) return Fault::layout;
    array->writable = (managed->flags & DLPackVersioned::read_only) == 0;
    tensor = &managed->tensor;
  } else if (PyCapsule_IsValid(array->owner.ptr(), "dltensor")) {
    tensor = &static_cast<DLPackManaged*>(PyCapsule_GetPointer(array->owner.ptr(), "dltensor"))->tensor;
  }
  if (tensor == nullptr) return Fault::layout;
  if (!dl::on_cuda(tensor->device_type)) return Fault::device;
  if (!exchange_dtype(*tensor, array->dtype)) return Fault::unsupported;
  if (tensor->ndim < 0 || tensor->ndim > max_ndim) return Fault::axes;
  array->data = static_cast<std::byte*>(tensor->data) + tensor->byte_offset;
  array->device = tensor->device_id;
  array->shape.assign(tensor->shape, tensor->shape + tensor->ndim);
  if (tensor->strides != nullptr)
    for (int i = 0; i < tensor->ndim; ++i) array->strides.push_back(tensor->strides[i] * size_of(array->dtype));
  if (is_jax(object)) array->writable = false;
  out = std::move(result);
  return Fault::none;
}

// "<f4" and the like; there is none for bfloat16.
Fault dtype_of_typestr(const char* text, DType& dtype) {
  static constexpr std::pair<std::string_view, DType> known[] = {
      {"f2", DType::float16},     {"f4", DType::float32}, {"f8", DType::float64}, {"c8", DType::complex64},
      {"c16", DType::complex128}, {"b1", DType::boolean}, {"i1", DType::int8},    {"i2", DType::int16},
      {"i4", DType::int32},       {"i8", DType::int64},   {"u1", DType::uint8},   {"u2", DType::uint16},
      {"u4", DType::uint32},      {"u8", DType::uint64}};
  const std::string_view all = text;
  if (all.size() < 3) return Fault::unsupported;
  for (const auto& [name, d] : known) {
    if (all.substr(1) != name) continue;
    if (all[0] == '>') return Fault::byte_order;
    dtype = d;
    return Fault::none;
  }
  return Fault::unsupported;
}

Fault import_interface(PyObject* object, const nb::object& interface, nb::object& out) {
  auto [result, array] = new_array();
  array->owner = nb::borrow(object);
  array->library = library_of(object);
  nb::dict fields = nb::cast<nb::dict>(interface);
  if (fields.contains("mask") && !fields["mask"].is_none()) return Fault::layout;
  if (const Fault fault = dtype_of_typestr(str_text(fields["typestr"]).c_str(), array->dtype); fault != Fault::none)
    return fault;
  array->data = reinterpret_cast<std::byte*>(nb::cast<std::uintptr_t>(fields["data"][0]));
  array->writable = !nb::cast<bool>(fields["data"][1]);
  for (nb::handle n : fields["shape"]) array->shape.push_back(nb::cast<std::int64_t>(n));
  if (fields.contains("strides") && !fields["strides"].is_none())
    for (nb::handle n : fields["strides"]) array->strides.push_back(nb::cast<std::int64_t>(n));
  if (array->shape.size() > static_cast<std::size_t>(max_ndim)) return Fault::axes;
  if (fields.contains("stream") && !fields["stream"].is_none()) {
    array->stream = stream_of_handle(nb::cast<std::uintptr_t>(fields["stream"]));
    array->names_stream = true;
  }
  if (cuda_status().on) {
    array->device = array->data == nullptr ? 0 : cuda::device_of(array->data);
    if (array->device < 0) return Fault::gone;
    if (array->names_stream) follow_array(*array);
  }
  out = std::move(result);
  return Fault::none;
}

}  // namespace

DeviceArray::~DeviceArray() {
  if (!owner.is_valid() && data != nullptr) cuda::release(device, data);
}

Fault import_device_array(PyObject* object, nb::object& out) {
  if (type_has(object, "__dlpack_device__")) {
    nb::object where = nb::steal(PyObject_CallMethod(object, "__dlpack_device__", nullptr));
    if (!where.is_valid()) {  // while JAX traces, or spread over several devices
      PyErr_Clear();
      return Fault::not_array;
    }
    const int type = nb::cast<int>(nb::int_(nb::object(where[0])));
    if (dl::on_cuda(type)) return import_dlpack(object, nb::cast<int>(nb::int_(nb::object(where[1]))), out);
    return dl::on_host(type) ? Fault::not_array : Fault::device;
  }
  if (!type_has(object, "__cuda_array_interface__")) return Fault::not_array;
  nb::object interface = nb::getattr(object, "__cuda_array_interface__", nb::handle());
  return interface.is_valid() ? import_interface(object, interface, out) : Fault::not_array;
}

void follow_imported(std::span<const nb::object> arrays) {
  for (const nb::object& object : arrays) {
    const DeviceArray* array = as_device_array(object.ptr());
    if (array != nullptr) follow_array(*array);
  }
}

void DeviceArray::precede(void* other) const {
  if (written.device() >= 0) written.precede(other);
  else if (stream != other) cuda::follow(device, other, stream);
}

void follow_array(const DeviceArray& array) {
  if (!cuda::capturing(array.device)) array.precede(cuda::stream(array.device));
}

Fault read_any(PyObject* object, ArrayView& view, nb::object& read_from) {
  read_from = nb::borrow(object);
  Fault fault = read_array(object, view);
  if (fault != Fault::not_array) return fault;
  fault = import_device_array(object, read_from);
  if (fault == Fault::none) view = as_device_array(read_from.ptr())->view();
  return fault;
}

nb::object device_view(std::byte* data, int device, DType dtype, std::span<const std::int64_t> shape,
                       nb::handle owner) {
  auto [object, array] = new_array();
  array->owner = nb::borrow(owner);
  array->data = data;
  array->device = device;
  array->dtype = dtype;
  array->shape.assign(shape.begin(), shape.end());
  array->written = cuda::Mark(device);
  return object;
}

nb::object slot_view(const SlotView& slot, std::span<const std::int64_t> shape, nb::handle owner) {
  return slot.device == on_host ? numpy_view(slot.data, slot.dtype, shape, owner)
                                : device_view(slot.data, slot.device, slot.dtype, shape, owner);
}

nb::object device_segment(nb::handle flat, const ArrayView& view, std::int64_t begin,
                          std::span<const std::int64_t> shape) {
  const std::int64_t step = view.strides ? view.strides[0] * view.stride_unit : size_of(view.dtype);
  nb::object object = device_view(view.data + begin * step, view.device, view.dtype, shape, flat);
  DeviceArray& array = *as_device_array(object.ptr());
  array.writable = view.writable;
  if (step != size_of(view.dtype)) array.strides = c_strides(shape, step);
  return object;
}

nb::object device_zeros(int device, DType dtype, std::span<const std::int64_t> shape) {
  auto [object, array] = new_array();
  array->device = device;
  array->dtype = dtype;
  array->shape.assign(shape.begin(), shape.end());
  array->written = cuda::Mark(device);
  const std::int64_t bytes = size_of(shape) * size_of(dtype);
  if (bytes > 0) array->data = cuda::allocate(device, static_cast<std::size_t>(bytes));
  return object;
}

void device_zero(std::span<const ArrayView> arrays) {
  std::unordered_map<int, std::vector<ArrayView>> by_device;
  for (const ArrayView& a : arrays) by_device[a.device].push_back(a);
  for (const auto& [device, views] : by_device) cuda::zero(device, views);
}

nb::object device_copy(const ArrayView& view, DType dtype) {
  nb::object object = device_zeros(view.device, dtype, {view.shape, static_cast<std::size_t>(view.ndim)});
  DeviceArray& copy = *as_device_array(object.ptr());
  const ArrayView to = copy.view();
  cuda::transfer(view.device, {&to, 1}, {&view, 1});
  copy.written = cuda::Mark(view.device);
  return object;
}

}  // namespace optimisers::python
