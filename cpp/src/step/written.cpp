// written.cpp: who shares memory with what a call writes.
#include "step/written.hpp"

#include <optional>

#include "memory/placed_arrays.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// The optimiser's own arrays are nobody's parameter or gradient.
void refuse_state_overlap(const Optimiser::State& state, const ArrayView& dx, const std::string& what,
                          const std::string& name) {
  const Extent e = extent_of(dx);
  const auto meets = [&](const Arena& arena, const LeafRecord& leaf, DType dtype) {
    const auto lo = std::uintptr_t(arena.data() + leaf.offset * size_of(dtype));
    return arena.bytes() != 0 && e.lo < lo + std::uintptr_t(leaf.size * size_of(dtype)) && lo < e.hi;
  };
  const auto meets_arena = [&](const Arena& arena) {
    const auto lo = std::uintptr_t(arena.data());
    return arena.bytes() != 0 && e.lo < lo + arena.bytes() && lo < e.hi;
  };
  if (std::none_of(state.groups.begin(), state.groups.end(), [&](const Group& g) {
        return meets_arena(g.masters) || std::any_of(g.arenas.begin(), g.arenas.end(), meets_arena);
      }))
    return;
  for (std::size_t i = 0; i < state.leaves.size(); ++i) {
    const LeafRecord& leaf = state.leaves[i];
    const Group& group = state.groups[leaf.group];
    const char* slot = group.master && meets(group.masters, leaf, group.compute) ? "master" : nullptr;
    for (std::size_t k = 0; k < group.slots.size() && slot == nullptr; ++k)
      if (meets(group.arenas[k], leaf, group.slots[k].dtype)) slot = group.slots[k].name;
    if (slot != nullptr)
      refuse(std::string(state.call) + ": " + what + " at " + quoted(name) + " overlaps the state array " + slot +
                 " at " + quoted(state.specs[i].name) + "; pass a copy of it",
             name);
  }
}

// What a call writes, by where it lies. Made where a gradient meets written memory, which few calls have.
class WrittenArrays {
 public:
  WrittenArrays(const Optimiser::State& state, std::span<const LeafUpdate> leaves) : state_(state) {
    std::vector<bool> is_written(state.leaves.size(), false);
    for (const LeafUpdate& u : leaves) is_written[u.leaf] = may_write(state, u);
    std::vector<ArrayView> arrays;
    place_of_.resize(state.leaves.size(), PlacedArrays::none);
    for (const auto& [x, leaf] : state.written.arrays) {
      if (!is_written[leaf]) continue;
      place_of_[leaf] = leaves_.size();
      leaves_.push_back(leaf);
      arrays.push_back(x);
    }
    placed_ = PlacedArrays(std::move(arrays));
  }

  // Names what a gradient overlaps, the first of the parameters; the leaf's own array, element for element, is fine.
  void refuse_overlap(const ArrayView& dx, std::uint32_t own) const {
    const std::string& name = state_.specs[own].name;
    if (const std::size_t first = placed_.first_shared(dx, place_of_[own]); first != PlacedArrays::none)
      refuse(std::string(state_.call) + ": gradient at " + quoted(name) + " overlaps the parameter at " +
                 quoted(state_.specs[leaves_[first]].name) + ", which this call writes; pass a copy of the gradient",
             name);
    refuse_state_overlap(state_, dx, "gradient", name);
  }

 private:
  const Optimiser::State& state_;
  std::vector<std::uint32_t> leaves_;  // of the arrays
  std::vector<std::size_t> place_of_;  // of a leaf among the arrays
  PlacedArrays placed_;
};

}  // namespace

void compare_written(Optimiser::State& state, std::span<const LeafUpdate> leaves) {
  WrittenMemory written;
  std::vector<ArrayView> views;
  views.reserve(leaves.size());
  for (const LeafUpdate& u : leaves) views.push_back(u.x);
  const auto name = [&](std::size_t i) -> const std::string& { return state.specs[leaves[i].leaf].name; };
  const auto aliases = find_aliases(views, name, state.call);
  for (std::size_t i = 0; i < aliases.size(); ++i)
    if (aliases[i].first != i)
      refuse(std::string(state.call) + ": parameters at " + quoted(name(aliases[i].first)) + " and " + quoted(name(i)) +
                 " are the same array, but were not at setup; call setup again for the tied model",
             name(i));
  for (std::size_t i = 0; i < views.size(); ++i) {
    const Extent e = extent_of(views[i]);
    if (e.lo == e.hi) continue;
    written.extents.push_back(e);
    LeafRecord& leaf = state.leaves[leaves[i].leaf];
    ArrayView& kept = written.arrays.emplace_back(views[i], leaves[i].leaf).first;  // outlives the caller's array
    kept.shape = leaf.shape;
    if (kept.strides != nullptr) kept.strides = state.strides_of(leaf);
    kept.stride_unit = 1;
  }
  for (std::size_t i = 0; i < views.size(); ++i) refuse_state_overlap(state, views[i], "parameter", name(i));
  for (const Group& group : state.groups) {
    for (const Arena& arena : group.arenas)
      if (arena.bytes())
        written.extents.push_back({std::uintptr_t(arena.data()), std::uintptr_t(arena.data()) + arena.bytes()});
    if (group.masters.bytes())
      written.extents.push_back(
          {std::uintptr_t(group.masters.data()), std::uintptr_t(group.masters.data()) + group.masters.bytes()});
  }
  auto& e = written.extents;
  std::sort(e.begin(), e.end(), [](Extent l, Extent r) { return l.lo < r.lo; });
  std::size_t last = 0;
  for (std::size_t i = 1; i < e.size(); ++i) {
    if (e[i].lo <= e[last].hi) e[last].hi = std::max(e[last].hi, e[i].hi);
    else e[++last] = e[i];
  }
  if (!e.empty()) e.resize(last + 1);

  state.written = std::move(written);
  ++state.epoch;
  for (const LeafUpdate& u : leaves) {
    LeafRecord& leaf = state.leaves[u.leaf];
    leaf.epoch = state.epoch;
    leaf.checked = u.x.data;
    leaf.contiguous = leaf.size == 0 || is_contiguous(u.x);
    for (int i = 0; i < u.x.ndim; ++i) state.strides_of(leaf)[i] = u.x.strides ? u.x.strides[i] * u.x.stride_unit : 0;
  }
}

void check_overlaps(const Optimiser::State& state, std::span<const LeafUpdate> leaves,
                    std::span<const FurtherGradient> further) {
  Meetings meetings(state.written);
  std::optional<WrittenArrays> written;
  for (const LeafUpdate& u : leaves) {
    const auto check = [&](const ArrayView& dx) {
      if (!meetings.meets(extent_of(dx))) return;
      if (!written) written.emplace(state, leaves);
      written->refuse_overlap(dx, u.leaf);
    };
    if (u.dx.present) check(u.dx);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more) check(further[std::size_t(k)].dx);
  }
}

}  // namespace optimisers::inline OPT_ABI
