// bind_devices.cpp: DeviceArray as Python sees it, moving arrays between host and devices, and what doctor asks.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays/device_array.hpp"
#include "arrays/exchange.hpp"
#include "arrays/streams.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "optimisers/cuda.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// What an exported tensor needs until its consumer lets go.
template <class Managed>
struct Exported {
  Managed managed{};
  std::vector<std::int64_t> strides;  // in elements
  PyObject* array;
};

template <class Managed>
void let_go(Managed* managed) {
  auto* exported = static_cast<Exported<Managed>*>(managed->context);
  if (Py_IsInitialized() != 0) {  // consumers free tensors on any thread, and after the interpreter
    const PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF(exported->array);
    PyGILState_Release(gil);
  }
  delete exported;
}

// A consumer renames the capsule it takes; one that nobody took is let go with it.
template <class Managed>
void drop_capsule(PyObject* capsule) {
  const char* name = PyCapsule_GetName(capsule);
  if (name == nullptr || std::string_view(name).starts_with("used_")) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

template <class Managed>
nb::object capsule_of(nb::handle self, const char* name) {
  const DeviceArray& array = *as_device_array(self.ptr());
  auto* exported = new Exported<Managed>;
  exported->array = self.inc_ref().ptr();
  exported->strides = array.strides.empty() ? c_strides(array.shape) : array.strides;
  if (!array.strides.empty())
    for (std::int64_t& stride : exported->strides) stride /= size_of(array.dtype);
  Managed& managed = exported->managed;
  managed.context = exported;
  managed.deleter = &let_go<Managed>;
  if constexpr (std::is_same_v<Managed, DLPackVersioned>) {
    managed.major = 1;
    managed.minor = 0;
    managed.flags = array.writable ? 0 : DLPackVersioned::read_only;
  }
  managed.tensor = {.data = array.data,
                    .device_type = dl::cuda,
                    .device_id = array.device,
                    .ndim = static_cast<std::int32_t>(array.shape.size()),
                    .code = 0,
                    .bits = 0,
                    .lanes = 1,
                    .shape = const_cast<std::int64_t*>(array.shape.data()),
                    .strides = exported->strides.data(),
                    .byte_offset = 0};
  set_exchange_dtype(managed.tensor, array.dtype);
  nb::object capsule = nb::steal(PyCapsule_New(&managed, name, &drop_capsule<Managed>));
  if (!capsule.is_valid()) throw nb::python_error();
  return capsule;
}

// For work on this thread's stream: after what writes the array.
ArrayView ready(const DeviceArray& array) {
  follow_array(array);
  return array.view();
}
nb::object copied(const DeviceArray& array, DType dtype) { return device_copy(ready(array), dtype); }

// The consumer's stream goes on after what writes the array; -1: it sees to that itself.
nb::object dlpack(nb::handle self, nb::handle stream, nb::handle max_version, nb::handle dl_device, nb::handle copy) {
  nb::object kept = nb::borrow(self);
  if (copy.ptr() == Py_True) {
    const DeviceArray& from = *as_device_array(self.ptr());
    kept = copied(from, from.dtype);
  }
  const DeviceArray& array = *as_device_array(kept.ptr());
  if (!dl_device.is_none() && !nb::make_tuple(std::int32_t{dl::cuda}, array.device).equal(dl_device)) {
    PyErr_SetString(PyExc_BufferError, "__dlpack__: this array is on another device; use to_device");
    throw nb::python_error();
  }
  if (stream.is_none() || nb::cast<long long>(stream) != -1) {
    void* consumer = stream.is_none() ? nullptr : stream_of_handle(nb::cast<std::uintptr_t>(stream));
    array.precede(consumer);
  }
  const bool versioned = !max_version.is_none() && nb::cast<int>(max_version[0]) >= 1;
  if (!versioned && !array.writable) {
    PyErr_SetString(PyExc_BufferError, "__dlpack__: a read-only array can be handed over since DLPack 1.0 only");
    throw nb::python_error();
  }
  return versioned ? capsule_of<DLPackVersioned>(kept, "dltensor_versioned")
                   : capsule_of<DLPackManaged>(kept, "dltensor");
}

nb::tuple tuple_of(const std::vector<std::int64_t>& values) {
  nb::list list;
  for (auto n : values) list.append(n);
  return nb::tuple(list);
}

nb::object numpy_dtype_of(DType dtype) {
  return nb::module_::import_("optimisers._arrays").attr("numpy_dtype")(std::string(name_of(dtype)).c_str());
}

nb::dict interface_of(const DeviceArray& array) {
  if (array.dtype == DType::bfloat16) throw nb::attribute_error("the CUDA array interface has no bfloat16; use DLPack");
  nb::dict fields;
  fields["version"] = 3;
  fields["shape"] = tuple_of(array.shape);
  fields["strides"] = array.strides.empty() ? nb::none() : nb::object(tuple_of(array.strides));
  fields["typestr"] = numpy_dtype_of(array.dtype).attr("str");
  fields["data"] = nb::make_tuple(reinterpret_cast<std::uintptr_t>(array.data), !array.writable);
  array.precede(nullptr);  // the one stream that is there as long as the consumer may ask
  fields["stream"] = public_handle(nullptr);
  return fields;
}

// Any array this module can read: its view, and what that is of.
std::pair<ArrayView, nb::object> read(nb::handle object, const char* place) {
  ArrayView view;
  nb::object kept = nb::borrow(object);
  Fault fault = read_array(object.ptr(), view);
  if (fault != Fault::none) {
    kept = materialised(object.ptr(), fault);
    if (!kept.is_valid() || read_array(kept.ptr(), view) != Fault::none)
      type_error(std::string(place) + " " + fault_text(object.ptr(), fault));
  }
  return {view, kept};
}

// The values in new memory: as a NumPy array on the host, where they have arrived on return, or as a DeviceArray.
nb::object moved(nb::handle object, int device) {
  auto [from, kept] = read(object, "to_device: array");
  if (device != on_host || from.device != on_host) require_cuda("to_device: array");
  if (device != on_host) check_device(device);
  if (const DeviceArray* array = as_device_array(kept.ptr())) ready(*array);
  if (from.device != on_host && !is_contiguous(from)) {
    kept = device_copy(from, from.dtype);
    from = as_device_array(kept.ptr())->view();
  } else if (!is_contiguous(from)) {
    kept = kept.attr("copy")(nb::arg("order") = "C");
    read_array(kept.ptr(), from);
  }
  const std::span<const std::int64_t> shape(from.shape, static_cast<std::size_t>(from.ndim));
  nb::object array = device == on_host ? numpy_empty(from.dtype, shape) : device_zeros(device, from.dtype, shape);
  ArrayView to;
  read_array(array.ptr(), to);
  const auto bytes = static_cast<std::size_t>(size_of(from) * size_of(from.dtype));
  Unlocked unlocked;
  if (bytes > 0) cuda::copy(to.data, device, from.data, from.device, bytes);
  if (device != on_host) cuda::wait(device);  // the source may be gone as soon as this returns
  return array;
}

DType dtype_called(const std::string& name) {
  const auto dtype = dtype_from_name(name);
  if (!dtype) type_error("\"" + name + "\" is no dtype that arrays on a device can have");
  return *dtype;
}

nb::object zeros(const std::vector<std::int64_t>& shape, const std::string& dtype, int device) {
  if (shape.size() > static_cast<std::size_t>(max_ndim))
    value_error("array: expected at most " + std::to_string(max_ndim) + " axes, got " + std::to_string(shape.size()));
  std::int64_t left = std::int64_t(1) << 58;  // bytes
  for (const std::int64_t n : shape) {
    if (n < 0 || n > left) value_error("array: an axis has the length " + std::to_string(n));
    if (n > 0) left /= n;
  }
  require_cuda("array");
  check_device(device);
  return device_zeros(device, dtype_called(dtype), shape);
}

nb::object converted(nb::handle array, const std::string& dtype) {
  const DeviceArray* from = as_device_array(array.ptr());
  if (from == nullptr) type_error("expected a DeviceArray");
  return copied(*from, dtype_called(dtype));
}

nb::tuple status() {
  const CudaStatus& s = cuda_status();
  std::vector<std::string> names;
  if (s.on)
    for (const cuda::Device& d : cuda::devices()) names.push_back(d.name);
  return nb::make_tuple(s.on, s.reason, names);
}

constexpr const char* doc =
    R"(An array in the memory of a CUDA device, of no array library.

State arrays of leaves whose library this package cannot make arrays of are given as such, and what `to_device` moves
to a device without CuPy. Other libraries take it without a copy, through DLPack or the CUDA array interface:
`torch.from_dlpack(a)`, `cupy.asarray(a)`. `to_device(a, "cpu")` gives a NumPy array.
)";

}  // namespace

void bind_devices(nb::module_& m) {
  nb::class_<DeviceArray> type(m, "DeviceArray", doc);
  DeviceArray::type = reinterpret_cast<PyTypeObject*>(type.ptr());
  type.def_prop_ro("shape", [](const DeviceArray& a) { return tuple_of(a.shape); })
      .def_prop_ro("ndim", [](const DeviceArray& a) { return a.shape.size(); })
      .def_prop_ro("size", [](const DeviceArray& a) { return size_of(a.view()); })
      .def_prop_ro("dtype", [](const DeviceArray& a) { return numpy_dtype_of(a.dtype); })
      .def_prop_ro("device", [](const DeviceArray& a) { return "cuda:" + std::to_string(a.device); })
      .def_prop_ro("__cuda_array_interface__", &interface_of)
      .def("__dlpack__", &dlpack, nb::kw_only(), nb::arg("stream").none() = nb::none(),
           nb::arg("max_version").none() = nb::none(), nb::arg("dl_device").none() = nb::none(),
           nb::arg("copy").none() = nb::none())
      .def("__dlpack_device__", [](const DeviceArray& a) { return nb::make_tuple(std::int32_t{dl::cuda}, a.device); })
      .def("copy", [](const DeviceArray& a) { return copied(a, a.dtype); })
      .def("__repr__", [](const DeviceArray& a) {
        return "DeviceArray(shape=" + shape_text(a.shape) + ", dtype=" + std::string(name_of(a.dtype)) +
               ", device=cuda:" + std::to_string(a.device) + ")";
      });
  m.def("cuda_status", &status);
  m.def("moved", &moved, nb::arg().none(), nb::arg());
  m.def("library_of", [](nb::handle array) { return name_of(library_of(array.ptr())); }, nb::arg().none());
  m.def(
      "device_of", [](nb::handle array) { return static_cast<int>(read(array, "array").first.device); },
      nb::arg().none());
  m.def("device_zeros", &zeros);
  m.def("device_converted", &converted, nb::arg().none(), nb::arg());
}

}  // namespace optimisers::python
