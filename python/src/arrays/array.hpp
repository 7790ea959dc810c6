// array.hpp: arrays of Python's array libraries as the core sees them: NumPy through its C struct, torch and others
// through the DLPack C exchange API of their class, all else on a CUDA device as a DeviceArray. Nothing is copied.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "optimisers/array.hpp"

namespace optimisers::python {

namespace nb = nanobind;

enum class Library : std::uint8_t { numpy, torch, cupy, jax, other };
Library library_of(PyObject* array);
const char* name_of(Library library);
std::optional<Library> library_from_name(std::string_view name);

// Why an object has no ArrayView.
enum class Fault : std::uint8_t {
  none,
  not_array,    // no array of a supported library
  unsupported,  // numbers we do not compute with: object, longdouble, float8 ...
  not_numeric,  // strings, dates, records
  byte_order,
  device,   // on an accelerator that is no CUDA device
  axes,     // more than max_ndim
  layout,   // sparse, meta ...: the library gives no pointer
  gone,     // a pointer that CUDA does not know (any more)
  lazy,     // torch's lazy conjugate or negative: the memory holds other values
  masked,   // some elements of NumPy's masked array are not to count
  traced,   // by JAX: there is a shape, and there are no values
  deleted,  // by JAX, as it was donated
};

Fault read_array(PyObject* object, ArrayView& view);
// The same for arrays of NumPy's own class and of this package, which runs nobody's code; false: it is none of those.
bool read_quietly(PyObject* object, ArrayView& view, Fault& fault);
// What read_quietly is none of: torch's, and others like it, and classes derived from NumPy's, whose properties are
// asked.
Fault read_exchanged(PyObject* object, ArrayView& view);
// Whether an array still has the memory and the number of elements that were read. Runs nobody's code.
bool still_has(PyObject* object, const ArrayView& view);
// The same, for arrays of that very class and its own dtypes; false: look closer. Calls nothing of the interpreter, so
// that any thread may while one holds it.
bool read_plain_numpy(PyObject* object, ArrayView& view);
// Whether an object is of a class of a module, which is asked only once somebody has imported it. The class is kept.
bool is_instance_of(PyObject* object, const char* module, const char* name, PyObject*& known);
bool is_numpy(PyObject* object);
bool is_numpy_exact(PyObject* object);  // of no subclass
bool is_numpy_scalar(PyObject* object);
bool is_tensor(PyObject* object);  // torch's
// Says what is wrong, as the end of a sentence that begins with the array's place.
std::string fault_text(PyObject* object, Fault fault);
std::string type_name(PyObject* object);
std::string a_type(PyObject* object);     // with the article: "an int"
std::string dtype_text(PyObject* array);  // "float32"

// The values of a lazily conjugated or negated tensor or of a NumPy scalar, in an array of their own; those of a JAX
// array, of any array on a CUDA device, or of what NumPy reads as one, where they are. Not valid: there is none, and
// `fault` says why.
nb::object materialised(PyObject* object, Fault& fault);

// Axis i of the result is axis axes[i] of the view. `memory` is for its shape and strides: twice its axes.
void permute_axes(ArrayView& view, const std::vector<int>& axes, std::int64_t* memory);

// A writable NumPy array of memory that `owner` keeps alive; C order.
nb::object numpy_view(std::byte* data, DType dtype, std::span<const std::int64_t> shape, nb::handle owner);
// NumPy: the elements [begin, begin + size) of a vector as an array of this shape, sharing its memory.
nb::object numpy_segment(PyObject* flat, const ArrayView& view, std::int64_t begin,
                         std::span<const std::int64_t> shape);
nb::object numpy_empty(DType dtype, std::span<const std::int64_t> shape);
nb::object numpy_copy(PyObject* array);  // same memory layout

// Tells torch that these tensors were written, so that a stale backward is caught.
void bump_versions(const nb::list& tensors);

void import_numpy_api();

}  // namespace optimisers::python
