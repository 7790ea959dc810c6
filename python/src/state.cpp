// state.cpp: setting up, and everything around one update: locking, collecting, running, telling torch.
#include "state.hpp"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "errors.hpp"

namespace optimisers::python {
namespace {

// Below this, handing over the interpreter costs more than the update.
constexpr std::int64_t worth_releasing = 1 << 13;  // elements

std::vector<std::int64_t> c_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::int64_t next = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = next;
    next *= shape[i];
  }
  return strides;
}

std::int64_t product(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (auto s : shape) n *= s;
  return n;
}

std::vector<LeafSpec> leaf_specs(const TreeSpec& spec, const std::vector<LeafArray>& leaves, const nb::list& rules) {
  std::unordered_map<PyObject*, Program> programs;
  std::vector<LeafSpec> specs;
  specs.reserve(leaves.size());
  for (std::uint32_t i = 0; i < leaves.size(); ++i) {
    nb::object rule = rules[i];
    auto [known, is_new] = programs.try_emplace(rule.ptr());
    if (is_new) known->second = nb::cast<Program>(rule.attr("_program")());
    specs.push_back(
        {spec.text(spec.places[spec.first_place[i]].node), leaves[i].shape, leaves[i].dtype, known->second});
  }
  return specs;
}

}  // namespace

Layout layout_of(const Flattened& model, DType dtype) {
  Layout layout{dtype, 0, {}, {}, {}};
  for (const ArrayView& a : model.views) {
    layout.offsets.push_back(layout.size);
    layout.shapes.emplace_back(a.shape, a.shape + a.ndim);
    layout.strides.push_back(c_strides(layout.shapes.back()));
    layout.size += size_of(a);
  }
  return layout;
}

State::State(std::shared_ptr<const TreeSpec> spec, std::vector<LeafArray> leaves, nb::list rules,
             std::span<const ArrayView> arrays, std::optional<Layout> layout)
    : spec_(std::move(spec)),
      leaves_(std::move(leaves)),
      rules_(std::move(rules)),
      layout_(std::move(layout)),
      core_(leaf_specs(*spec_, leaves_, rules_),
            [&] {
              if (!layout_) return std::vector<ArrayView>(arrays.begin(), arrays.end());
              std::vector<ArrayView> segments;
              for (std::uint32_t i = 0; i < leaves_.size(); ++i) segments.push_back(segment(arrays[0], i));
              return segments;
            }()),
      model_(*spec_),
      gradients_(*spec_) {
  size_scratch();
}

State::State(const State& other)
    : spec_(other.spec_),
      leaves_(other.leaves_),
      rules_(nb::list(other.rules_)),
      layout_(other.layout_),
      core_(other.core_),
      model_(*spec_),
      gradients_(*spec_) {
  size_scratch();
}

void State::size_scratch() {
  updates_.resize(leaves_.size());
  if (spec_->tied()) update_of_leaf_.assign(leaves_.size(), -1);
  std::size_t axes = 0;
  for (const Place& place : spec_->places) axes += place.axes.size();
  permuted_.resize(axes * 4);
  for (const LeafArray& leaf : leaves_) elements_ += product(leaf.shape);
}

ArrayView State::segment(const ArrayView& flat, std::uint32_t leaf) const {
  const std::int64_t step = flat.strides ? flat.strides[0] * flat.stride_unit : size_of(flat.dtype);
  ArrayView view = flat;
  view.data += layout_->offsets[leaf] * step;
  view.shape = layout_->shapes[leaf].data();
  view.ndim = static_cast<std::int32_t>(layout_->shapes[leaf].size());
  view.strides = step == size_of(flat.dtype) ? nullptr : layout_->strides[leaf].data();
  view.stride_unit = step;
  return view;
}

void State::run() {
  const std::span<const LeafUpdate> updates(updates_.data(), used_);
  if (elements_ < worth_releasing) return core_.update(updates, further_);
  nb::gil_scoped_release release;
  core_.update(updates, further_);
}

void State::tell_torch(std::uint32_t root, PyObject* flat) {
  nb::list written;
  if (flat != nullptr) {
    if (!is_numpy(flat)) written.append(nb::borrow(flat));
  } else {
    std::size_t i = 0;
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      PyObject* x = model_[spec_->places[p].node];
      if (is_numpy(x)) continue;
      if (!spec_->tied()) i = p - top.place_begin;
      else i = static_cast<std::size_t>(update_of_leaf_[spec_->places[p].leaf]);
      if (updates_[i].dx.present && !core_.frozen(updates_[i].leaf)) written.append(nb::borrow(x));
    }
  }
  if (nb::len(written) > 0) bump_versions(written);
}

void State::update(std::uint32_t root, PyObject* model, PyObject* gradients, const char* call) {
  Use use(*this);
  if (layout_) {
    collect_segments(root, model, gradients, call);
    run();
    tell_torch(root, model);
  } else {
    collect(root, model, gradients, call);
    run();
    tell_torch(root, nullptr);
  }
}

nb::object State::copied_model(std::uint32_t root, PyObject* model, const char* call) {
  auto copy = [](PyObject* x) -> nb::object {
    if (is_numpy(x)) return numpy_copy(x);
    return nb::module_::import_("optimisers._arrays").attr("copied_tensor")(nb::borrow(x));
  };
  Use use(*this);
  if (layout_) return copy(model);
  walk_model(*spec_, root, model, call, model_);
  permuted_used_ = 0;
  std::vector<nb::object> leaves(leaves_.size());
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec_->places[p];
    if (leaves[place.leaf].is_valid()) continue;
    ArrayView view;
    read_parameter(place, view, call);
    nb::object array = copy(model_[place.node]);
    leaves[place.leaf] = place.axes.empty() ? array : with_axes(array, place.axes);
  }
  return rebuild(*spec_, root, model_.all(), leaves);
}

bool State::apply(PyObject* x, PyObject* gradient, PyObject* out) {
  Use use(*this);
  const char* call = "apply_";
  permuted_used_ = 0;
  model_.begin(*spec_, 0);
  model_.keep(0, x);
  gradients_.begin(*spec_, 0);
  if (gradient != Py_None) gradients_.keep(0, gradient);
  LeafUpdate& update = updates_[0];
  update = {};
  ArrayView target;
  read_parameter(spec_->places[0], update.x, call);
  read_gradient(spec_->places[0], update.dx, call);
  if (read_array(out, target) != Fault::none) type_error("apply_: the output is no array");
  if (elements_ < worth_releasing) return core_.apply(update, target.data);
  nb::gil_scoped_release release;
  return core_.apply(update, target.data);
}

void State::set_rules(std::uint32_t leaf, const std::vector<RuleValue>& rules) {
  Use use(*this);
  if (rules.size() != core_.spec(leaf).program.stages.size()) value_error("apply_: the rule has another structure");
  for (std::size_t stage = 0; stage < rules.size(); ++stage)
    core_.set_rule(leaf, static_cast<int>(stage), rules[stage]);
}

Use::Use(State& state) : state_(state) {
  if (!state_.mutex_.try_lock()) {
    if (state_.user_.load() == std::this_thread::get_id())
      throw Error(ErrorKind::busy, "this state is busy: it was used again from inside its own update");
    nb::gil_scoped_release release;
    state_.mutex_.lock();
  }
  state_.user_.store(std::this_thread::get_id());
}

Use::~Use() {
  state_.model_.clear();
  state_.gradients_.clear();
  if (!state_.update_of_leaf_.empty()) std::fill(state_.update_of_leaf_.begin(), state_.update_of_leaf_.end(), -1);
  state_.user_.store({});
  state_.mutex_.unlock();
}

}  // namespace optimisers::python
