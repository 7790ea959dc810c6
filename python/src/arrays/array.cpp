// array.cpp: importing arrays. The two fast roads cost about 4 ns (NumPy) and 55 ns (torch) an array.
#include "arrays/array.hpp"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "arrays/device_array.hpp"
#include "arrays/exchange.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"

static_assert(sizeof(npy_intp) == sizeof(std::int64_t), "a 64-bit platform is needed");

namespace optimisers::python {
namespace {

constexpr std::int8_t no_dtype = -1;
constexpr std::uintptr_t lowest_address = 1 << 16;  // that Linux gives to anybody

template <class T>
constexpr DType integer_dtype() {
  constexpr bool is_signed = std::is_signed_v<T>;
  if constexpr (sizeof(T) == 1) return is_signed ? DType::int8 : DType::uint8;
  else if constexpr (sizeof(T) == 2) return is_signed ? DType::int16 : DType::uint16;
  else if constexpr (sizeof(T) == 4) return is_signed ? DType::int32 : DType::uint32;
  else return is_signed ? DType::int64 : DType::uint64;
}

struct NumpyDTypes {
  std::int8_t of[NPY_NTYPES_LEGACY];
  constexpr NumpyDTypes() : of() {
    for (auto& d : of) d = no_dtype;
    set(NPY_HALF, DType::float16), set(NPY_FLOAT, DType::float32), set(NPY_DOUBLE, DType::float64);
    set(NPY_CFLOAT, DType::complex64), set(NPY_CDOUBLE, DType::complex128), set(NPY_BOOL, DType::boolean);
    set(NPY_BYTE, integer_dtype<signed char>()), set(NPY_UBYTE, integer_dtype<unsigned char>());
    set(NPY_SHORT, integer_dtype<short>()), set(NPY_USHORT, integer_dtype<unsigned short>());
    set(NPY_INT, integer_dtype<int>()), set(NPY_UINT, integer_dtype<unsigned int>());
    set(NPY_LONG, integer_dtype<long>()), set(NPY_ULONG, integer_dtype<unsigned long>());
    set(NPY_LONGLONG, integer_dtype<long long>()), set(NPY_ULONGLONG, integer_dtype<unsigned long long>());
  }
  constexpr void set(int type_num, DType d) { of[type_num] = static_cast<std::int8_t>(d); }
};
constexpr NumpyDTypes numpy_dtypes;

// ml_dtypes registers bfloat16 with NumPy when it is imported, under a number only known then.
int bfloat16_type_num = -1;

bool is_ml_bfloat16(PyArray_Descr* descr) {
  if (descr->type_num == bfloat16_type_num) return true;
  if (bfloat16_type_num >= 0 || descr->type_num < NPY_USERDEF) return false;
  PyObject* module = PyDict_GetItemString(PyImport_GetModuleDict(), "ml_dtypes");
  if (module == nullptr) return false;
  PyObject* type = PyModule_Check(module) ? PyDict_GetItemString(PyModule_GetDict(module), "bfloat16") : nullptr;
  if (type != reinterpret_cast<PyObject*>(descr->typeobj)) return false;
  bfloat16_type_num = descr->type_num;
  return true;
}

Fault numpy_dtype_fault(PyArray_Descr* descr) {
  const int type = descr->type_num;
  const bool text_or_date = type == NPY_STRING || type == NPY_UNICODE || type == NPY_VOID || type == NPY_DATETIME ||
                            type == NPY_TIMEDELTA || type == NPY_VSTRING;
  return text_or_date ? Fault::not_numeric : Fault::unsupported;
}

// NumPy's own dtypes.
bool plain_dtype(PyArrayObject* a, DType& dtype) {
  const unsigned type = static_cast<unsigned>(PyArray_DESCR(a)->type_num);
  const std::int8_t known = type < NPY_NTYPES_LEGACY ? numpy_dtypes.of[type] : no_dtype;
  if (known == no_dtype) return false;
  dtype = static_cast<DType>(known);
  return true;
}

void view_numpy(PyArrayObject* a, ArrayView& view) {
  view.data = reinterpret_cast<std::byte*>(PyArray_DATA(a));
  view.shape = reinterpret_cast<const std::int64_t*>(PyArray_DIMS(a));
  view.strides = PyArray_IS_C_CONTIGUOUS(a) ? nullptr : reinterpret_cast<const std::int64_t*>(PyArray_STRIDES(a));
  view.stride_unit = 1;
  view.ndim = PyArray_NDIM(a);
  view.writable = PyArray_ISWRITEABLE(a);
  view.present = true;
  view.device = on_host;
}

// Of another library, such as astropy: a class with data and mask apart. Runs nobody's code.
bool is_masked_class(PyTypeObject* type) {
  static PyObject* mask = PyUnicode_InternFromString("mask");
  static PyObject* unmasked = PyUnicode_InternFromString("unmasked");
  return _PyType_Lookup(type, unmasked) != nullptr && _PyType_Lookup(type, mask) != nullptr;
}

bool has_mask(PyObject* object) {
  if (is_masked_class(Py_TYPE(object))) return true;
  static PyObject* masked_class = nullptr;
  if (!is_instance_of(object, "numpy.ma", "MaskedArray", masked_class)) return false;
  return PyArray_Check(nb::borrow(object).attr("_mask").ptr());  // otherwise numpy.ma.nomask, a scalar
}

Fault import_numpy(PyArrayObject* a, ArrayView& view) {
  if (!plain_dtype(a, view.dtype)) {
    if (!is_ml_bfloat16(PyArray_DESCR(a))) return numpy_dtype_fault(PyArray_DESCR(a));
    view.dtype = DType::bfloat16;
  }
  if (PyArray_ISBYTESWAPPED(a)) return Fault::byte_order;
  if (!PyArray_CheckExact(a) && has_mask(reinterpret_cast<PyObject*>(a))) return Fault::masked;
  view_numpy(a, view);
  return Fault::none;
}

// What cannot be found out is no "no": the memory would be read for other values than it stands for. Only classes that
// are not torch's may lack the method.
bool method_is_true(PyObject* object, const char* name) {
  nb::object result = nb::steal(PyObject_CallMethod(object, name, nullptr));
  if (!result.is_valid()) {
    nb::python_error error;  // takes the error away: looking for torch may clear it
    if (is_tensor(object) || !error.matches(PyExc_AttributeError)) throw error;
    return false;
  }
  const int truth = PyObject_IsTrue(result.ptr());
  if (truth < 0) throw nb::python_error();
  return truth == 1;
}

// torch marks conjugates and negatives instead of computing them, which the exchange API does not report. A real
// tensor gets the mark only as imaginary part of a conjugate, which is never contiguous unless it has one element.
bool is_lazy(PyObject* object, const ArrayView& view) {
  if (is_complex_dtype(view.dtype)) return method_is_true(object, "is_conj") || method_is_true(object, "is_neg");
  return (size_of(view) == 1 || !is_contiguous(view)) && method_is_true(object, "is_neg");
}

Fault import_exchange(const DLPackExchange* api, PyObject* object, ArrayView& view) {
  DLPackTensor t{};
  if (api->tensor_from_object(object, &t) != 0) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) throw nb::python_error();  // Ctrl-C is no answer
    PyErr_Clear();
    return Fault::layout;
  }
  if (!exchange_dtype(t, view.dtype)) return Fault::unsupported;
  if (t.ndim < 0 || t.ndim > max_ndim) return Fault::axes;
  if (!dl::on_host(t.device_type) && !dl::on_cuda(t.device_type)) return Fault::device;
  view.device = dl::on_host(t.device_type) ? on_host : static_cast<std::int8_t>(t.device_id);
  view.data = static_cast<std::byte*>(t.data) + t.byte_offset;
  view.shape = t.shape;
  view.strides = t.strides;
  view.stride_unit = size_of(view.dtype);
  view.ndim = t.ndim;
  view.writable = true;
  view.present = true;
  // A fake, or its storage was let go; the view of an offset into none is not null.
  if (reinterpret_cast<std::uintptr_t>(view.data) < lowest_address && size_of(view) != 0) return Fault::layout;
  return is_trainable(view.dtype) && is_lazy(object, view) ? Fault::lazy : Fault::none;
}

}  // namespace

bool read_quietly(PyObject* object, ArrayView& view, Fault& fault) {
  if (!PyArray_CheckExact(object)) {
    if (const DeviceArray* array = as_device_array(object)) {
      array->view_into(view);
      fault = Fault::none;
      return true;
    }
    return false;
  }
  fault = import_numpy(reinterpret_cast<PyArrayObject*>(object), view);
  return true;
}

bool read_plain_numpy(PyObject* object, ArrayView& view) {
  PyArrayObject* a = reinterpret_cast<PyArrayObject*>(object);
  if (!PyArray_CheckExact(object) || !plain_dtype(a, view.dtype) || PyArray_ISBYTESWAPPED(a)) return false;
  view_numpy(a, view);
  return true;
}

Fault read_array(PyObject* object, ArrayView& view) {
  Fault fault;
  return read_quietly(object, view, fault) ? fault : read_exchanged(object, view);
}

Fault read_exchanged(PyObject* object, ArrayView& view) {
  const DLPackExchange* api = recent_exchange(Py_TYPE(object));
  if (api == nullptr && PyArray_Check(object)) return import_numpy(reinterpret_cast<PyArrayObject*>(object), view);
  if (api == nullptr) api = find_exchange(Py_TYPE(object));
  return api == nullptr ? Fault::not_array : import_exchange(api, object, view);
}

bool still_has(PyObject* object, const ArrayView& view) {
  if (PyArray_Check(object)) {
    auto* a = reinterpret_cast<PyArrayObject*>(object);
    return reinterpret_cast<std::byte*>(PyArray_DATA(a)) == view.data && PyArray_SIZE(a) == size_of(view);
  }
  if (as_device_array(object) != nullptr) return true;
  DLPackTensor t{};
  const DLPackExchange* api = exchange_of(Py_TYPE(object));
  if (api == nullptr) return true;
  if (api->tensor_from_object(object, &t) != 0) {
    PyErr_Clear();
    return false;
  }
  std::int64_t size = 1;
  for (int i = 0; i < t.ndim; ++i) size *= t.shape[i];
  return static_cast<std::byte*>(t.data) + t.byte_offset == view.data && size == size_of(view);
}

bool is_numpy(PyObject* object) { return PyArray_Check(object); }
bool is_numpy_exact(PyObject* object) { return PyArray_CheckExact(object); }
bool is_numpy_scalar(PyObject* object) { return PyArray_IsScalar(object, Generic); }
bool is_tensor(PyObject* object) {
  if (PyArray_CheckExact(object) || as_device_array(object) != nullptr) return false;
  const DLPackExchange *torch = torch_exchange(), *known = recent_exchange(Py_TYPE(object));
  if (torch == nullptr || known != nullptr) return torch != nullptr && known == torch;
  return !PyArray_Check(object) && find_exchange(Py_TYPE(object)) == torch;
}

nb::object materialised(PyObject* object, Fault& fault) {
  if (fault == Fault::lazy) return nb::borrow(object).attr("resolve_conj")().attr("resolve_neg")();
  if (fault == Fault::not_array && is_numpy_scalar(object)) {
    nb::object array = nb::steal(PyArray_FromScalar(object, nullptr));
    if (!array.is_valid()) throw nb::python_error();
    return array;
  }
  if (fault != Fault::not_array) return {};
  nb::object array;
  fault = import_device_array(object, array);
  if (fault != Fault::not_array) return array;
  if (is_jax_extended(object)) return {};  // random keys
  if (!is_jax(object)) {
    array = nb::module_::import_("optimisers._arrays").attr("as_numpy")(nb::borrow(object));
    return array.is_none() ? nb::object() : array;
  }
  array = jax_values(object);
  if (!array.is_valid()) fault = jax_fault(object);
  return array;
}

namespace {

nb::object checked(PyObject* object) {
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

int type_num_of(DType dtype) {
  if (dtype == DType::bfloat16 && bfloat16_type_num < 0)
    type_error("NumPy has no bfloat16; import ml_dtypes, which adds it");
  for (int i = 0; i < NPY_NTYPES_LEGACY; ++i)
    if (numpy_dtypes.of[i] == static_cast<std::int8_t>(dtype)) return i;
  return bfloat16_type_num;
}

void set_base(const nb::object& array, nb::handle owner) {
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.ptr()), owner.inc_ref().ptr()) != 0)
    throw nb::python_error();
}

}  // namespace

void permute_axes(ArrayView& view, const std::vector<int>& axes, std::int64_t* memory) {
  const std::size_t n = axes.size();
  std::int64_t packed[max_ndim];
  if (view.strides == nullptr) {
    std::int64_t next = size_of(view.dtype);
    for (std::size_t i = n; i-- > 0;) {
      packed[i] = next;
      next *= view.shape[i];
    }
    view.strides = packed;
    view.stride_unit = 1;
  }
  for (std::size_t i = 0; i < n; ++i) {
    memory[i] = view.shape[axes[i]];
    memory[n + i] = view.strides[axes[i]];
  }
  view.shape = memory;
  view.strides = memory + n;
}

nb::object numpy_view(std::byte* data, DType dtype, std::span<const std::int64_t> shape, nb::handle owner) {
  auto* dims = reinterpret_cast<npy_intp*>(const_cast<std::int64_t*>(shape.data()));
  // An empty slot has no memory, and NumPy would allocate for a null pointer.
  static std::byte nothing[16];
  nb::object array = checked(PyArray_New(&PyArray_Type, static_cast<int>(shape.size()), dims, type_num_of(dtype),
                                         nullptr, data ? data : nothing, 0, NPY_ARRAY_CARRAY, nullptr));
  set_base(array, owner);
  return array;
}

nb::object numpy_segment(PyObject* flat, const ArrayView& view, std::int64_t begin,
                         std::span<const std::int64_t> shape) {
  auto* source = reinterpret_cast<PyArrayObject*>(flat);
  const std::int64_t step = view.strides ? view.strides[0] * view.stride_unit : size_of(view.dtype);
  std::vector<npy_intp> dims(shape.begin(), shape.end()), strides(shape.size());
  npy_intp next = step;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = next;
    next *= dims[i];
  }
  PyArray_Descr* descr = PyArray_DESCR(source);
  Py_INCREF(descr);
  nb::object array = checked(PyArray_NewFromDescr(
      &PyArray_Type, descr, static_cast<int>(dims.size()), dims.data(), strides.data(), view.data + begin * step,
      PyArray_FLAGS(source) & (NPY_ARRAY_WRITEABLE | NPY_ARRAY_ALIGNED), nullptr));
  set_base(array, flat);
  return array;
}

nb::object numpy_empty(DType dtype, std::span<const std::int64_t> shape) {
  auto* dims = reinterpret_cast<npy_intp*>(const_cast<std::int64_t*>(shape.data()));
  return checked(PyArray_SimpleNew(static_cast<int>(shape.size()), dims, type_num_of(dtype)));
}

nb::object numpy_copy(PyObject* array) {
  return checked(PyArray_NewCopy(reinterpret_cast<PyArrayObject*>(array), NPY_KEEPORDER));
}

void import_numpy_api() {
  if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
}

}  // namespace optimisers::python
