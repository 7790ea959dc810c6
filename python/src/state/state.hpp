// state.hpp: what `setup` returns, without its Python face: the model's spec and the core's optimiser of its leaves.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

#include "arrays/array.hpp"
#include "arrays/lent.hpp"
#include "arrays/pins.hpp"
#include "arrays/streams.hpp"
#include "handle.hpp"
#include "optimisers/optimiser.hpp"
#include "tree/walk.hpp"

namespace optimisers::python {

// Leaves as segments of one vector.
struct Layout {
  DType dtype = DType::float32;
  std::int64_t size = 0;
  std::vector<std::int64_t> offsets;                       // of each leaf
  std::vector<std::vector<std::int64_t>> shapes, strides;  // C order, in elements
};
Layout layout_of(const Flattened& model, DType dtype);

struct LeafArray {
  std::vector<std::int64_t> shape;
  DType dtype;
  Library library;
  std::int8_t device = on_host;
};

// The slots and the master copy of one leaf of the core, in a fixed order, and the scalars of its clocks.
struct Memory {
  std::byte* data;
  std::size_t bytes;
  int device;
};
std::vector<Memory> memory_of(Optimiser& core, std::uint32_t leaf);
std::span<double> clock_of(Optimiser& core, std::uint32_t leaf, int stage);  // without the interpreter's lock
std::vector<double> clocks_of(Optimiser& core, std::uint32_t leaf);
void set_clocks(Optimiser& core, std::uint32_t leaf, std::span<const double> values);

// The core's leaves: the model's, and behind them one for the native stages before each user-defined one.
struct UserStages;
std::vector<LeafSpec> leaf_specs(const TreeSpec& spec, const std::vector<LeafArray>& leaves, const nb::list& rules,
                                 std::map<std::uint32_t, UserStages>& user);

// A leaf whose rule has stages written in Python. The native stages before each of those are a leaf of the core of
// their own; what follows the last one is the leaf's own.
struct UserStages {
  std::vector<std::uint32_t> before;
  std::vector<nb::object> states;  // what the stages' init returned; None until set
};

// What becomes of gradients that are kept, after the step.
enum class ZeroGrad : std::uint8_t { no, to_none, to_zeros };

// Where a call's gradients are.
struct GradientSource {
  PyObject* tree = nullptr;     // of the model's shape
  PyObject* kept_by = nullptr;  // or: the model whose arrays hold theirs (.grad)
  bool once = false;            // one array at several places of a tied leaf is one gradient, not parts of a sum
  ZeroGrad zero = ZeroGrad::no;
  NonFinite non_finite = NonFinite::propagate;
  bool flushes = false;  // instead of gradients: gating stages open on what they hold
  std::span<PyObject* const> higher = {};
  std::optional<void*> stream = {};  // for work on devices; none: the array libraries' own
  int depth = 1;                     // of the user's frame, for warnings
};

// What zero_grad does once the step has run, made ready before it.
struct Resets {
  std::vector<nb::object> keepers;  // whose .grad becomes None
  nb::object enter, exit;           // keep overrides of torch's functions out meanwhile
  std::vector<nb::object> found;    // the gradients at the places, or the flat one, as they were found
  std::vector<ArrayView> zeroed;
  std::vector<ArrayView> on_devices;
  nb::object tensors;  // among them
};

// Of the devices the leaves are on.
Streams streams_of(std::span<const LeafArray> leaves);

// A model whose trained arrays are copies that can be written.
struct CopiedModel {
  nb::object model;
  std::vector<nb::object> leaves;
  std::vector<std::pair<std::uint32_t, nb::object>> from_jax;  // leaves that are copies of JAX arrays, and those
};

[[noreturn]] void refuse_untied(const TreeSpec& spec, const Place& place, const char* call);

class State {
 public:
  // `rules`: a Python rule for each leaf. With a layout, the one array is the flat vector. On this thread's streams.
  State(std::unique_ptr<TreeSpec> spec, std::vector<LeafArray> leaves, nb::list rules,
        std::span<const ArrayView> arrays, std::optional<Layout> layout);
  State(const State& other);
  ~State();

  const TreeSpec& spec() const { return *spec_; }
  Optimiser& core() { return core_; }
  const LeafArray& leaf(std::uint32_t i) const { return leaves_[i]; }
  nb::list& rules() { return rules_; }
  nb::object& setup_rule() { return setup_rule_; }
  void wait();  // for the work on devices; throws what it found out
  Seen seen();
  // From now on updates add one to the element of `counts` (float32, one a leaf) of each leaf they write.
  void count_into(nb::object counts);
  bool has_layout() const { return layout_.has_value(); }
  const std::optional<Layout>& layout() const { return layout_; }

  // The core's leaves of a leaf, in the order of its stages.
  std::vector<std::uint32_t> core_leaves(std::uint32_t leaf) const;
  std::vector<std::uint32_t> core_leaves_below(std::uint32_t node) const;
  std::map<std::uint32_t, UserStages>& user_stages() { return user_stages_; }

  void update(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call);
  // A copy of the model, and with it, under the same lock, one of the state.
  CopiedModel copied_model(std::uint32_t root, PyObject* model, const char* call, std::unique_ptr<State>& new_state);
  nb::object jax_model(std::uint32_t root, PyObject* model, CopiedModel&& copied, const char* call);
  // With `rule`, which may be null, as the leaf's from now on, unless the call fails.
  bool apply(PyObject* x, PyObject* gradient, PyObject* out, std::span<PyObject* const> higher, PyObject* rule);
  // Whether a leaf below has stages written in Python, whose hyperparameters are not here.
  bool has_user_stages(std::uint32_t node) const;
  Adjusted adjust(std::uint32_t node, std::span<const Adjustment> adjustments);
  // Gives each of these leaves a rule of the structure it has.
  void replace_rules(std::span<const std::uint32_t> leaves, const nb::list& rules);
  std::uint64_t revision() const { return revision_; }  // of the hyperparameters: another number, other ones

  // Slots, clocks and marks of leaves (here, in `old`), whose programs, shapes and dtypes are the same; then the
  // handles are of this state, `self`, at these nodes, and `old` is not used any more. Throws before anything of `old`
  // changes.
  void take_over(State& old, std::span<const std::pair<std::uint32_t, std::uint32_t>> leaves,
                 std::span<Handle* const> handles, std::span<const std::uint32_t> nodes, const nb::object& self);

  // Plain objects and bytes; the rules, each with its hyperparameters as they are now, are for who calls to put
  // together. `unpickled` takes them so, and believes nothing: see restore.cpp.
  nb::tuple pickled();
  static std::unique_ptr<State> unpickled(nb::handle data);

  // What the garbage collector asks for; a state whose objects are gone refuses every call.
  int visit_objects(visitproc visit, void* arg);
  void drop_objects();
  void check_node(std::uint32_t node) const;  // throws for what is neither a node nor a mark
  void check_leaf(std::uint32_t leaf) const;

 private:
  friend class Use;

  friend class UserRun;

  // Rules of leaves, and the list of all with them in it.
  struct Replaced {
    std::vector<Optimiser::StageRule> stages;
    nb::list rules;
  };
  using RuleValues = std::unordered_map<PyObject*, std::vector<RuleValue>>;
  static RuleValues values_of(const nb::list& rules);  // asks Python code
  Replaced replaced_rules(std::span<const std::uint32_t> leaves, const nb::list& rules, const RuleValues& values);
  Replaced rules_of_leaf(std::uint32_t leaf);
  void take(Replaced&& replaced, const char* call);
  bool apply_stages(const ArrayView& target, LeafUpdate& update, std::span<PyObject* const> higher, const char* call);
  nb::tuple rule_table();

  void collect(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call);
  void collect_segments(std::uint32_t root, PyObject* flat, const GradientSource& source, const char* call);
  void find_gradients(std::uint32_t root, const GradientSource& source, const char* call);
  void drop_repeated(std::uint32_t root);
  bool same_gradient(const Place& a, const Place& b);
  void note_found(std::uint32_t root);
  std::vector<ArrayView> unchecked_parameters() const;
  void prepare_none();
  void prepare_zeros(std::uint32_t root, const char* call);
  void reset_gradients(ZeroGrad how);
  bool lets_go() const;
  bool nothing_came() const;
  bool updated(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call);
  bool warned_of_nothing(const GradientSource& source, const char* call);
  std::optional<Examined> collect_plain(std::uint32_t root, PyObject* model, const GradientSource& source);
  std::optional<Examined> walk_plain(PyObject* model, PyObject* gradients);
  bool read_plain(std::size_t begin, std::size_t end);
  bool step(std::uint32_t root, PyObject* model, const GradientSource& source, const char* call);
  bool run(std::span<const LeafUpdate> updates, const GradientSource& source);
  bool accepts(NonFinite non_finite);
  void list_tensors(std::uint32_t root, PyObject* flat);
  void tell_torch(std::uint32_t root, PyObject* flat);
  LeafUpdate& update_of(std::uint32_t leaf, bool& is_new);
  void add_gradient(LeafUpdate& update, const ArrayView& dx);
  void note_imported(PyObject* object);
  void read_parameter(const Place& place, ArrayView& x, const char* call);
  Fault read_device_array(PyObject* object, ArrayView& view);
  Lent lent(std::uint32_t root, PyObject* flat) const;
  void give_back(std::uint32_t root, PyObject* flat, std::optional<void*> stream);
  void hold(std::span<const nb::object> objects);
  void wait_for_held();
  bool read_gradient(const Place& place, ArrayView& dx, const char* call);
  void own_objects();
  void begin_reading();
  void check_memory(std::uint32_t root, const char* call) const;
  void prefetch_objects(std::uint32_t node) const;
  void bring_to_leaf_axes(const Place& place, ArrayView& view);
  void segment(const ArrayView& flat, std::uint32_t leaf, ArrayView& view) const;
  void size_scratch();
  void count_written();

  std::unique_ptr<TreeSpec> spec_;
  std::vector<LeafArray> leaves_;
  nb::list rules_;
  nb::object setup_rule_ = nb::none();  // what setup was given, for leaves to come; none: not known
  std::optional<Layout> layout_;
  std::map<std::uint32_t, UserStages> user_stages_;  // by leaf; filled while the core is made
  Streams streams_;
  Optimiser core_;
  std::int64_t elements_ = 0;
  std::uint64_t revision_ = 0;

  // Scratch that calls reuse.
  Objects model_, gradients_;
  std::vector<LeafUpdate> updates_;
  std::size_t used_ = 0;
  nb::object counts_;  // of updates, where somebody counts them, and its memory
  float* count_ = nullptr;
  nb::object tensors_;                        // a list of them, which torch is told of
  std::vector<std::int32_t> update_of_leaf_;  // tied specs: position in this call, or -1
  std::vector<FurtherGradient> further_;
  std::vector<std::int64_t> permuted_;  // shapes and strides of transposed places
  std::size_t permuted_used_ = 0;
  std::vector<nb::object> imported_;  // what views of this call are of
  Pins pins_;
  std::unique_ptr<Resets> resets_;  // of a call with zero_grad
  std::vector<nb::object> held_;    // JAX's, which must not free what the last call may still be reading
  std::vector<cuda::Mark> held_until_;

  std::timed_mutex mutex_;
  std::atomic<std::thread::id> user_{};
  std::atomic<unsigned> forks_{0};

  // What is small, together.
  int calls_to_skip_ = 0;      // before collect_plain is worth another try
  bool replaced_ = false;      // by another, which took over
  bool told_ = false;          // that no leaf got a gradient
  bool spared_ = false;        // the first time, where steps are counted
  bool has_tensors_ = false;   // among the parameters of this call
  bool has_imported_ = false;  // arrays on devices, of other libraries, among its arrays
  bool beside_torch_ = false;  // torch's, on a device whose stream is another library's
  bool pins_arrays_ = false;   // in this call: other code may run before it has run
  bool plain_ = true;          // nothing to be done as a call begins: all on the host, and nothing dropped
  bool dropped_ = false;
};

// Holds a state for one call: waits for other threads without the GIL, refuses a call from inside a call, or one that
// would wait for a thread that waits for this one. Work on devices goes to the stream given, or to the array libraries'
// own.
class Use {
 public:
  explicit Use(State& state, std::optional<void*> stream = {});
  ~Use();
  Use(const Use&) = delete;

 private:
  bool would_wait_for_itself() const;
  void wait();
  void release();
  State& state_;
};

}  // namespace optimisers::python
