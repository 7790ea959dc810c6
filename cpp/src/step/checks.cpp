// checks.cpp: shapes, dtypes, devices and writability of the arrays of one call.
#include <algorithm>

#include "optimisers/error.hpp"
#include "plan/portions.hpp"
#include "refuse.hpp"
#include "step/written.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

struct Lying {
  bool same_shape, contiguous;
};
OPT_FN Lying layout_of(const ArrayView& a, const LeafRecord& leaf) {
  if (a.ndim != leaf.ndim) return {false, false};
  bool same = true;
  for (int i = 0; i < a.ndim; ++i) same &= a.shape[i] == leaf.shape[i];
  return {same, same && (leaf.size == 0 || is_contiguous(a))};
}

bool same_strides(const ArrayView& a, const std::int64_t* strides) {
  for (int i = 0; i < a.ndim; ++i)
    if (a.strides[i] * a.stride_unit != strides[i]) return false;
  return true;
}

std::string shape_of(const ArrayView& a) { return shape_text({a.shape, std::size_t(a.ndim)}); }

std::string place_of(std::int8_t device) {
  return device == on_host ? "on the host" : "on device " + std::to_string(device);
}

[[noreturn]] void refuse_parameter(const ArrayView& x, const LeafSpec& spec, const std::string& call) {
  if (x.device != spec.device)
    refuse(call + ": parameter at " + quoted(spec.name) + " is " + place_of(x.device) + ", but its state was set up " +
               place_of(spec.device) + "; move the parameter back, or convert the state with to_device",
           spec.name);
  if (x.dtype != spec.dtype)
    refuse(call + ": parameter at " + quoted(spec.name) + " is " + std::string(name_of(x.dtype)) +
               ", but its state was set up for " + std::string(name_of(spec.dtype)) +
               "; call setup again for the new array",
           spec.name);
  refuse(call + ": parameter at " + quoted(spec.name) + " has shape " + shape_of(x) +
             ", but its state was set up for " + shape_text(spec.shape) + "; call setup again for the new array",
         spec.name);
}

[[noreturn]] void refuse_gradient(const ArrayView& dx, const LeafSpec& spec, const std::string& call) {
  if (dx.device != spec.device)
    refuse(call + ": gradient at " + quoted(spec.name) + " is " + place_of(dx.device) + ", its parameter is " +
               place_of(spec.device) + "; move the gradient to its parameter",
           spec.name);
  if (is_complex_dtype(dx.dtype) && !is_complex_dtype(spec.dtype))
    refuse(call + ": gradient at " + quoted(spec.name) + " is " + std::string(name_of(dx.dtype)) +
               ", parameter is real (" + std::string(name_of(spec.dtype)) + "); pass its real part",
           spec.name);
  refuse(call + ": gradient at " + quoted(spec.name) + " has shape " + shape_of(dx) + ", parameter has " +
             shape_text(spec.shape),
         spec.name);
}

bool parameter_fits(const LeafUpdate& u, const LeafRecord& leaf, const Lying& layout) {
  return layout.same_shape && u.x.dtype == leaf.dtype && u.x.device == leaf.device;
}

bool gradient_fits(const ArrayView& dx, const LeafRecord& leaf, const Lying& layout) {
  return layout.same_shape && dx.device == leaf.device &&
         (dx.dtype == leaf.dtype || !is_complex_dtype(dx.dtype) || is_complex_dtype(leaf.dtype));
}

bool would_write_read_only(const Optimiser::State& state, const LeafUpdate& u) {
  return !u.x.writable && may_write(state, u);
}

// Throws what is wrong with the first leaf that does not fit, if one does not.
void refuse_misfit(const Optimiser::State& state, std::span<const LeafUpdate> leaves,
                   std::span<const FurtherGradient> further, bool writes_x) {
  for (const LeafUpdate& u : leaves) {
    const LeafRecord& leaf = state.leaves[u.leaf];
    const LeafSpec& spec = state.specs[u.leaf];
    if (!parameter_fits(u, leaf, layout_of(u.x, leaf))) refuse_parameter(u.x, spec, state.call);
    if (writes_x && would_write_read_only(state, u))
      refuse(state.language == Optimiser::Language::python
                 ? std::string(state.call) + "_: parameter at " + quoted(spec.name) + " is read-only; use " +
                       state.call + ", which returns new arrays"
                 : std::string(state.call) + ": parameter at " + quoted(spec.name) +
                       " is const, but is written; pass an array that may be",
             spec.name);
    const auto check = [&](const ArrayView& dx) {
      if (!gradient_fits(dx, leaf, layout_of(dx, leaf))) refuse_gradient(dx, spec, state.call);
    };
    if (u.dx.present) check(u.dx);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more) check(further[std::size_t(k)].dx);
  }
}

}  // namespace

Examined examine(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                 bool writes_x, std::size_t begin, std::size_t end) {
  constexpr std::size_t ahead = 8;  // leaves; shapes of arrays lie anywhere in memory
  Examined found;
  Meetings meetings(state.written);
  for (std::size_t i = begin; i < end; ++i) {
    if (i + ahead < end) {
      OPT_PREFETCH(leaves[i + ahead].x.shape);
      OPT_PREFETCH(leaves[i + ahead].dx.shape);
    }
    const LeafUpdate& u = leaves[i];
    const LeafRecord& leaf = state.leaves[u.leaf];
    const DType compute = state.groups[leaf.group].compute;
    cpu::ArrayFlags flags;

    const Lying x = layout_of(u.x, leaf);
    found.fits &= parameter_fits(u, leaf, x) && !(writes_x && would_write_read_only(state, u));
    flags.x_contiguous = x.contiguous;
    flags.x_direct = x.contiguous && leaf.dtype == compute && is_aligned(u.x);

    const auto gradient = [&](const ArrayView& a) {
      const Lying layout = layout_of(a, leaf);
      found.fits &= gradient_fits(a, leaf, layout);
      if (!found.fits) return false;
      const auto start = reinterpret_cast<std::uintptr_t>(a.data);
      found.meets |= meetings.meets(
          layout.contiguous ? Extent{start, start + std::uintptr_t(leaf.size * size_of(a.dtype))} : extent_of(a));
      return layout.contiguous;
    };
    flags.dx_contiguous = u.dx.present && gradient(u.dx);
    flags.dx_direct =
        flags.dx_contiguous && state.scale == 1 && u.dx.dtype == compute && u.more < 0 && is_aligned(u.dx);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more) gradient(further[std::size_t(k)].dx);

    if (!found.fits) break;
    found.compared &= leaf.epoch == state.epoch && leaf.checked == u.x.data && leaf.contiguous == x.contiguous &&
                      (x.contiguous || same_strides(u.x, state.strides_of(leaf)));
    state.flags[i] = flags;
  }
  return found;
}

void refuse_what_was_found(Optimiser::State& state, std::span<const LeafUpdate> leaves,
                           std::span<const FurtherGradient> further, bool writes_x, const Examined& found) {
  if (!found.fits) refuse_misfit(state, leaves, further, writes_x);
  const bool moved = !found.compared || state.epoch == 0;
  if (moved) compare_written(state, leaves);
  if (moved || found.meets) check_overlaps(state, leaves, further);
}

void check_arrays(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                  bool writes_x) {
  if (state.flags.size() < leaves.size()) state.flags.resize(leaves.size());
  const std::size_t portions = portion_count(leaves.size());
  if (portions == 1)
    return refuse_what_was_found(state, leaves, further, writes_x,
                                 examine(state, leaves, further, writes_x, 0, leaves.size()));
  Examined all;
  std::vector<Examined> others(portions - 1);
  in_portions(leaves.size(), portions, [&](std::size_t portion, std::size_t begin, std::size_t end) {
    const Examined found = examine(state, leaves, further, writes_x, begin, end);
    (portion == 0 ? all : others[portion - 1]) = found;
  });
  for (const Examined& found : others) all.add(found);
  refuse_what_was_found(state, leaves, further, writes_x, all);
}

}  // namespace optimisers::inline OPT_ABI
