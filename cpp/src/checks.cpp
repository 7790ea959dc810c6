// checks.cpp: shapes, dtypes, writability and shared memory of the arrays of one call.
#include <algorithm>

#include "optimisers/error.hpp"
#include "overlap.hpp"
#include "state.hpp"

namespace optimisers {
namespace {

std::string quoted(const std::string& name) { return "\"" + name + "\""; }

[[noreturn]] void refuse(const std::string& message, ErrorKind kind = ErrorKind::value) { throw Error(kind, message); }

bool same_shape(const ArrayView& a, const LeafSpec& spec) {
  return std::size_t(a.ndim) == spec.shape.size() && std::equal(spec.shape.begin(), spec.shape.end(), a.shape);
}

std::string shape_of(const ArrayView& a) { return shape_text({a.shape, std::size_t(a.ndim)}); }

void check_parameter(const ArrayView& x, const LeafSpec& spec, bool writes_x) {
  if (x.dtype != spec.dtype)
    refuse("update: parameter at " + quoted(spec.name) + " is " + std::string(name_of(x.dtype)) +
           ", but its state was set up for " + std::string(name_of(spec.dtype)) + "; call setup again for the new array");
  if (!same_shape(x, spec))
    refuse("update: parameter at " + quoted(spec.name) + " has shape " + shape_of(x) + ", but its state was set up for " +
           shape_text(spec.shape) + "; call setup again for the new array");
  if (writes_x && !x.writable)
    refuse("update_: parameter at " + quoted(spec.name) + " is read-only; use update, which returns new arrays");
}

void check_gradient(const ArrayView& dx, const LeafSpec& spec) {
  if (!same_shape(dx, spec))
    refuse("update: gradient at " + quoted(spec.name) + " has shape " + shape_of(dx) + ", parameter has " +
           shape_text(spec.shape));
  if (is_complex_dtype(dx.dtype) && !is_complex_dtype(spec.dtype))
    refuse("update: gradient at " + quoted(spec.name) + " is " + std::string(name_of(dx.dtype)) + ", parameter is real (" +
           std::string(name_of(spec.dtype)) + "); pass its real part");
}

// ---- shared memory

// All arrays written in this call are disjoint: decided once, and again only when one of them is another array.
void check_written(Optimiser::State& state, std::span<const LeafUpdate> leaves) {
  bool known = true;
  std::uint64_t epoch = leaves.empty() ? 0 : state.leaves[leaves[0].leaf].epoch;
  for (const LeafUpdate& u : leaves) {
    const LeafRecord& leaf = state.leaves[u.leaf];
    known &= leaf.epoch == state.epoch && leaf.epoch == epoch && leaf.checked == u.x.data &&
             (leaf.checked_contiguous && is_contiguous(u.x));
  }
  if (known) return;

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
             " are the same array, but were not at setup; call setup again for the tied model");
  for (std::size_t i = 0; i < views.size(); ++i) {
    const Extent e = extent_of(views[i]);
    if (e.lo == e.hi) continue;
    written.extents.push_back(e);
    written.arrays.emplace_back(views[i], leaves[i].leaf);
  }
  for (const Group& group : state.groups) {
    for (const Arena& arena : group.arenas)
      if (arena.bytes()) written.extents.push_back({std::uintptr_t(arena.data()), std::uintptr_t(arena.data()) + arena.bytes()});
    if (group.masters.bytes())
      written.extents.push_back({std::uintptr_t(group.masters.data()), std::uintptr_t(group.masters.data()) + group.masters.bytes()});
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
    leaf.checked_contiguous = is_contiguous(u.x);
  }
}

// Names what a gradient overlaps that is written in this call; the leaf's own array, element for element, is fine.
void refuse_overlap(const Optimiser::State& state, const ArrayView& dx, const LeafUpdate& u) {
  const std::string& name = state.specs[u.leaf].name;
  for (const auto& [x, leaf] : state.written.arrays) {
    if (leaf == u.leaf && u.more < 0 && same_view(x, dx)) continue;
    if (share_memory(x, dx))
      refuse("update: gradient at " + quoted(name) + " overlaps the parameter at " + quoted(state.specs[leaf].name) +
             ", which this call writes; pass a copy of the gradient");
  }
  const Extent e = extent_of(dx);
  const auto meets = [&](const Arena& arena) {
    const auto lo = std::uintptr_t(arena.data());
    return arena.bytes() != 0 && e.lo < lo + arena.bytes() && lo < e.hi;
  };
  for (const Group& group : state.groups)
    if (meets(group.masters) || std::any_of(group.arenas.begin(), group.arenas.end(), meets))
      refuse("update: gradient at " + quoted(name) + " overlaps a state array of this optimiser; pass a copy of the gradient");
}

void check_overlaps(const Optimiser::State& state, std::span<const LeafUpdate> leaves,
                    std::span<const FurtherGradient> further) {
  const auto& written = state.written.extents;
  std::size_t hint = 0;  // gradients often lie in memory in the order of the leaves
  const auto check = [&](const ArrayView& dx, const LeafUpdate& u) {
    const Extent e = extent_of(dx);
    if (e.lo == e.hi || written.empty()) return;
    // First written extent that ends behind the gradient's start.
    if (!(hint < written.size() && written[hint].hi > e.lo && (hint == 0 || written[hint - 1].hi <= e.lo)) &&
        !(hint == written.size() && written.back().hi <= e.lo))
      hint = std::size_t(std::upper_bound(written.begin(), written.end(), e.lo,
                                          [](std::uintptr_t lo, const Extent& w) { return lo < w.hi; }) -
                         written.begin());
    if (hint < written.size() && written[hint].lo < e.hi) refuse_overlap(state, dx, u);
  };
  for (const LeafUpdate& u : leaves) {
    if (u.dx.present) check(u.dx, u);
    for (int i = u.more; i >= 0; i = further[std::size_t(i)].more) check(further[std::size_t(i)].dx, u);
  }
}

}  // namespace

void check_arrays(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                  bool writes_x) {
  for (const LeafUpdate& u : leaves) {
    const LeafSpec& spec = state.specs[u.leaf];
    check_parameter(u.x, spec, writes_x && !state.leaves[u.leaf].frozen);
    if (u.dx.present) check_gradient(u.dx, spec);
    for (int i = u.more; i >= 0; i = further[std::size_t(i)].more) check_gradient(further[std::size_t(i)].dx, spec);
  }
  check_written(state, leaves);
  check_overlaps(state, leaves, further);
}

}  // namespace optimisers
