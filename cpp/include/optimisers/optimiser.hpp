// optimiser.hpp: the optimiser of a list of leaves: state, hyperparameters, and one update over all of them.
// Every check runs before the first write: a call that throws has changed nothing.
#pragma once
#include <functional>
#include <limits>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "optimisers/array.hpp"
#include "optimisers/program.hpp"

namespace optimisers::inline OPT_ABI {

struct LeafSpec {
  std::string name;  // its path, for messages
  std::vector<std::int64_t> shape;
  DType dtype;
  Program program;
  std::int8_t device = on_host;
};

// One leaf in one call. Gradients beyond the first (of a tied leaf) form a list through `more`.
struct LeafUpdate {
  std::uint32_t leaf;
  std::int32_t more = -1;  // index into the call's further gradients
  ArrayView x;
  ArrayView dx;  // not present: missing
};
struct FurtherGradient {
  ArrayView dx;
  std::int32_t more = -1;
};

// What the checks of an update find where they look; `update` throws what is wrong.
struct Examined {
  bool fits = true;      // shapes, dtypes and devices are the leaves'
  bool compared = true;  // no parameter is another array than when all were compared
  bool meets = false;    // a gradient meets memory that was written then
  void add(const Examined& other) {
    fits &= other.fits;
    compared &= other.compared;
    meets |= other.meets;
  }
};

// A change of hyperparameters: of a field in every stage that has it, or in the stages of one rule.
struct Adjustment {
  std::string field;
  Value value;
  bool scales = false;             // the value is a factor of the number there
  bool levels = true;              // may replace numbers that differ
  const RuleInfo* rule = nullptr;  // null: of any
  int stage = -1;                  // -1: of any
};
// The least and the greatest number that would be replaced by what may not level them. Differ they, nothing was done.
struct Adjusted {
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -std::numeric_limits<double>::infinity();
};

// A slot's memory: contiguous, in the leaf's shape and C order. Lives as long as the optimiser.
struct SlotView {
  const char* name;
  std::byte* data;
  DType dtype;
  std::int8_t device = on_host;
};

// What a step does where a gradient has elements that are infinite or not a number: one that is frozen or missing does
// not count, and what the leaf's type cannot hold does.
enum class NonFinite : std::uint8_t {
  propagate,  // computes with it
  raise,      // throws Error(non_finite) with the first such leaf, and has changed nothing
  skip,       // writes nothing, clocks included, and counts the step
};

// What was seen of the steps so far.
struct Seen {
  std::int64_t skipped = 0;  // steps that NonFinite::skip skipped
  std::optional<double>
      norm;  // the last that leaves shared: of several in one step, the first stage's of the first leaf
};

class Optimiser {
 public:
  using Leaf = std::uint32_t;

  // `x` are the leaves' arrays now: master copies are taken from them. Shapes and dtypes must be the specs'.
  // Slots and master copies lie in `memory`, which must outlive the optimiser and its copies; null: the system's.
  Optimiser(std::vector<LeafSpec> leaves, std::span<const ArrayView> x, std::pmr::memory_resource* memory = nullptr);
  Optimiser(const Optimiser&);  // deep: hyperparameters, clocks, slots, frozen marks
  ~Optimiser();

  std::size_t size() const;
  const LeafSpec& spec(Leaf leaf) const;  // as set up; rule() has the hyperparameters now
  RuleValue rule(Leaf leaf, int stage) const;
  // Of a leaf on an accelerator: as it is there now, which takes waiting; writing goes through set_clock.
  std::span<double> clock(Leaf leaf, int stage);
  void set_clock(Leaf leaf, int stage, std::span<const double> values);
  std::vector<SlotView> slots(Leaf leaf, int stage);
  std::optional<SlotView> master(Leaf leaf);
  bool frozen(Leaf leaf) const;
  void set_frozen(std::span<const Leaf> leaves, bool frozen);

  // All or nothing. A field that no stage of these leaves has is refused.
  Adjusted change(std::span<const Leaf> leaves, std::span<const Adjustment> adjustments);
  // Sets the fields by name in every stage of these leaves that has them.
  // With `stage`, in that stage alone.
  void adjust(std::span<const Leaf> leaves, std::span<const std::pair<std::string, Value>> fields, int stage = -1);

  // Replaces the hyperparameters of stages, all or nothing. Throws Error(value) for another rule, other state arrays,
  // or what overflows in the leaf's compute type. `call` is what messages begin with.
  struct StageRule {
    Leaf leaf;
    int stage;
    RuleValue rule;
  };
  void set_rules(std::span<const StageRule> rules, const char* call = "adjust");
  void set_rule(Leaf leaf, int stage, const RuleValue& rule);

  // x -= dx for the leaves of this call, in walk order (the order norms are summed in), each leaf at most once.
  // False: skipped.
  bool update(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further = {},
              NonFinite non_finite = NonFinite::propagate);

  // The same of gradients times `scale`, of leaves on the host; `reduce_norm`, if there is one, is given each norm that
  // a stage measures, its order and its leaf ("" for a norm of several), and returns what counts.
  using ReduceNorm = std::function<double(double norm, double p, const std::string& leaf)>;
  bool update(std::span<const LeafUpdate> leaves, double scale, const ReduceNorm& reduce_norm,
              NonFinite non_finite = NonFinite::propagate);

  // The language whose words messages use, where they differ.
  enum class Language : std::uint8_t { python, cxx, c };
  void speak(Language language);

  // The same in two steps, for who reads the arrays of many leaves: these are looked at while they are in the cache.
  // Leaves [begin, end) of the call; any thread may look at its own. Throws nothing. Then, with all that was found, the
  // update of these very leaves.
  Examined examine(std::span<const LeafUpdate> leaves, std::size_t begin, std::size_t end) noexcept;
  bool update(std::span<const LeafUpdate> leaves, const Examined& found, NonFinite non_finite = NonFinite::propagate);

  // The checks of an update alone: of the arrays, and of what their gradients hold. False: it is to be skipped, and has
  // been counted as that.
  bool accepts(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further, NonFinite non_finite);

  // Ends the windows of gating stages that hold something, as though they were full: AccumGrad's mean is over the calls
  // there were. A gradient that is given is the window's last; without one, and with nothing held, nothing changes.
  void flush(std::span<const LeafUpdate> leaves);

  // The same, but writes what would be subtracted to `out` (contiguous, of the leaf's dtype) and leaves x alone.
  // False: nothing came out (AccumGrad is still collecting). Leaves with a master copy are refused.
  bool apply(const LeafUpdate& leaf, std::byte* out);
  // The same for several leaves, which share their global norms. `out` becomes null where nothing came out. `call` is
  // what messages begin with, and must outlive it.
  void apply(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further, std::span<std::byte*> out,
             const char* call = "apply_", bool flushes = false);

  // Whether the last call of update wrote to the parameter; of a gated leaf on an accelerator, whether it may have.
  bool wrote(const LeafUpdate& leaf) const;

  // A norm on an accelerator is fetched, which takes waiting; there it may also be one that was refused.
  Seen seen() const;
  void set_seen(const Seen& seen);

  // Waits for the work on accelerators, and throws what it found out: Error(non_finite) for a norm that ClipNorm
  // refused. Such a step has written nothing; without this call, the next update throws it.
  void wait();

  struct State;  // state.hpp, inside the library

 private:
  std::unique_ptr<State> state_;
};

}  // namespace optimisers::inline OPT_ABI
