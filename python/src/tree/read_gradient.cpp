// read_gradient.cpp: a gradient that a walk found, as the core sees it.
#include "arrays/array.hpp"
#include "errors.hpp"
#include "tree/walk.hpp"

namespace optimisers::python {
namespace {

[[noreturn]] void refuse_gradient(const TreeSpec& spec, std::uint32_t node, PyObject* object, Fault fault,
                                  const char* call) {
  const std::string place = std::string(call) + ": gradient at " + "\"" + spec.text(node) + "\"" + " ";
  const Kind kind = kind_of(object);
  if (is_container(kind))
    value_error(place + "is a " + name_of(kind) + ", the model there is an array; pass an array of its shape, or None");
  const std::string message = place + fault_text(object, fault);
  const bool of_value =
      fault == Fault::byte_order || fault == Fault::axes || fault == Fault::layout || fault == Fault::gone;
  of_value ? value_error(message) : type_error(message);
}

}  // namespace

bool read_gradient(const TreeSpec& spec, std::uint32_t node, Objects& gradients, const char* call, ArrayView& out) {
  PyObject* object = gradients[node];
  if (object == nullptr) return false;
  Fault fault = read_array(object, out);
  if (fault == Fault::none) [[likely]]
    return true;
  nb::object other = materialised(object, fault);
  if (!other.is_valid() || read_array(other.ptr(), out) != Fault::none)
    refuse_gradient(spec, node, object, fault, call);
  gradients.replace(node, std::move(other));
  return true;
}

}  // namespace optimisers::python
