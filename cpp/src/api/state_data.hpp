// state_data.hpp: what a State holds: an Optimiser, and the names and sizes in front of it.
#pragma once
#include <atomic>

#include "files/restore.hpp"
#include "optimisers/setup.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI {

// Holds the state for the length of a call.
class InUse {
 public:
  explicit InUse(std::atomic<bool>& flag) : flag_(flag) {
    if (flag_.exchange(true, std::memory_order_acquire))
      throw Error(ErrorKind::busy, "the state is in use by another call; give each thread a state of its own");
  }
  ~InUse() { flag_.store(false, std::memory_order_release); }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  std::atomic<bool>& flag_;
};

// Whether it is what it was in the last call.
inline bool is_same(const ArrayView& view, const AnySpan& a) {
  return view.data == a.data() && view.dtype == a.dtype() && view.present == a.present() && view.strides == nullptr &&
         view.writable == a.writable() && view.device == a.device() && a.contiguous();
}

struct State::Data {
  Optimiser optimiser;
  std::vector<bool> has_rule;
  std::vector<std::uint32_t> by_name;  // the leaves in the order of their names
  std::vector<std::int64_t> sizes;
  std::int64_t elements = 0;
  std::vector<LeafUpdate> call;  // reused
  const char* doing = "update";  // for messages
  // The arrays of `call` have passed the checks of an update, and nothing has changed that those ask for: what comes as
  // it came before is not checked again, which takes a fifth of a step over few elements.
  bool accepted = false;
  std::atomic<bool> busy{false};

  Data(std::vector<LeafSpec> specs, std::span<const ArrayView> x, std::pmr::memory_resource* memory)
      : optimiser(std::move(specs), x, memory) {}
  Data(const Data& o)
      : optimiser(o.optimiser), has_rule(o.has_rule), by_name(o.by_name), sizes(o.sizes), elements(o.elements) {
    make_call();
  }
  void make_call();

  static Data& of(State& state) { return *state.data_; }
  static std::unique_ptr<Data> make(const Chooser& choose, const Model& model, const SetupOptions& options);
  std::vector<Optimiser::Leaf> all() const {
    std::vector<Optimiser::Leaf> leaves(optimiser.size());
    for (std::uint32_t i = 0; i < leaves.size(); ++i) leaves[i] = i;
    return leaves;
  }
  void freeze(std::span<const Optimiser::Leaf> leaves, bool frozen) {
    InUse in_use(busy);
    accepted = false;
    for (const auto leaf : leaves)
      if (has_rule[leaf]) optimiser.set_frozen({&leaf, 1}, frozen);
  }
  // stage -1: all of a leaf's.
  void adjust(std::span<const Optimiser::Leaf> leaves, const Fields& fields, int stage = -1) {
    InUse in_use(busy);
    optimiser.adjust(leaves, fields, stage);
  }
  void adjust(std::span<const Optimiser::Leaf> leaves, const AnyRule& rule, int stage = -1);
  std::uint32_t find(std::string_view name) const;  // throws naming the leaves there are
  // One array a leaf, each as in the last call.
  template <class Span>
  bool are_same(const ArrayList<Span>& arrays, ArrayView LeafUpdate::* where) const {
    const auto list = arrays.list();
    if (!arrays.named().empty() || list.size() != sizes.size()) return false;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (!is_same(call[i].*where, list[i]) || (list[i].present() && list[i].size() != sizes[i])) return false;
    return true;
  }
  template <class Span>
  void place(const ArrayList<Span>& arrays, const char* what, ArrayView LeafUpdate::* where);
  void place_parameters(const MutableArrays& x);
  void check_parameters() const;
  bool update(const MutableArrays& x, const Arrays& dx, const UpdateOptions* options);
  template <class Span>
  void place_for(const char* call, const ArrayList<Span>& x);  // parameters, for another call than update
  std::vector<files::NamedLeaf> saved_leaves() const;          // those that have a rule
  void save(const std::string& path, const Arrays* x);
  LoadResult load(const std::string& path, const MutableArrays* x, const LoadOptions& options);
};

}  // namespace optimisers::inline OPT_ABI
