// pure_update.cpp: copies of models that an update may write, and JAX's arrays in them afterwards.
#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "state/state.hpp"
#include "tree/torch_module.hpp"

namespace optimisers::python {

CopiedModel State::copied_model(std::uint32_t root, PyObject* model, const char* call,
                                std::unique_ptr<State>& new_state) {
  nb::object copy_tensor = nb::module_::import_("optimisers._arrays").attr("copied_tensor");
  CopiedModel copied;
  const auto copy_of = [&](PyObject* x, std::uint32_t leaf) -> nb::object {
    if (is_numpy(x)) return numpy_copy(x);
    if (is_tensor(x)) return copy_tensor(nb::borrow(x));
    const bool jax = is_jax(x);
    if (!jax && nb::hasattr(nb::handle(x), "copy")) return nb::handle(x).attr("copy")();
    nb::object values;
    const Fault fault = import_device_array(x, values);
    if (jax) copied.from_jax.emplace_back(leaf, nb::borrow(x));
    if (jax && fault == Fault::not_array) {
      if (values = jax_values(x); values.is_valid()) return numpy_copy(values.ptr());
      type_error(std::string(call) + ": parameter at \"" + spec_->text(spec_->leaf_node(leaf)) + "\" " +
                 fault_text(x, jax_fault(x)));
    }
    if (!jax || fault != Fault::none)
      type_error(std::string(call) + ": cannot copy " + type_name(x) +
                 " arrays, which have no method copy; use update_");
    const DeviceArray& array = *as_device_array(values.ptr());
    nb::object values_copied = device_copy(array.view(), array.dtype);
    new_state->hold({&values, 1});
    return values_copied;
  };
  Use use(*this);
  new_state = std::make_unique<State>(*this);
  if (layout_) {
    copied.model = copied.leaves.emplace_back(copy_of(model, 0));
    return copied;
  }
  walk_model(*spec_, root, model, call, model_);
  permuted_used_ = 0;
  copied.leaves.resize(leaves_.size());
  const Node& top = spec_->nodes[root];
  std::map<std::uint32_t, std::pair<PyObject*, ArrayView>> first;  // of tied leaves; JAX's are ties by identity
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec_->places[p];
    PyObject* x = model_[place.node];
    ArrayView view;
    const bool jax = is_jax(x);
    if (!jax) read_parameter(place, view, call);
    if (copied.leaves[place.leaf].is_valid()) {
      const auto& [object, at_first] = first.at(place.leaf);
      if (jax ? x != object : !is_tie(view, at_first)) refuse_untied(*spec_, place, call);
      continue;
    }
    if (spec_->tied()) first[place.leaf] = {x, view};
    nb::object array = copy_of(x, place.leaf);
    copied.leaves[place.leaf] = place.axes.empty() ? array : with_axes(array, place.axes);
  }
  copied.model = rebuild(*spec_, root, model_.all(), copied.leaves, Untrained::copied);
  return copied;
}

// JAX arrays were updated as NumPy arrays: the model once more, with JAX arrays at their places.
nb::object State::jax_model(std::uint32_t root, PyObject* model, CopiedModel&& copied, const char* call) {
  if (copied.from_jax.empty()) return copied.model;
  for (const auto& [leaf, old] : copied.from_jax) copied.leaves[leaf] = jax_from(copied.leaves[leaf], old.ptr());
  if (layout_) return copied.leaves[0];
  Use use(*this);
  walk_model(*spec_, root, model, call, model_);
  return rebuild(*spec_, root, model_.all(), copied.leaves, Untrained::copied);
}

}  // namespace optimisers::python
