// run.cpp: one call on a state: collecting its arrays, running the core with or without the interpreter's lock.
#include <utility>

#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "state/state.hpp"
#include "state/user_stages.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// Below this, handing over the interpreter costs more than the update.
constexpr std::int64_t worth_releasing = 1 << 13;  // elements
// Of leaves below this size most of a call is reading their objects, for which it needs the interpreter anyway. It
// keeps it to the end, up to `briefly` elements: over within half a millisecond, a tenth of the time the interpreter
// lets any thread have it. Nobody can let go of the arrays meanwhile, so no references to them are taken.
constexpr std::int64_t small_leaf = 512, briefly = 1 << 20;

}  // namespace

bool State::lets_go() const {
  const bool brief = elements_ < briefly && elements_ < small_leaf * static_cast<std::int64_t>(leaves_.size());
  return !streams_.empty() || (elements_ >= worth_releasing && !brief);
}

namespace {

// Without the interpreter's lock, where that is worth it.
template <class F>
auto run_unlocked(bool lets_go, F&& f) {
  if (!lets_go) return f();
  Unlocked unlocked;
  return f();
}

}  // namespace

bool State::run(std::span<const LeafUpdate> updates, const GradientSource& source) {
  return run_unlocked(lets_go(), [&] {
    if (!source.flushes) return core_.update(updates, further_, source.non_finite);
    core_.flush(updates);
    return true;
  });
}

bool State::accepts(NonFinite non_finite) {
  if (non_finite == NonFinite::propagate) return true;
  return run_unlocked(lets_go(), [&] { return core_.accepts({updates_.data(), used_}, further_, non_finite); });
}

// What was collected; false: it was skipped.
bool State::step(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call) {
  if (user_stages_.empty()) return run({updates_.data(), used_}, source);
  if (!accepts(source.non_finite)) return false;
  own_objects();
  GradientSource last = source;
  last.non_finite = NonFinite::propagate;  // what came in was looked at
  UserRun user(*this, root, layout_ ? model : nullptr, source, call);
  check_memory(root, call);
  run(user.last_updates(), last);
  user.commit();
  return true;
}

void State::update(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call) {
  if (!updated(root, model, source, call)) updated(root, model, source, call);
}

// False: nothing was done but a warning given, which may have run code that changed the arrays.
bool State::updated(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call) {
  Use use(*this, source.stream);
  if (source.zero != ZeroGrad::no) resets_ = std::make_unique<Resets>();
  const auto examined = collect_plain(root, model, source);
  if (!examined) layout_ ? collect_segments(root, model, source, call) : collect(root, model, source, call);
  if (nothing_came() && warned_of_nothing(source, call)) [[unlikely]]
    return false;
  if (examined) {
    const bool ran = core_.update({updates_.data(), used_}, *examined, source.non_finite);
    if (count_ != nullptr && ran) [[unlikely]]
      count_written();
    return true;
  }
  if (source.zero == ZeroGrad::to_none) prepare_none();
  if (source.zero == ZeroGrad::to_zeros) prepare_zeros(root, call);
  list_tensors(root, layout_ ? model : nullptr);
  if (beside_torch_) streams_.follow_torch();
  const bool ran = step(root, model, source, call);
  PyObject* flat = layout_ ? model : nullptr;
  if (source.zero == ZeroGrad::to_zeros) reset_gradients(source.zero);
  give_back(root, flat, source.stream);
  if (count_ != nullptr && ran) [[unlikely]]
    count_written();
  if (ran) tell_torch(root, flat);
  if (source.zero == ZeroGrad::to_none) reset_gradients(source.zero);
  return true;
}

bool State::nothing_came() const {
  if (told_ || used_ == 0) return false;
  for (std::size_t i = 0; i < used_; ++i)
    if (updates_[i].dx.present) return false;
  return true;
}

// Once a state; before anything is written, since warnings may be made to raise.
bool State::warned_of_nothing(const GradientSource& source, const char* call) {
  constexpr std::size_t most = 10;
  std::string arrays;
  std::size_t count = 0;
  for (std::size_t i = 0; i < used_; ++i) {
    if (core_.frozen(updates_[i].leaf)) continue;
    if (count++ < most)
      arrays += (arrays.empty() ? "\"" : ", \"") + spec_->text(spec_->leaf_node(updates_[i].leaf)) + "\"";
  }
  if (count == 0 || source.tree == Py_None) return false;  // nothing was expected
  // A torch optimiser's first step without one is how schedulers are set going.
  if (count_ != nullptr && !std::exchange(spared_, true)) return false;
  if (count > most) arrays += ", ...";
  own_objects();
  const std::string text =
      std::string(call) + ": no array got a gradient, so that nothing moves: " +
      (count_ != nullptr
           ? "call loss.backward() before; were the optimiser's parameters replaced, or is it of a copy's?"
       : source.tree == nullptr ? "every .grad is None; call loss.backward() before, or pass the gradients"
                                : "the gradients have nothing (None, or no key) for " + arrays);
  if (PyErr_WarnEx(PyExc_UserWarning, text.c_str(), source.depth) != 0) throw nb::python_error();
  return told_ = true;
}

Seen State::seen() {
  check_node(0);
  Use use(*this);
  return run_unlocked(!streams_.empty(), [&] { return core_.seen(); });
}

void State::count_into(nb::object counts) {
  Use use(*this);
  ArrayView view;
  if (read_array(counts.ptr(), view) != Fault::none || view.dtype != DType::float32 || view.device != on_host ||
      !view.writable || !is_contiguous(view) || size_of(view) != static_cast<std::int64_t>(leaves_.size()))
    value_error("count_into: expected a writable float32 array on the host with one element for each of " +
                std::to_string(leaves_.size()) + " leaves");
  counts_ = std::move(counts);
  count_ = reinterpret_cast<float*>(view.data);
}

void State::count_written() {
  for (const LeafUpdate& update : std::span(updates_.data(), used_))
    if (core_.wrote(update)) count_[update.leaf] += 1;
}

void State::wait() {
  Use use(*this);
  Unlocked unlocked;
  core_.wait();
}

bool State::apply(PyObject* x, PyObject* gradient, PyObject* out, std::span<PyObject* const> higher, PyObject* rule) {
  check_node(0);
  if (spec_->nodes[0].kind != Kind::leaf || layout_)
    value_error("apply_: expected the state of one array, as init returns it");
  nb::list rules;
  if (rule != nullptr) rules.append(nb::handle(rule));
  const RuleValues values = values_of(rules);
  Use use(*this);
  const char* call = "apply_";
  nb::object array;  // of a JAX array, which is only read here
  if (Fault fault = Fault::not_array; is_jax(x)) {
    array = materialised(x, fault);
    if (fault == Fault::traced || fault == Fault::deleted) type_error("apply_: the array " + fault_text(x, fault));
  }
  begin_reading();
  has_imported_ = beside_torch_ = false;
  permuted_used_ = 0;
  further_.clear();
  model_.begin(0);
  model_.put(0, array.is_valid() ? array.ptr() : x);
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
  if (!target.writable || !is_contiguous(target) || target.dtype != leaves_[0].dtype ||
      target.device != leaves_[0].device || size_of(target) != size_of(leaves_[0].shape))
    value_error("apply_: the output must be writable, contiguous, and of the parameter's size, dtype and device");
  if (beside_torch_) streams_.follow_torch();
  const auto applied = [&] {
    const bool came_out = apply_stages(target, update, higher, call);
    if (DeviceArray* to = as_device_array(out)) to->written = cuda::Mark(to->device);
    give_back(0, nullptr, {});
    return came_out;
  };
  if (rule == nullptr) return applied();
  constexpr std::uint32_t leaf = 0;
  Replaced before = rules_of_leaf(leaf);
  take(replaced_rules({&leaf, 1}, rules, values), call);
  try {
    return applied();
  } catch (...) {
    take(std::move(before), call);
    throw;
  }
}

bool State::apply_stages(const ArrayView& target, LeafUpdate& update, std::span<PyObject* const> higher,
                         const char* call) {
  if (user_stages_.empty()) {
    if (!lets_go()) return core_.apply(update, target.data);
    Unlocked unlocked;
    return core_.apply(update, target.data);
  }
  UserRun user(*this, 0, nullptr, {.higher = higher}, call);
  const auto last = user.last_updates();
  const bool came_out = !last.empty() && core_.apply(last[0], target.data);
  user.commit();
  return came_out;
}

}  // namespace optimisers::python
