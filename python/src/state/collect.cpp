// collect.cpp: from a model and its gradients to the core's list of leaves. The loop every update goes through.
#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "state/kept.hpp"
#include "state/state.hpp"

namespace optimisers::python {
namespace {

constexpr std::uint32_t ahead = 12;  // places, to have their objects in the cache when it is their turn

std::string quoted(const TreeSpec& spec, std::uint32_t node) { return "\"" + spec.text(node) + "\""; }

[[noreturn]] void refuse_parameter(const TreeSpec& spec, std::uint32_t node, PyObject* object, Fault fault,
                                   const char* call) {
  const std::string message =
      std::string(call) + ": parameter at " + quoted(spec, node) + " " + fault_text(object, fault);
  if (fault != Fault::not_array) value_error(message);
  if (is_jax(object))
    value_error(std::string(call) + "_: parameter at " + quoted(spec, node) +
                " is a JAX array, which cannot be written; use " + call + ", which returns new arrays");
  const Kind kind = kind_of(object);
  const std::string what = is_container(kind) ? name_of(kind) : type_name(object);
  value_error(std::string(call) + (node == 0 ? ": the model" : ": model at " + quoted(spec, node)) + " is a " + what +
              ", was an array at setup; call extend_(state, model), which forgets it, or setup for another model");
}

}  // namespace

void refuse_untied(const TreeSpec& spec, const Place& place, const char* call) {
  value_error(std::string(call) + ": arrays at " + quoted(spec, spec.leaf_node(place.leaf)) + " and " +
              quoted(spec, place.node) +
              " were one at setup, and are not now, or their axes have another order; call extend_(state, model), or "
              "setup for another model");
}

// Of a library whose arrays on devices are imported one by one.
Fault State::read_device_array(PyObject* object, ArrayView& view) {
  nb::object imported;
  if (streams_.empty() || is_jax(object)) return Fault::not_array;
  if (const Fault fault = import_device_array(object, imported); fault != Fault::none) return fault;
  const DeviceArray& array = *as_device_array(imported.ptr());
  if (array.names_stream) streams_.adopt(array.device, array.stream);
  view = array.view();
  imported_.push_back(std::move(imported));
  has_imported_ = true;
  return Fault::none;
}

void State::begin_reading() { pins_arrays_ = !user_stages_.empty() || (lets_go() && others_may_run()); }

// Code that ran in the middle of a call may have given an array other memory: refused before anything is written.
void State::check_memory(std::uint32_t root, const char* call) const {
  const Node& top = spec_->nodes[root];
  const auto check = [&](PyObject* object, const ArrayView& view, std::uint32_t node, const char* what) {
    if (object == nullptr || still_has(object, view)) return;
    value_error(std::string(call) + ": " + what + " at \"" + spec_->text(node) +
                "\" was given other memory or another size in the middle of this call; change it before or after");
  };
  if (layout_) return;
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec_->places[p];
    const std::size_t u = spec_->tied() ? static_cast<std::size_t>(update_of_leaf_[place.leaf]) : p - top.place_begin;
    check(model_[place.node], updates_[u].x, place.node, "parameter");
  }
}

void State::own_objects() {
  model_.own();
  gradients_.own();
}

void State::prefetch_objects(std::uint32_t node) const {
  prefetch_object(model_[node]);
  prefetch_object(gradients_[node]);
}

// Arrays of libraries that have to be told how far the device is with them.
void State::note_imported(PyObject* object) {
  const DeviceArray* array = as_device_array(object);
  if (array != nullptr) has_imported_ |= array->imported();
  else beside_torch_ |= streams_.beside_torch() && is_tensor(object);
}

void State::read_parameter(const Place& place, ArrayView& x, const char* call) {
  PyObject* object = model_[place.node];
  Fault fault;
  if (read_quietly(object, x, fault)) {
    if (x.device != on_host) note_imported(object);
  } else {
    own_objects();
    has_tensors_ = true;
    fault = read_exchanged(object, x);
    if (x.device != on_host && fault == Fault::none) note_imported(object);
  }
  if (fault == Fault::not_array) [[unlikely]]
    fault = read_device_array(object, x);
  if (pins_arrays_ && fault == Fault::none) pins_.pin(object, x);
  if (fault != Fault::none) [[unlikely]]
    own_objects();  // saying what is wrong runs code
  if (fault != Fault::none) [[unlikely]]
    refuse_parameter(*spec_, place.node, object, fault, call);
  if (!place.axes.empty()) bring_to_leaf_axes(place, x);
}

bool State::read_gradient(const Place& place, ArrayView& dx, const char* call) {
  dx.present = false;
  PyObject* object = gradients_[place.node];
  if (object == nullptr) return false;
  Fault fault;
  if (!read_quietly(object, dx, fault)) {
    own_objects();
    fault = read_exchanged(object, dx);
  }
  if (fault != Fault::none) own_objects();
  if (fault != Fault::none && !python::read_gradient(*spec_, place.node, gradients_, call, dx)) return false;
  if (pins_arrays_) pins_.pin(gradients_[place.node], dx);
  if (dx.device != on_host) note_imported(gradients_[place.node]);
  if (!place.axes.empty()) bring_to_leaf_axes(place, dx);
  return true;
}

// A view with another number of axes stays as it is: the core names it.
void State::bring_to_leaf_axes(const Place& place, ArrayView& view) {
  const std::size_t n = place.axes.size();
  if (view.ndim != static_cast<std::int32_t>(n)) return;
  permute_axes(view, place.axes, permuted_.data() + permuted_used_);
  permuted_used_ += 2 * n;
}

LeafUpdate& State::update_of(std::uint32_t leaf, bool& is_new) {
  is_new = true;
  if (!update_of_leaf_.empty()) {
    is_new = update_of_leaf_[leaf] < 0;
    if (!is_new) return updates_[static_cast<std::size_t>(update_of_leaf_[leaf])];
    update_of_leaf_[leaf] = static_cast<std::int32_t>(used_);
  }
  LeafUpdate& update = updates_[used_++];
  update.leaf = leaf;
  update.more = -1;
  return update;
}

// Gradients of a tied leaf are summed in walk order.
void State::add_gradient(LeafUpdate& update, const ArrayView& dx) {
  if (!update.dx.present) {
    update.dx = dx;
    return;
  }
  std::int32_t* link = &update.more;
  while (*link >= 0) link = &further_[static_cast<std::size_t>(*link)].more;
  *link = static_cast<std::int32_t>(further_.size());
  further_.push_back({dx, -1});
}

void State::collect(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call) {
  begin_reading();
  borrow_model(*spec_, root, model, call, model_);
  if (source.tree == nullptr) check_still_untrained(*spec_, root, model_, call, true);
  find_gradients(root, source, call);
  used_ = permuted_used_ = 0;
  further_.clear();
  has_tensors_ = has_imported_ = beside_torch_ = false;
  const Node& top = spec_->nodes[root];
  const bool owns = lets_go();
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    if (p + ahead < top.place_end) prefetch_objects(spec_->places[p + ahead].node);
    const Place& place = spec_->places[p];
    if (owns) {
      model_.own_place(place.node);
      gradients_.own_place(place.node);
    }
    bool is_new;
    LeafUpdate& update = update_of(place.leaf, is_new);
    if (is_new) [[likely]] {
      read_parameter(place, update.x, call);
      read_gradient(place, update.dx, call);
      continue;
    }
    ArrayView x, dx;
    read_parameter(place, x, call);
    if (!is_tie(x, update.x)) refuse_untied(*spec_, place, call);
    if (read_gradient(place, dx, call)) add_gradient(update, dx);
  }
}

void State::collect_segments(std::uint32_t root, PyObject* flat, const GradientSource& source, const char* call) {
  spec_->check_part(root, call);
  begin_reading();
  has_imported_ = beside_torch_ = false;
  ArrayView x, g;
  auto read_vector = [&](PyObject* object, ArrayView& view, const char* what) {
    Fault fault = read_array(object, view);
    const std::string place = std::string(call) + ": " + what + " ";
    if (fault == Fault::not_array) fault = read_device_array(object, view);
    if (fault == Fault::not_array && is_jax(object))
      value_error(std::string(call) + "_: " + what + " is a JAX array, which cannot be written; use " + call +
                  ", which returns a new one");
    if (fault != Fault::none) type_error(place + fault_text(object, fault));
    if (view.ndim != 1 || view.shape[0] != layout_->size)
      value_error(place + "has shape " + shape_text({view.shape, static_cast<std::size_t>(view.ndim)}) +
                  ", the layout has " + shape_text(std::span(&layout_->size, 1)));
    if (pins_arrays_) pins_.pin(object, view);
    if (view.device != on_host) note_imported(object);
  };
  read_vector(flat, x, "the flat vector");
  if (!x.writable)
    value_error(std::string(call) + ": the flat vector is read-only; use " + call + ", which returns a new one");

  const Node& top = spec_->nodes[root];
  nb::object kept;
  if (source.tree == nullptr) {
    if (!keeps_gradient(source.kept_by)) refuse_without_gradient(source.kept_by, "the flat vector", call);
    kept = kept_gradient(source.kept_by);
    if (!kept.is_none() && source.zero == ZeroGrad::to_none) resets_->keepers.push_back(nb::borrow(source.kept_by));
  }
  PyObject* gradients = kept.is_valid() ? kept.ptr() : source.tree;
  const bool of_bare_array =  // whose whole tree is one gradient
      top.kind == Kind::leaf &&
      (is_numpy_scalar(gradients) || (read_array(gradients, g) == Fault::none && g.ndim != 1));
  const bool given_flat = gradients != Py_None && !is_container(kind_of(gradients)) && !of_bare_array;
  if (given_flat) {
    gradients_.begin(root);
    gradients_.put(root, gradients);
    gradients_.own();
    if (source.zero == ZeroGrad::to_zeros) resets_->found.push_back(nb::borrow(gradients));
    python::read_gradient(*spec_, root, gradients_, call, g);  // JAX arrays become NumPy's
    read_vector(gradients_[root], g, "the flat gradient");
  } else {
    walk_gradients(*spec_, root, gradients, call, gradients_);
    if (source.once && spec_->tied()) drop_repeated(root);
    if (source.zero == ZeroGrad::to_zeros) note_found(root);
  }
  used_ = permuted_used_ = 0;
  further_.clear();
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec_->places[p];
    bool is_new;
    LeafUpdate& update = update_of(place.leaf, is_new);
    if (is_new) {
      segment(x, place.leaf, update.x);
      update.dx.present = false;
      if (given_flat) segment(g, place.leaf, update.dx);
    }
    ArrayView dx;
    if (given_flat) continue;
    if (read_gradient(place, dx, call)) add_gradient(update, dx);
  }
}

}  // namespace optimisers::python
