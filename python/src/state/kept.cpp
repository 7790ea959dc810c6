// kept.cpp: reading and zeroing gradients that the arrays keep.
#include "state/kept.hpp"

#include <cstring>
#include <string>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "state/state.hpp"

namespace optimisers::python {

bool keeps_gradient(PyObject* array) { return is_tensor(array); }

[[noreturn]] void refuse_without_gradient(PyObject* array, const std::string& place, const char* call) {
  value_error(std::string(call) + ": " + place + " is a " + type_name(array) +
              ", which keeps no gradient; pass the gradients as third argument");
}

nb::object kept_gradient(PyObject* array) {
  static PyObject* name = PyUnicode_InternFromString("grad");
  nb::object gradient = nb::steal(PyObject_GetAttr(array, name));
  if (!gradient.is_valid()) throw nb::python_error();
  return gradient;
}

void State::find_gradients(std::uint32_t root, const GradientSource& source, const char* call) {
  if (source.tree != nullptr) return borrow_gradients(*spec_, root, source.tree, call, model_, gradients_);
  model_.own();
  const bool of_this_model = source.kept_by == model_[root];  // not of one that this is a copy of
  if (of_this_model) gradients_.begin(root);
  else walk_model(*spec_, root, source.kept_by, call, gradients_);
  gradients_.own();
  const Node& top = spec_->nodes[root];
  std::vector<bool> found(spec_->tied() ? leaves_.size() : 0);
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec_->places[p];
    nb::object gradient;
    if (found.empty() ||
        !found[place.leaf]) {  // a tied leaf's places may be views, which hold none: ask until one does
      PyObject* array = of_this_model ? model_[place.node] : gradients_[place.node];
      if (!keeps_gradient(array))
        refuse_without_gradient(array, "parameter at \"" + spec_->text(place.node) + "\"", call);
      const bool is_view = !found.empty() && !nb::cast<bool>(nb::borrow(array).attr("is_leaf"));
      gradient = is_view ? nb::none() : kept_gradient(array);  // torch warns about asking a view
      if (gradient.is_none()) gradient = {};
      else if (!found.empty()) found[place.leaf] = true;
    }
    gradients_.replace(place.node, std::move(gradient));
  }
}

// Refuses what zero_gradients could not write, before anything is.
void State::check_zeroable(std::uint32_t root, const char* call) {
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const std::uint32_t node = spec_->places[p].node;
    ArrayView g;
    if (gradients_[node] == nullptr || read_array(gradients_[node], g) != Fault::none) continue;
    bool repeats = false;
    for (int i = 0; i < g.ndim; ++i) repeats |= g.strides != nullptr && g.strides[i] == 0 && g.shape[i] > 1;
    if (!g.writable || repeats)
      value_error(std::string(call) + ": gradient at \"" + spec_->text(node) + "\" cannot be set to zero: it is " +
                  (g.writable ? "a broadcast view" : "read-only") + "; pass zero_grad=False, or a writable copy");
  }
}

void State::zero_gradients(std::uint32_t root) {
  nb::list tensors, others;
  std::vector<ArrayView> on_devices;
  const Node& top = spec_->nodes[root];
  const auto zero = [&](PyObject* object) {
    ArrayView g;
    if (object == nullptr || read_array(object, g) != Fault::none) return;
    if (g.device != on_host) {
      on_devices.push_back(g);
      if (is_tensor(object)) tensors.append(nb::borrow(object));
    } else if (is_contiguous(g) && g.writable) {
      if (size_of(g) > 0) std::memset(g.data, 0, static_cast<std::size_t>(size_of(g) * size_of(g.dtype)));
      if (!is_numpy(object)) tensors.append(nb::borrow(object));
    } else {
      others.append(nb::borrow(object));
    }
  };
  if (layout_ && gradients_[root] != nullptr && !is_container(kind_of(gradients_[root]))) zero(gradients_[root]);
  else
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) zero(gradients_[spec_->places[p].node]);
  device_zero(on_devices);
  if (nb::len(tensors) > 0) bump_versions(tensors);
  if (nb::len(others) > 0) nb::module_::import_("optimisers._arrays").attr("zero")(others);
}

}  // namespace optimisers::python
