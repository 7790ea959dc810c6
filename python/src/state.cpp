// state.cpp: setting up, and everything around one update: collecting, running, telling torch.
#include "state.hpp"

#include <set>
#include <unordered_map>

#include "device_array.hpp"
#include "errors.hpp"
#include "jax_arrays.hpp"
#include "unlocked.hpp"
#include "user_stages.hpp"

namespace optimisers::python {
namespace {

// Below this, handing over the interpreter costs more than the update.
constexpr std::int64_t worth_releasing = 1 << 13;  // elements
// Of leaves below this size most of a call is reading their objects, for which it needs the interpreter anyway. It
// keeps it to the end, up to `briefly` elements: over within half a millisecond, a tenth of the time the interpreter
// lets any thread have it. Nobody can let go of the arrays meanwhile, so no references to them are taken.
constexpr std::int64_t small_leaf = 512, briefly = 1 << 20;

// The core's leaves: the model's, and behind them one for the native stages before each user-defined one.
std::vector<LeafSpec> leaf_specs(const TreeSpec& spec, const std::vector<LeafArray>& leaves, const nb::list& rules,
                                 std::map<std::uint32_t, UserStages>& user) {
  std::unordered_map<PyObject*, std::vector<Program>> programs;
  std::vector<LeafSpec> specs, before;
  specs.reserve(leaves.size());
  for (std::uint32_t i = 0; i < leaves.size(); ++i) {
    nb::object rule = rules[i];
    auto [known, is_new] = programs.try_emplace(rule.ptr());
    if (is_new)
      for (nb::handle program : rule.attr("_programs")()) known->second.push_back(nb::cast<Program>(program));
    const std::vector<Program>& parts = known->second;
    const std::string name = spec.text(spec.leaf_node(i));
    specs.push_back({name, leaves[i].shape, leaves[i].dtype, parts.back(), leaves[i].device});
    const DType wide = parts.back().compute(leaves[i].dtype);
    for (std::size_t p = 0; p + 1 < parts.size(); ++p) {
      user[i].before.push_back(static_cast<std::uint32_t>(leaves.size() + before.size()));
      user[i].states.emplace_back();
      before.push_back(
          {name, leaves[i].shape, parts.back().master ? wide : leaves[i].dtype, parts[p], leaves[i].device});
    }
  }
  specs.insert(specs.end(), std::make_move_iterator(before.begin()), std::make_move_iterator(before.end()));
  return specs;
}

}  // namespace

Streams streams_of(std::span<const LeafArray> leaves) {
  Streams streams;
  for (const LeafArray& leaf : leaves) streams.add(leaf.device, leaf.library);
  return streams;
}

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
      streams_(streams_of(leaves_)),
      core_(leaf_specs(*spec_, leaves_, rules_, user_stages_),
            [&] {
              if (!layout_) return std::vector<ArrayView>(arrays.begin(), arrays.end());
              std::vector<ArrayView> segments(leaves_.size());
              for (std::uint32_t i = 0; i < leaves_.size(); ++i) segment(arrays[0], i, segments[i]);
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
      user_stages_(copied_user_stages(other.user_stages_)),
      streams_(other.streams_),
      core_(other.core_),
      model_(*spec_),
      gradients_(*spec_) {
  size_scratch();
}

State::~State() {
  if (held_.empty()) return;
  try {
    streams_.wait();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): a device that fails reads nothing any more
  }
  streams_.reset();
}

void State::size_scratch() {
  updates_.resize(leaves_.size());
  if (spec_->tied()) update_of_leaf_.assign(leaves_.size(), -1);
  std::size_t axes = 0;
  for (const Place& place : spec_->places) axes += place.axes.size();
  permuted_.resize(axes * 4);
  for (const LeafArray& leaf : leaves_) elements_ += size_of(leaf.shape);
}

void State::segment(const ArrayView& flat, std::uint32_t leaf, ArrayView& view) const {
  const std::int64_t step = flat.strides ? flat.strides[0] * flat.stride_unit : size_of(flat.dtype);
  const Layout& layout = layout_.value();
  view.data = flat.data + layout.offsets[leaf] * step;
  view.shape = layout.shapes[leaf].data();
  view.ndim = static_cast<std::int32_t>(layout.shapes[leaf].size());
  view.strides = step == size_of(flat.dtype) ? nullptr : layout.strides[leaf].data();
  view.stride_unit = step;
  view.dtype = flat.dtype;
  view.writable = flat.writable;
  view.present = flat.present;
  view.device = flat.device;
}

std::vector<std::uint32_t> State::core_leaves(std::uint32_t leaf) const {
  std::vector<std::uint32_t> all;
  if (auto found = user_stages_.find(leaf); found != user_stages_.end()) all = found->second.before;
  all.push_back(leaf);
  return all;
}

std::vector<std::uint32_t> State::core_leaves_below(std::uint32_t node) const {
  std::vector<std::uint32_t> all = spec_->leaves_below(node);
  if (user_stages_.empty()) return all;
  for (std::size_t i = 0, n = all.size(); i < n; ++i)
    if (auto found = user_stages_.find(all[i]); found != user_stages_.end())
      all.insert(all.end(), found->second.before.begin(), found->second.before.end());
  return all;
}

bool State::lets_go() const {
  const bool brief = elements_ < briefly && elements_ < small_leaf * static_cast<std::int64_t>(leaves_.size());
  return !streams_.empty() || (elements_ >= worth_releasing && !brief);
}

void State::run(std::span<const LeafUpdate> updates) {
  if (!lets_go()) return core_.update(updates, further_);
  Unlocked unlocked;
  core_.update(updates, further_);
}

void State::tell_torch(std::uint32_t root, PyObject* flat) {
  if (flat == nullptr && !has_tensors_) return;
  nb::list written;
  if (flat != nullptr) {
    if (is_tensor(flat)) written.append(nb::borrow(flat));
  } else {
    std::size_t i = 0;
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      PyObject* x = model_[spec_->places[p].node];
      if (!is_tensor(x)) continue;
      if (!spec_->tied()) i = p - top.place_begin;
      else i = static_cast<std::size_t>(update_of_leaf_[spec_->places[p].leaf]);
      if (core_.wrote(updates_[i])) written.append(nb::borrow(x));
    }
  }
  if (nb::len(written) > 0) bump_versions(written);
}

void State::update(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call) {
  Use use(*this, source.stream);
  if (const auto examined = collect_plain(root, model, source)) {
    core_.update({updates_.data(), used_}, *examined);
    return;
  }
  layout_ ? collect_segments(root, model, source, call) : collect(root, model, source, call);
  if (source.zero) own_objects();
  if (source.zero) check_zeroable(root, call);
  if (user_stages_.empty()) {
    run({updates_.data(), used_});
  } else {
    own_objects();
    UserRun user(*this, root, layout_ ? model : nullptr, source.higher, call);
    run(user.last_updates());
    user.commit();
  }
  if (has_imported_) hold_jax_arrays(root);
  if (has_imported_) let_cupy_follow(root);
  if (!streams_.empty() && source.stream) record_stream(root, layout_ ? model : nullptr, *source.stream);
  tell_torch(root, layout_ ? model : nullptr);
  if (source.zero) zero_gradients(root);
}

void State::wait() {
  Use use(*this);
  Unlocked unlocked;
  core_.wait();
}

// JAX takes memory back without asking which streams still read it.
void State::hold_jax_arrays(std::uint32_t root) {
  const Node& top = spec_->nodes[root];
  const auto hold = [this](PyObject* object) {
    const DeviceArray* array = object == nullptr ? nullptr : as_device_array(object);
    if (array != nullptr && !array->writable && PyCapsule_CheckExact(array->owner.ptr()))
      held_.push_back(nb::borrow(object));
  };
  hold(gradients_[root]);
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) hold(gradients_[spec_->places[p].node]);
}

// CuPy gives the memory of an array that is gone to what comes next on its own stream.
void State::let_cupy_follow(std::uint32_t root) {
  std::set<int> devices;
  const auto look = [&](PyObject* object) {
    const DeviceArray* array = object == nullptr ? nullptr : as_device_array(object);
    if (array != nullptr && array->library == Library::cupy) devices.insert(array->device);
  };
  for (const nb::object& object : imported_) look(object.ptr());
  look(gradients_[root]);
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) look(gradients_[spec_->places[p].node]);
  for (const int device : devices) Streams::let_cupy_follow(device);
}

// torch takes memory back as soon as the stream it was allocated for is done with it, unless told of others.
void State::record_stream(std::uint32_t root, PyObject* flat, void* stream) {
  nb::list tensors;
  const auto record = [&](PyObject* object) {
    if (object != nullptr && is_tensor(object)) tensors.append(nb::borrow(object));
  };
  if (flat != nullptr) record(flat);
  if (flat != nullptr) record(gradients_[root]);
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    if (flat == nullptr) record(model_[spec_->places[p].node]);
    record(gradients_[spec_->places[p].node]);
  }
  if (nb::len(tensors) > 0)
    nb::module_::import_("optimisers._arrays").attr("record_stream")(tensors, reinterpret_cast<std::uintptr_t>(stream));
}

bool State::apply(PyObject* x, PyObject* gradient, PyObject* out, std::span<PyObject* const> higher) {
  Use use(*this);
  const char* call = "apply_";
  nb::object values;  // of a JAX array, which is only read here
  if (Fault fault = Fault::not_array; is_jax(x)) {
    values = materialised(x, fault);
    if (fault == Fault::traced) type_error("apply_: the array " + fault_text(x, fault));
  }
  permuted_used_ = 0;
  further_.clear();
  model_.begin(0);
  model_.put(0, values.is_valid() ? values.ptr() : x);
  model_.own();
  gradients_.begin(0);
  if (gradient != Py_None) gradients_.put(0, gradient);
  gradients_.own();
  LeafUpdate& update = updates_[0];
  update = {};
  used_ = 1;
  ArrayView target;
  read_parameter(spec_->places[0], update.x, call);
  read_gradient(spec_->places[0], update.dx, call);
  nb::object written;
  if (read_any(out, target, written) != Fault::none) type_error("apply_: the output is no array");
  if (user_stages_.empty()) {
    if (!lets_go()) return core_.apply(update, target.data);
    Unlocked unlocked;
    return core_.apply(update, target.data);
  }
  UserRun user(*this, 0, nullptr, higher, call);
  const auto last = user.last_updates();
  const bool came_out = !last.empty() && core_.apply(last[0], target.data);
  user.commit();
  return came_out;
}

void State::set_rules(std::uint32_t leaf, const std::vector<RuleValue>& rules) {
  Use use(*this);
  std::size_t next = 0, known = 0;
  for (std::uint32_t part : core_leaves(leaf)) known += core_.spec(part).program.stages.size();
  if (rules.size() != known) value_error("apply_: the rule has another structure");
  for (std::uint32_t part : core_leaves(leaf))
    for (std::size_t stage = 0; stage < core_.spec(part).program.stages.size(); ++stage)
      core_.set_rule(part, static_cast<int>(stage), rules[next++]);
}

}  // namespace optimisers::python
