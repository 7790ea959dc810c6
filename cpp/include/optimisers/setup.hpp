// setup.hpp: the C++ API: setup(rule, arrays) gives a State, and state.update(x, dx) is one step of training.
#pragma once
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optimisers/any_span.hpp"
#include "optimisers/chain.hpp"
#include "optimisers/files.hpp"
#include "optimisers/optimiser.hpp"
#include "optimisers/result.hpp"

namespace optimisers::inline OPT_ABI {

/// One trainable array at setup: its name, which errors give and by which its leaf is found, and where it lies now.
struct Named {
  std::string name;
  AnySpan values;
  std::vector<std::int64_t> shape = {};  // empty: one axis, or a matrix' two
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
  template <class A>
    requires std::convertible_to<A, AnySpan>
  Model(A&& array) {
    add("0", std::forward<A>(array));
  }
  Model(std::initializer_list<AnySpan> arrays) : Model(std::span(arrays.begin(), arrays.size())) {}
  Model(std::initializer_list<Named> arrays) : leaves(arrays) {}
  Model(std::vector<Named> arrays) : leaves(std::move(arrays)) {}
  explicit Model(std::span<const AnySpan> arrays);
  template <std::ranges::input_range R>
    requires(!std::convertible_to<R, AnySpan> && std::convertible_to<std::ranges::range_reference_t<R>, AnySpan>)
  Model(R&& arrays) {
    for (auto&& a : arrays) add(std::to_string(leaves.size()), a);
  }
  /// Throws Error(value) unless the segments fill the array exactly.
  Model(AnySpan flat, std::span<const Segment> segments);
  Model(AnySpan flat, std::initializer_list<Segment> segments)
      : Model(flat, std::span(segments.begin(), segments.size())) {}

  std::vector<Named> leaves;

 private:
  void add(std::string name, AnySpan values) { leaves.push_back({std::move(name), values, {}}); }
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
  /// Gradients are multiplied by it, in the type the leaf computes in: 1/n where n processes have summed theirs.
  double scale = 1;
  /// Asked for each norm that a stage measures, before anything is written: what it is over all processes, each of
  /// which holds a part of the leaves or of their elements. `norm` is of this process; `leaf` is empty for a norm of
  /// all leaves together. What it throws ends the call, which has changed nothing.
  std::function<double(double norm, double p, const std::string& leaf)> reduce_norm = {};
};

class Leaf;
class ConstLeaf;

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
  /// Arrays may come by name, in any order: `update({{"b", b}, {"w", w}}, {{"w", gw}})`; a gradient that is not named
  /// is missing. Const parameters do not compile. False: the step was skipped.
  bool update(const MutableArrays& x, const Arrays& dx);
  bool update(const MutableArrays& x, const Arrays& dx, const UpdateOptions& options);
  /// Applies what AccumGrad has gathered in windows that are not full, as the mean over their calls. Where nothing is
  /// held, nothing changes.
  void flush(const MutableArrays& x);

  std::int64_t skipped() const;  // steps that were skipped so far
  /// The last norm that leaves shared in an update (ClipNorm with the global scope); of several in one step that of the
  /// first such stage of the first leaf that has one. Of leaves on GPUs it is fetched, which takes waiting.
  std::optional<double> norm() const;

  /// Waits for the work on GPUs and throws what it found out: Error(non_finite) for a norm that ClipNorm refused. The
  /// step that met it wrote nothing; without this call, the next update throws it. On the host there is nothing to do.
  void wait();
  Result<> try_update(const MutableArrays& x, const Arrays& dx) noexcept;
  Result<> try_update(const MutableArrays& x, const Arrays& dx, const UpdateOptions& options) noexcept;

  /// Writes slots, clocks, hyperparameters and what is frozen to a safetensors file, which Python and C read as well;
  /// with `x`, parameters too. What stood at the path stands there until all is on the disk. Throws FileError for what
  /// the operating system refuses, Error(value) for names that are not UTF-8.
  void save(const std::string& path);
  void save(const std::string& path, const Arrays& x);
  /// Takes all that from a file, leaf by leaf by name; with `x`, parameters too. Throws Error(value) that lists what is
  /// missing, unexpected and different, or says where the file is damaged; then nothing has changed.
  LoadResult load(const std::string& path, const LoadOptions& options = {});
  LoadResult load(const std::string& path, const MutableArrays& x, const LoadOptions& options = {});
  /// A new state with the file's rules. Throws besides for rules that are not the library's.
  static State from_file(const std::string& path, const Model& model, const LoadOptions& options = {},
                         const SetupOptions& setup_options = {});

  std::size_t size() const noexcept;       // leaves
  std::int64_t elements() const noexcept;  // of all leaves together: the length of a flat array
  Leaf leaf(std::size_t index);
  ConstLeaf leaf(std::size_t index) const;
  /// Throws Error(value) naming the leaves there are.
  Leaf operator[](std::string_view name);
  ConstLeaf operator[](std::string_view name) const;
  /// The leaves whose dotted name begins with the components of `part`: "enc" has "enc.w" but not "encoder".
  std::vector<Leaf> leaves(std::string_view part = {});
  std::vector<ConstLeaf> leaves(std::string_view part = {}) const;

  /// Changes hyperparameters of all leaves, and nothing else: slots and clocks stay.
  ///   adjust(0.01)  the learning rate;  adjust("beta", Pair{0.9, 0.99});  adjust(Fields)  by name, in every stage
  ///   that has them;  adjust(Adam{.eta = 0.1})  by value, in every stage of that rule.
  /// Throws Error(value): out of range or more than a leaf's type holds; no rule has the field; it decides on slots.
  void adjust(double eta);
  void adjust(const Fields& fields);
  template <class V>
  void adjust(std::string_view field, const V& value) {
    adjust(Fields{{std::string(field), detail::to_value(value)}});
  }
  template <Rule R>
  OPT_HIDDEN void adjust(const R& rule) {
    adjust_rule(AnyRule(rule));
  }
  Result<> try_adjust(const Fields& fields) noexcept;

  void freeze();
  void thaw();  // all leaves that have a rule

  struct Data;  // state_data.hpp, inside the library

 private:
  friend class ConstLeaf;
  void adjust_rule(const AnyRule& rule);
  std::unique_ptr<Data> data_;
};

/// A handle on one leaf of a State, to read; valid until that is destroyed or assigned to, and also when it is moved.
class ConstLeaf {
 public:
  const std::string& name() const;
  std::span<const std::int64_t> shape() const;
  DType dtype() const;
  bool frozen() const;
  std::int64_t size() const;  // elements
  std::uint32_t index() const noexcept { return index_; }

  int stages() const;
  RuleValue rule(int stage = 0) const;  // with its hyperparameters now

  /// Per-element state, in the leaf's order: `leaf.slot<float>("m")`. Of the first stage that has it, or of the stage
  /// given. T is the slot's type: the compute type (float for 16-bit leaves), real for second moments of complex
  /// leaves. Throws Error(value) naming the slots there are, Error(type) for another T.
  template <Element T>
  std::span<const T> slot(std::string_view name, int stage = -1) const {
    return elements_of<const T>(find_slot(name, stage, dtype_of<T>));
  }
  /// The master copy of MixedPrecision; empty if this leaf has none.
  template <Element T>
  std::span<const T> master() const {
    return elements_of<const T>(find_slot("master", -2, dtype_of<T>));
  }
  /// A scalar of a rule's clock: `leaf.clock("beta1_t")`. On a GPU it is fetched, which takes waiting.
  double clock(std::string_view name, int stage = -1) const;

 protected:
  friend class State;
  ConstLeaf(State::Data& state, std::uint32_t index) : state_(&state), index_(index) {}
  template <class T>
  std::span<T> elements_of(const SlotView& v) const {
    return {reinterpret_cast<T*>(v.data), v.data == nullptr ? 0 : std::size_t(size())};
  }
  void check_stage(int stage) const;
  SlotView find_slot(std::string_view name, int stage, DType dtype) const;
  struct ClockPlace {
    int stage;
    std::size_t index;
  };
  ClockPlace find_clock(std::string_view name, int stage) const;
  State::Data* state_;
  std::uint32_t index_;
};

/// The same, to change what it is about.
class Leaf : public ConstLeaf {
 public:
  /// A frozen leaf: no write to its parameter, slots or clocks. thaw throws Error(value) for a leaf without a rule.
  void freeze();
  void thaw();

  /// Changes hyperparameters of this leaf, as State::adjust does of all; with `stage`, of that stage alone.
  void adjust(double eta);
  void adjust(const Fields& fields, int stage = -1);
  template <class V>
  void adjust(std::string_view field, const V& value, int stage = -1) {
    adjust(Fields{{std::string(field), detail::to_value(value)}}, stage);
  }
  template <Rule R>
  OPT_HIDDEN void adjust(const R& rule, int stage = -1) {
    adjust_rule(AnyRule(rule), stage);
  }

  /// Writable, no copy.
  template <Element T>
  std::span<T> slot(std::string_view name, int stage = -1) const {
    return elements_of<T>(find_slot(name, stage, dtype_of<T>));
  }
  template <Element T>
  std::span<T> master() const {
    return elements_of<T>(find_slot("master", -2, dtype_of<T>));
  }
  std::vector<SlotView> slots(int stage = 0) const;
  void set_clock(std::string_view name, double value, int stage = -1) const;

 private:
  friend class State;
  using ConstLeaf::ConstLeaf;
  void adjust_rule(const AnyRule& rule, int stage);
};

/// State for training `model` by `rule` (a Rule, Chain, RuntimeChain, MixedPrecision, AnyRule or Program).
/// Throws Error(value): hyperparameter out of range or more than the leaf's type holds (16 bits: float32), leaves that
/// share memory, duplicate names; Error(type): a leaf that is not floating point; std::bad_alloc.
template <Programmable R>
OPT_HIDDEN State setup(const R& rule, const Model& model, const SetupOptions& options = {}) {
  return State(program_of(rule), model, options);
}
/// Rules by name: `setup([](const std::string& name) { return std::optional(AnyRule(...)); }, model)`.
template <class Choose>
  requires std::is_invocable_v<const Choose&, const std::string&>
OPT_HIDDEN State setup(const Choose& choose, const Model& model, const SetupOptions& options = {}) {
  return State(State::Chooser([&choose](const std::string& name) -> std::optional<Program> {
                 auto rule = choose(name);
                 if constexpr (Programmable<decltype(rule)>) return program_of(rule);
                 else if (rule) return program_of(*rule);
                 else return std::nullopt;
               }),
               model, options);
}

namespace detail {
// `make` gives the program of a rule, which may fail too.
Result<State> try_setup(Program (*make)(const void* rule), const void* rule, const Model& model,
                        const SetupOptions& options) noexcept;
}  // namespace detail
/// setup for callers that cannot catch.
template <Programmable R>
OPT_HIDDEN Result<State> try_setup(const R& rule, const Model& model, const SetupOptions& options = {}) {
  return detail::try_setup([](const void* r) { return program_of(*static_cast<const R*>(r)); }, &rule, model, options);
}

}  // namespace optimisers::inline OPT_ABI
