// persist.cpp: states as plain Python objects: lists of what there are few of, bytes for all that comes once a leaf.
#include <nanobind/stl/vector.h>

#include <cstring>
#include <map>

#include "optimisers/cuda.hpp"
#include "saved.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

nb::str dtype_name(DType dtype) { return nb::str(std::string(name_of(dtype)).c_str()); }

// What all the memory holds, wherever it is, one piece after the other.
nb::bytes bytes_of(const std::vector<Memory>& memory) {
  std::size_t size = 0;
  for (const Memory& piece : memory) size += piece.bytes;
  nb::bytes bytes = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!bytes.is_valid()) throw nb::python_error();
  auto* to = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes.ptr()));
  Unlocked unlocked;
  for (const Memory& piece : memory) {
    if (piece.bytes == 0) continue;
    if (piece.device == on_host) std::memcpy(to, piece.data, piece.bytes);
    else cuda::copy(to, on_host, piece.data, piece.device, piece.bytes);
    to += piece.bytes;
  }
  return bytes;
}

nb::object saved_layout(const std::optional<Layout>& layout) {
  if (!layout) return nb::none();
  return nb::make_tuple(dtype_name(layout->dtype), layout->size, saved::bytes_from(layout->offsets));
}

// Numbers things in the order in which they come first.
template <class Key>
class Numbered {
 public:
  // Whether it is new; its number is the last of `numbers`.
  bool add(const Key& key) {
    const auto [found, is_new] = known_.try_emplace(key, static_cast<std::uint32_t>(known_.size()));
    numbers.push_back(found->second);
    return is_new;
  }
  std::vector<std::uint32_t> numbers;

 private:
  std::map<Key, std::uint32_t> known_;
};

// [(dtype, library, frozen, device)] that there are; which each leaf has, and its number of axes; all shapes.
nb::tuple saved_leaves(const std::vector<LeafArray>& leaves, const Optimiser& core) {
  nb::list kinds;
  Numbered<std::tuple<DType, Library, bool, int>> kind;
  std::vector<std::uint32_t> table;
  std::vector<std::int64_t> shapes;
  for (std::uint32_t i = 0; i < leaves.size(); ++i) {
    const LeafArray& leaf = leaves[i];
    const bool frozen = core.frozen(i);
    if (kind.add({leaf.dtype, leaf.library, frozen, leaf.device}))
      kinds.append(
          nb::make_tuple(dtype_name(leaf.dtype), name_of(leaf.library), frozen, static_cast<int>(leaf.device)));
    table.push_back(kind.numbers.back());
    table.push_back(static_cast<std::uint32_t>(leaf.shape.size()));
    shapes.insert(shapes.end(), leaf.shape.begin(), leaf.shape.end());
  }
  return nb::make_tuple(kinds, saved::bytes_from(table), saved::bytes_from(shapes));
}

nb::list states_of(const UserStages& stages) {
  nb::list states;
  for (const nb::object& state : stages.states) states.append(state);
  return states;
}

}  // namespace

std::vector<Memory> memory_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<Memory> all;
  const LeafSpec& spec = core.spec(leaf);
  const auto elements = static_cast<std::size_t>(size_of(spec.shape));
  const auto add = [&](const SlotView& slot) {
    all.push_back({slot.data, elements * static_cast<std::size_t>(size_of(slot.dtype)), slot.device});
  };
  for (int stage = 0; stage < static_cast<int>(spec.program.stages.size()); ++stage)
    for (const SlotView& slot : core.slots(leaf, stage)) add(slot);
  if (auto master = core.master(leaf)) add(*master);
  return all;
}

std::span<double> clock_of(Optimiser& core, std::uint32_t leaf, int stage) {
  if (core.spec(leaf).device == on_host) return core.clock(leaf, stage);
  Unlocked unlocked;  // it waits
  return core.clock(leaf, stage);
}

std::vector<double> clocks_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<double> all;
  for (int stage = 0; stage < static_cast<int>(core.spec(leaf).program.stages.size()); ++stage)
    for (double value : clock_of(core, leaf, stage)) all.push_back(value);
  return all;
}

void set_clocks(Optimiser& core, std::uint32_t leaf, std::span<const double> values) {
  const auto& stages = core.spec(leaf).program.stages;
  for (int stage = 0; stage < static_cast<int>(stages.size()); ++stage) {
    const std::size_t n = stages[static_cast<std::size_t>(stage)].info().clock.size();
    core.set_clock(leaf, stage, values.first(n));
    values = values.subspan(n);
  }
}

// [(rule, its hyperparameters as they are now)] that there are, and which of them each leaf has.
nb::tuple State::rule_table() {
  nb::list rules;
  Numbered<std::pair<PyObject*, std::string>> rule;
  for (std::uint32_t i = 0; i < leaves_.size(); ++i) {
    std::vector<RuleValue> values;
    std::string bytes;
    for (std::uint32_t part : core_leaves(i))
      for (int stage = 0; stage < static_cast<int>(core_.spec(part).program.stages.size()); ++stage) {
        values.push_back(core_.rule(part, stage));
        bytes.append(static_cast<const char*>(values.back().data()),
                     static_cast<std::size_t>(values.back().info().size));
      }
    const nb::object object = rules_[i];
    if (rule.add({object.ptr(), std::move(bytes)})) rules.append(nb::make_tuple(object, values));
  }
  return nb::make_tuple(rules, saved::bytes_from(rule.numbers));
}

nb::tuple State::pickled() {
  check_node(0);
  Use use(*this);
  std::vector<Memory> memory;
  std::vector<double> clocks;
  for (std::uint32_t i = 0; i < leaves_.size(); ++i) {
    for (std::uint32_t part : core_leaves(i)) {
      for (const Memory& m : memory_of(core_, part)) memory.push_back(m);
      for (const double value : clocks_of(core_, part)) clocks.push_back(value);
    }
  }
  nb::dict user;
  for (const auto& [leaf, stages] : user_stages_) user[nb::int_(leaf)] = states_of(stages);
  const Seen seen = core_.seen();
  const std::vector<double> norm(seen.norm ? 1 : 0, seen.norm.value_or(0));
  return nb::make_tuple(spec_->state(), saved_leaves(leaves_, core_), rule_table(), saved_layout(layout_), user,
                        bytes_of(memory), saved::bytes_from(clocks),
                        nb::make_tuple(seen.skipped, saved::bytes_from(norm)));
}

}  // namespace optimisers::python
