// zero_grad.cpp: what becomes of kept gradients after a step. All that may fail is done before it.
#include <cstring>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "memory/overlap.hpp"
#include "memory/placed_arrays.hpp"
#include "state/kept.hpp"
#include "state/state.hpp"

namespace optimisers::python {
namespace {

bool set_none(PyObject* tensor) {
  static PyObject* name = PyUnicode_InternFromString("grad");
  return PyObject_SetAttr(tensor, name, Py_None) == 0;
}

// Of torch, kept for good.
struct TorchGrad {
  nb::object tensor, grad, function, disabled, without_overrides;

  static const TorchGrad& get() {
    static const TorchGrad& kept = *new TorchGrad;
    return kept;
  }
  static nb::object code(const nb::object& method) { return nb::getattr(method, "__func__", nb::none()); }

 private:
  TorchGrad() {
    const nb::object torch = nb::module_::import_("torch");
    tensor = torch.attr("Tensor");
    grad = tensor.attr("grad");
    function = code(tensor.attr("__torch_function__"));
    disabled = torch.attr("_C").attr("_disabled_torch_function_impl");
    without_overrides = torch.attr("_C").attr("DisableTorchFunction");
  }
};

// Whether `.grad` of a class is torch's own, so that setting it cannot fail.
bool is_own_grad(PyTypeObject* type) {
  const TorchGrad& torch = TorchGrad::get();
  const nb::object cls = nb::borrow(reinterpret_cast<PyObject*>(type));
  const nb::object function = cls.attr("__torch_function__");
  return type->tp_setattro == reinterpret_cast<PyTypeObject*>(torch.tensor.ptr())->tp_setattro &&
         cls.attr("grad").is(torch.grad) &&
         (function.is(torch.disabled) || TorchGrad::code(function).is(torch.function));
}

bool is_broadcast(const ArrayView& g) {
  for (int i = 0; i < g.ndim; ++i)
    if (g.strides != nullptr && g.strides[i] == 0 && g.shape[i] > 1) return true;
  return false;
}

void set_zero(const ArrayView& g) {
  const std::int64_t item = size_of(g.dtype), size = size_of(g);
  if (size == 0) return;
  if (is_contiguous(g)) {
    std::memset(g.data, 0, static_cast<std::size_t>(size * item));
    return;
  }
  for_each_run(g, 0, size, [&](std::byte* p, std::int64_t stride, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) std::memset(p + i * stride, 0, static_cast<std::size_t>(item));
  });
}

}  // namespace

// Classes with a `.grad` of their own are tried: they may refuse.
void State::prepare_none() {
  const PyTypeObject* known = nullptr;
  bool all_own = true;
  for (const nb::object& keeper : resets_->keepers) {
    if (Py_TYPE(keeper.ptr()) == known) continue;
    if (is_own_grad(Py_TYPE(keeper.ptr()))) {
      known = Py_TYPE(keeper.ptr());
      continue;
    }
    all_own = false;
    const nb::object gradient = kept_gradient(keeper.ptr());
    if (!set_none(keeper.ptr())) throw nb::python_error();
    keeper.attr("grad") = gradient;
  }
  if (!all_own || resets_->keepers.empty()) return;
  const nb::object guard = TorchGrad::get().without_overrides();
  resets_->enter = guard.attr("__enter__");
  resets_->exit = guard.attr("__exit__");
}

// Leaves whose memory no check of the step keeps clear of the gradients.
std::vector<ArrayView> State::unchecked_parameters() const {
  std::vector<ArrayView> arrays;
  for (std::size_t u = 0; u < used_; ++u)
    if (!updates_[u].dx.present || core_.frozen(updates_[u].leaf) || !user_stages_.empty())
      arrays.push_back(updates_[u].x);
  return arrays;
}

void State::prepare_zeros(std::uint32_t root, const char* call) {
  own_objects();
  const Node& top = spec_->nodes[root];
  const PlacedArrays placed(unchecked_parameters());
  nb::list tensors;
  const auto add = [&](PyObject* found, PyObject* read, std::uint32_t node, const ArrayView& x) {
    if (read == nullptr) return;
    const auto refuse = [&](const std::string& why) {
      const std::string place =
          layout_ && node == root ? "the flat gradient" : "gradient at \"" + spec_->text(node) + "\"";
      value_error(std::string(call) + ": " + place + " cannot be set to zero: it is " + why +
                  "; pass zero_grad=False, or a writable copy");
    };
    ArrayView g;
    // A marked tensor was read from a copy; zeros are zeros with any mark.
    const Fault fault = read_array(found, g);
    const bool as_found = fault == Fault::none || fault == Fault::lazy;
    if (!as_found && (is_numpy(read) || read_array(read, g) != Fault::none))
      refuse(a_type(found) + ", which nothing can be written to");
    if (is_broadcast(g)) refuse("a broadcast view");
    if (!g.writable) refuse("read-only");
    if (share_memory(g, x) || placed.first_shared(g, PlacedArrays::none) != PlacedArrays::none)
      refuse("memory of a parameter");
    (g.device == on_host ? resets_->zeroed : resets_->on_devices).push_back(g);
    if (!is_numpy(found) && is_tensor(found)) tensors.append(nb::borrow(found));
  };
  if (layout_ && gradients_[root] != nullptr && !is_container(kind_of(gradients_[root]))) {
    add(resets_->found[0].ptr(), gradients_[root], root, {});
  } else {
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      const Place& place = spec_->places[p];
      const std::size_t u = spec_->tied() ? static_cast<std::size_t>(update_of_leaf_[place.leaf]) : p - top.place_begin;
      add(resets_->found[p - top.place_begin].ptr(), gradients_[place.node], place.node, updates_[u].x);
    }
  }
  resets_->tensors = tensors;
}

void State::reset_gradients(ZeroGrad how) {
  if (how == ZeroGrad::to_zeros) {
    for (const ArrayView& g : resets_->zeroed) set_zero(g);
    if (!resets_->on_devices.empty()) device_zero(resets_->on_devices);
    const nb::list tensors = nb::borrow<nb::list>(resets_->tensors);
    if (nb::len(tensors) > 0) bump_versions(tensors);
    return;
  }
  if (resets_->enter.is_valid()) resets_->enter();
  nb::object first;  // of the exceptions; the other gradients are reset all the same
  for (const nb::object& keeper : resets_->keepers)
    if (!set_none(keeper.ptr())) {
      nb::python_error error;
      if (!first.is_valid()) first = nb::borrow(error.value());
    }
  if (resets_->exit.is_valid()) resets_->exit(nb::none(), nb::none(), nb::none());
  if (!first.is_valid()) return;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(first.ptr())), first.ptr());
  throw nb::python_error();
}

}  // namespace optimisers::python
