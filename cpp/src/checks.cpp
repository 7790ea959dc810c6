// checks.cpp: shapes, dtypes, writability and shared memory of the arrays of one call.
#include <algorithm>

#include "optimisers/error.hpp"
#include "overlap.hpp"
#include "refuse.hpp"
#include "state.hpp"

namespace optimisers {
namespace {

std::string quoted(const std::string& name) { return "\"" + name + "\""; }

// Compares with the leaf's shape and finds out whether the array is contiguous, in one walk over the axes.
struct Layout {
  bool same_shape, contiguous;
};
Layout layout_of(const ArrayView& a, const LeafRecord& leaf) {
  if (a.ndim != leaf.ndim) return {false, false};
  std::int64_t expected = size_of(a.dtype);
  bool same = true, contiguous = true;
  for (int i = a.ndim - 1; i >= 0; --i) {
    const std::int64_t n = leaf.shape[i];
    same &= a.shape[i] == n;
    contiguous &= a.strides == nullptr || n == 1 || a.strides[i] * a.stride_unit == expected;
    expected *= n;
  }
  return {same, contiguous || leaf.size == 0};
}

bool same_strides(const ArrayView& a, const std::int64_t* strides) {
  for (int i = 0; i < a.ndim; ++i)
    if (a.strides[i] * a.stride_unit != strides[i]) return false;
  return true;
}

bool aligned(const ArrayView& a) {
  return (reinterpret_cast<std::uintptr_t>(a.data) & std::uintptr_t(size_of(real_dtype(a.dtype)) - 1)) == 0;
}

std::string shape_of(const ArrayView& a) { return shape_text({a.shape, std::size_t(a.ndim)}); }

std::string place_of(std::int8_t device) {
  return device == on_host ? "on the host" : "on device " + std::to_string(device);
}

[[noreturn]] void refuse_parameter(const ArrayView& x, const LeafSpec& spec) {
  if (x.device != spec.device)
    refuse("update: parameter at " + quoted(spec.name) + " is " + place_of(x.device) + ", but its state was set up " +
               place_of(spec.device) + "; move the parameter back, or convert the state with to_device",
           spec.name);
  if (x.dtype != spec.dtype)
    refuse("update: parameter at " + quoted(spec.name) + " is " + std::string(name_of(x.dtype)) +
               ", but its state was set up for " + std::string(name_of(spec.dtype)) +
               "; call setup again for the new array",
           spec.name);
  refuse("update: parameter at " + quoted(spec.name) + " has shape " + shape_of(x) + ", but its state was set up for " +
             shape_text(spec.shape) + "; call setup again for the new array",
         spec.name);
}

[[noreturn]] void refuse_gradient(const ArrayView& dx, const LeafSpec& spec) {
  if (dx.device != spec.device)
    refuse("update: gradient at " + quoted(spec.name) + " is " + place_of(dx.device) + ", its parameter is " +
               place_of(spec.device) + "; move the gradient to its parameter",
           spec.name);
  if (is_complex_dtype(dx.dtype) && !is_complex_dtype(spec.dtype))
    refuse("update: gradient at " + quoted(spec.name) + " is " + std::string(name_of(dx.dtype)) +
               ", parameter is real (" + std::string(name_of(spec.dtype)) + "); pass its real part",
           spec.name);
  refuse("update: gradient at " + quoted(spec.name) + " has shape " + shape_of(dx) + ", parameter has " +
             shape_text(spec.shape),
         spec.name);
}

// True: contiguous.
bool check_gradient(const ArrayView& dx, const LeafRecord& leaf, const LeafSpec& spec) {
  const Layout layout = layout_of(dx, leaf);
  if (!layout.same_shape || dx.device != leaf.device || (is_complex_dtype(dx.dtype) && !is_complex_dtype(leaf.dtype)))
    refuse_gradient(dx, spec);
  return layout.contiguous;
}

// ---- shared memory

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
      refuse("update: " + what + " at " + quoted(name) + " overlaps the state array " + slot + " at " +
                 quoted(state.specs[i].name) + "; pass a copy of it",
             name);
  }
}

// All arrays written in this call are disjoint: decided once, and again only when one of them is another array.
void compare_written(Optimiser::State& state, std::span<const LeafUpdate> leaves) {
  WrittenMemory written;
  std::vector<ArrayView> views;
  std::vector<std::string> names;
  for (const LeafUpdate& u : leaves) {
    views.push_back(u.x);
    names.push_back(state.specs[u.leaf].name);
  }
  const auto aliases = find_aliases(views, names);
  for (std::size_t i = 0; i < aliases.size(); ++i)
    if (aliases[i].first != i)
      refuse("update: parameters at " + quoted(names[aliases[i].first]) + " and " + quoted(names[i]) +
                 " are the same array, but were not at setup; call setup again for the tied model",
             names[i]);
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
  for (std::size_t i = 0; i < views.size(); ++i) refuse_state_overlap(state, views[i], "parameter", names[i]);
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
    for (int i = 0; i < u.x.ndim; ++i) state.strides_of(leaf)[i] = u.x.strides ? u.x.strides[i] * u.x.stride_unit : 0;
  }
}

// Names what a gradient overlaps that is written in this call; the leaf's own array, element for element, is fine.
void refuse_overlap(const Optimiser::State& state, std::span<const LeafUpdate> leaves, const ArrayView& dx,
                    const LeafUpdate& u) {
  const std::string& name = state.specs[u.leaf].name;
  const auto is_written = [&](std::uint32_t leaf) {
    return !state.leaves[leaf].frozen && std::any_of(leaves.begin(), leaves.end(), [&](const LeafUpdate& v) {
      return v.leaf == leaf && v.dx.present;
    });
  };
  for (const auto& [x, leaf] : state.written.arrays) {
    if (leaf == u.leaf && same_view(x, dx)) continue;
    if (!is_written(leaf)) continue;
    if (share_memory(x, dx))
      refuse("update: gradient at " + quoted(name) + " overlaps the parameter at " + quoted(state.specs[leaf].name) +
                 ", which this call writes; pass a copy of the gradient",
             name);
  }
  refuse_state_overlap(state, dx, "gradient", name);
}

void check_overlaps(const Optimiser::State& state, std::span<const LeafUpdate> leaves,
                    std::span<const FurtherGradient> further) {
  const auto& written = state.written.extents;
  std::size_t hint = 0;  // the place of the gradient before: the next is mostly at the same place or one further
  if (written.empty()) return;
  const auto check = [&](const ArrayView& dx, const LeafUpdate& u, bool contiguous) {
    const auto start = reinterpret_cast<std::uintptr_t>(dx.data);
    const Extent e = contiguous ? Extent{start, start + std::uintptr_t(state.leaves[u.leaf].size * size_of(dx.dtype))}
                                : extent_of(dx);
    if (e.lo == e.hi) return;
    // First written extent that ends behind the gradient's start.
    const auto is_first = [&](std::size_t i) {
      return (i == written.size() || written[i].hi > e.lo) && (i == 0 || written[i - 1].hi <= e.lo);
    };
    if (!is_first(hint) && !(hint < written.size() && is_first(++hint)))
      hint = std::size_t(std::upper_bound(written.begin(), written.end(), e.lo,
                                          [](std::uintptr_t lo, const Extent& w) { return lo < w.hi; }) -
                         written.begin());
    if (hint < written.size() && written[hint].lo < e.hi) refuse_overlap(state, leaves, dx, u);
  };
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafUpdate& u = leaves[i];
    if (u.dx.present) check(u.dx, u, state.flags[i].dx_contiguous);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more) check(further[std::size_t(k)].dx, u, false);
  }
}

}  // namespace

void check_arrays(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                  bool writes_x) {
  state.flags.resize(leaves.size());
  const std::uint32_t epoch = state.epoch;
  bool compared = true;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafUpdate& u = leaves[i];
    const LeafRecord& leaf = state.leaves[u.leaf];
    cpu::ArrayFlags& flags = state.flags[i];
    const DType compute = state.groups[leaf.group].compute;

    const Layout x = layout_of(u.x, leaf);
    if (!x.same_shape || u.x.dtype != leaf.dtype || u.x.device != leaf.device)
      refuse_parameter(u.x, state.specs[u.leaf]);
    if (writes_x && !u.x.writable && !leaf.frozen && (u.dx.present || state.groups[leaf.group].gates))
      refuse("update_: parameter at " + quoted(state.specs[u.leaf].name) +
                 " is read-only; use update, which returns new arrays",
             state.specs[u.leaf].name);
    flags.x_contiguous = x.contiguous;
    flags.x_direct = x.contiguous && leaf.dtype == compute && aligned(u.x);
    compared &=
        leaf.epoch == epoch && leaf.checked == u.x.data && (x.contiguous || same_strides(u.x, state.strides_of(leaf)));

    flags.dx_contiguous = u.dx.present && check_gradient(u.dx, leaf, state.specs[u.leaf]);
    flags.dx_direct = flags.dx_contiguous && u.dx.dtype == compute && u.more < 0 && aligned(u.dx);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more)
      check_gradient(further[std::size_t(k)].dx, leaf, state.specs[u.leaf]);
  }
  if (!compared || epoch == 0) compare_written(state, leaves);
  check_overlaps(state, leaves, further);
}

}  // namespace optimisers
