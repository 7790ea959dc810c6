// setup.hpp: the C++ API: setup(rule, arrays) gives a State, and state.update(x, dx) is one step of training.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optimisers/any_span.hpp"
#include "optimisers/chain.hpp"
#include "optimisers/optimiser.hpp"
#include "optimisers/result.hpp"

namespace optimisers {

/// One trainable array at setup: its name, which errors give and by which its leaf is found, and where it lies now.
struct Named {
  std::string name;
  AnySpan values;
  std::vector<std::int64_t> shape = {};  // empty: one axis
};

/// A leaf inside a flat array: `{"layer.weight", {64, 32}}`. Segments follow one another without gaps, in C order.
struct Segment {
  std::string name;
  std::vector<std::int64_t> shape;
};

/// The arrays a state is set up for: `x`, `{x, y}` (called "0", "1"), `{{"w", w}, {"b", b}}`, or one flat array in
/// segments, whose leaves mean what they mean alone (norms, freezing, clocks).
class Model {
 public:
  Model(AnySpan array) : leaves{{"0", array}} {}
  template <detail::ElementRange R>
  Model(R&& array) : Model(AnySpan(array)) {}
  Model(std::initializer_list<AnySpan> arrays) : Model(std::span(arrays.begin(), arrays.size())) {}
  Model(std::initializer_list<Named> arrays) : leaves(arrays) {}
  Model(std::vector<Named> arrays) : leaves(std::move(arrays)) {}
  explicit Model(std::span<const AnySpan> arrays);
  /// Throws Error(value) unless the segments fill the array exactly.
  Model(AnySpan flat, std::span<const Segment> segments);
  Model(AnySpan flat, std::initializer_list<Segment> segments)
      : Model(flat, std::span(segments.begin(), segments.size())) {}

  std::vector<Named> leaves;
};

/// Hyperparameters by name, as `adjust` takes them.
using Fields = std::vector<std::pair<std::string, Value>>;

struct SetupOptions {
  /// Where slots and master copies lie; it must outlive the state and its copies. Null: the operating system's pages.
  std::pmr::memory_resource* memory = nullptr;
};

struct UpdateOptions {
  /// What is done where a gradient has elements that are infinite or not a number: computed with them,
  /// Error(non_finite) with the first such leaf, or the whole step skipped and counted. For the latter two all
  /// gradients are read once.
  NonFinite non_finite = NonFinite::propagate;
};

class Leaf;

/// What setup returns: slots, clocks and hyperparameters of all leaves. It holds no pointer to the arrays: every call
/// brings them. A value: copies are deep. Different states may run in parallel; a second call on a state that is in
/// use throws Error(busy). A call that fails has changed nothing. A state that was moved
/// from may be assigned to and destroyed, no more.
class State {
 public:
  /// Which rule a leaf gets, by its name; nullopt: the leaf is left alone, frozen for good.
  using Chooser = std::function<std::optional<Program>(const std::string& name)>;

  State(const Program& program, const Model& model, const SetupOptions& options = {});
  State(const Chooser& choose, const Model& model, const SetupOptions& options = {});
  State(const State& other);
  State(State&&) noexcept;
  State& operator=(const State& other);
  State& operator=(State&&) noexcept;
  ~State();

  /// x ← x − dx for every leaf, where dx is what the leaf's rules make of its gradient.
  /// Both as at setup: one array a leaf, or one flat array. Gradients may be of another real type than their leaf;
  /// a leaf whose gradient is `{}` is left untouched, its clock too. Norms are summed in the order of the leaves.
  /// Throws Error(value, type): size or type of an array is not the leaf's, arrays overlap, an array is const;
  /// Error(non_finite): ClipNorm met an infinite or undefined norm, or as `options` say; Error(busy).
  /// False: the step was skipped.
  bool update(const Arrays& x, const Arrays& dx, const UpdateOptions& options = {});
  /// Applies what AccumGrad has gathered in windows that are not full, as the mean over their calls. Where nothing is
  /// held, nothing changes.
  void flush(const Arrays& x);

  std::int64_t skipped() const;  // steps that were skipped so far
  /// The last norm that leaves shared in an update (ClipNorm with the global scope); of several in one step that of the
  /// first such stage of the first leaf that has one. Of leaves on GPUs it is fetched, which takes waiting.
  std::optional<double> norm() const;

  /// Waits for the work on GPUs and throws what it found out: Error(non_finite) for a norm that ClipNorm refused. The
  /// step that met it wrote nothing; without this call, the next update throws it. On the host there is nothing to do.
  void wait();
  Result<> try_update(const Arrays& x, const Arrays& dx) noexcept;

  std::size_t size() const;       // leaves
  std::int64_t elements() const;  // of all leaves together: the length of a flat array
  Leaf leaf(std::size_t index);
  /// Throws Error(value) naming the leaves there are.
  Leaf operator[](std::string_view name);
  /// The leaves whose dotted name begins with the components of `part`: "enc" has "enc.w" but not "encoder".
  std::vector<Leaf> leaves(std::string_view part = {});

  /// Changes hyperparameters of all leaves, and nothing else: slots and clocks stay.
  ///   adjust(0.01)  the learning rate;  adjust("beta", Pair{0.9, 0.99});  adjust(Fields)  by name, in every stage
  ///   that has them;  adjust(Adam{.eta = 0.1})  by value, in every stage of that rule.
  /// Throws Error(value): out of range; no rule has the field (lists those there are); it decides which slots exist.
  void adjust(double eta);
  void adjust(const Fields& fields);
  template <class V>
  void adjust(std::string_view field, const V& value) {
    adjust(Fields{{std::string(field), detail::to_value(value)}});
  }
  template <Rule R>
  void adjust(const R& rule) {
    adjust_rule(AnyRule(rule));
  }
  Result<> try_adjust(const Fields& fields) noexcept;

  void freeze();
  void thaw();  // all leaves that have a rule

  struct Data;  // state_data.hpp, inside the library

 private:
  friend class Leaf;
  void adjust_rule(const AnyRule& rule);
  std::unique_ptr<Data> data_;
};

/// A handle on one leaf of a State; valid until that is destroyed or assigned to, and also when it is moved.
class Leaf {
 public:
  const std::string& name() const;
  std::span<const std::int64_t> shape() const;
  DType dtype() const;
  bool frozen() const;
  /// A frozen leaf: no write to its parameter, slots or clocks. thaw throws Error(value) for a leaf without a rule.
  void freeze();
  void thaw();

  int stages() const;
  RuleValue rule(int stage = 0) const;  // with its hyperparameters now
  /// Changes hyperparameters of this leaf, as State::adjust does of all.
  void adjust(double eta);
  void adjust(const Fields& fields);
  template <class V>
  void adjust(std::string_view field, const V& value) {
    adjust(Fields{{std::string(field), detail::to_value(value)}});
  }
  template <Rule R>
  void adjust(const R& rule) {
    adjust_rule(AnyRule(rule));
  }

  /// Per-element state, writable, in the leaf's order: `leaf.slot<float>("m")`. Of the first stage that has it, or of
  /// the stage given. T is the slot's type: the compute type (float for 16-bit leaves), real for second moments of
  /// complex leaves. Throws Error(value) naming the slots there are, Error(type) for another T.
  template <Element T>
  std::span<T> slot(std::string_view name, int stage = -1) const {
    const SlotView v = find_slot(name, stage, dtype_of<T>);
    return {reinterpret_cast<T*>(v.data), std::size_t(size())};
  }
  std::vector<SlotView> slots(int stage = 0) const;
  /// The master copy of MixedPrecision; empty if this leaf has none.
  template <Element T>
  std::span<T> master() const {
    const SlotView v = find_slot("master", -2, dtype_of<T>);
    return {reinterpret_cast<T*>(v.data), v.data == nullptr ? 0 : std::size_t(size())};
  }
  /// A scalar of a rule's clock: `leaf.clock("beta1_t")`. On a GPU it is fetched, which takes waiting.
  double clock(std::string_view name, int stage = -1) const;
  void set_clock(std::string_view name, double value, int stage = -1) const;
  std::int64_t size() const;  // elements
  std::uint32_t index() const { return index_; }

 private:
  friend class State;
  Leaf(State::Data& state, std::uint32_t index) : state_(&state), index_(index) {}
  SlotView find_slot(std::string_view name, int stage, DType dtype) const;
  struct ClockPlace {
    int stage;
    std::size_t index;
  };
  ClockPlace find_clock(std::string_view name, int stage) const;
  void adjust_rule(const AnyRule& rule);
  State::Data* state_;
  std::uint32_t index_;
};

/// State for training `model` by `rule` (a Rule, Chain, RuntimeChain, MixedPrecision, AnyRule or Program).
/// Throws Error(value): hyperparameter out of range, leaves that share memory, duplicate names; Error(type): a leaf
/// that is not floating point; std::bad_alloc.
template <Programmable R>
State setup(const R& rule, const Model& model, const SetupOptions& options = {}) {
  return State(program_of(rule), model, options);
}
/// Rules by name: `setup([](const std::string& name) { return std::optional(AnyRule(...)); }, model)`.
template <class Choose>
  requires std::is_invocable_v<const Choose&, const std::string&>
State setup(const Choose& choose, const Model& model, const SetupOptions& options = {}) {
  return State(State::Chooser([&choose](const std::string& name) -> std::optional<Program> {
                 auto rule = choose(name);
                 if constexpr (Programmable<decltype(rule)>) return program_of(rule);
                 else if (rule) return program_of(*rule);
                 else return std::nullopt;
               }),
               model, options);
}

namespace detail {
Result<State> try_setup(const Program& program, const Model& model, const SetupOptions& options) noexcept;
}
/// setup for callers that cannot catch.
template <Programmable R>
Result<State> try_setup(const R& rule, const Model& model, const SetupOptions& options = {}) {
  return detail::try_setup(program_of(rule), model, options);
}

}  // namespace optimisers
