// finite.cpp: whether the gradients of a call are finite, found out in one pass before anything is written.
#include <array>
#include <cmath>
#include <deque>
#include <limits>

#include "device.hpp"
#include "optimisers/error.hpp"
#include "refuse.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Which of the call's leaves, in their order, are looked at; and those that turned out not to be finite.
bool counts(const Optimiser::State& state, const LeafUpdate& u) { return u.dx.present && !state.leaves[u.leaf].frozen; }

// The largest magnitude of reals; for complex numbers, whose magnitudes take longer, the sum of squares. Scaled so that
// only what is not finite comes out as that.
cpu::Measurement largest(const cpu::Job* job) {
  const bool is_complex = is_complex_dtype(job->group->compute);
  return {job, 0, is_complex ? norms::Measure::sum_squares : norms::Measure::max_abs, {is_complex ? 0x1p-600 : 1, 2}};
}

std::size_t first_on_host(Optimiser::State& state, std::span<const LeafUpdate> leaves,
                          std::span<const FurtherGradient> further) {
  std::vector<cpu::Job> jobs;
  std::vector<cpu::Measurement> measurements;
  jobs.reserve(leaves.size());
  measurements.reserve(leaves.size());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafRecord& leaf = state.leaves[leaves[i].leaf];
    if (leaf.device != on_host || !counts(state, leaves[i])) continue;
    jobs.push_back({.group = &state.groups[leaf.group],
                    .arrays = &leaves[i],
                    .steps = nullptr,
                    .offset = leaf.offset,
                    .size = leaf.size,
                    .flags = state.flags[i]});
    measurements.push_back(largest(&jobs.back()));
  }
  cpu::measure(measurements, further);
  for (const cpu::Measurement& m : measurements)
    if (!std::isfinite(m.result())) return std::size_t(m.job->arrays - leaves.data());
  return leaves.size();
}

// Complex numbers as twice as many reals.
ArrayView as_reals(const ArrayView& a, std::array<std::int64_t, 2 * (std::size_t(max_ndim) + 1)>& memory) {
  if (!is_complex_dtype(a.dtype) || a.ndim == max_ndim) return a;
  ArrayView reals = a;
  const auto n = std::size_t(a.ndim);
  const std::vector<std::int64_t> dense = c_strides({a.shape, n}, size_of(a.dtype));
  for (std::size_t i = 0; i < n; ++i) {
    memory[i] = a.shape[i];
    memory[n + 1 + i] = a.strides == nullptr ? dense[i] : a.strides[i] * a.stride_unit;
  }
  reals.dtype = real_dtype(a.dtype);
  memory[n] = 2;
  memory[2 * n + 1] = size_of(reals.dtype);
  reals.shape = memory.data();
  reals.strides = is_contiguous(a) ? nullptr : memory.data() + n + 1;
  reals.stride_unit = 1;
  reals.ndim = a.ndim + 1;
  return reals;
}

// Whether a number this large is one in the leaf's compute type.
bool holds(DType compute, double magnitude) {
  constexpr double rounds_to_infinity = 0x1.ffffffp127;  // in float32, from here on
  return size_of(real_dtype(compute)) == 8 ? std::isfinite(magnitude) : magnitude < rounds_to_infinity;
}

// Gradients of a tied leaf are measured one by one: their sum is taken for as large as it could be.
std::size_t first_on_device(Optimiser::State& state, int device, std::span<const LeafUpdate> leaves,
                            std::span<const FurtherGradient> further) {
  std::vector<ArrayView> arrays;
  std::vector<std::size_t> of;
  std::deque<std::array<std::int64_t, 2 * (std::size_t(max_ndim) + 1)>> memory;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafUpdate& u = leaves[i];
    if (state.leaves[u.leaf].device != device || !counts(state, u)) continue;
    const auto add = [&](const ArrayView& dx) {
      arrays.push_back(as_reals(dx, memory.emplace_back()));
      of.push_back(i);
    };
    add(u.dx);
    for (int k = u.more; k >= 0; k = further[std::size_t(k)].more) add(further[std::size_t(k)].dx);
  }
  const auto sums = accelerator().measure(device, arrays, infinity);
  double together = 0;
  for (std::size_t a = 0; a < arrays.size(); ++a) {
    together = (a > 0 && of[a] == of[a - 1] ? together : 0) + (sums[a].empty ? 0 : sums[a].total);
    if (!holds(state.group_of(leaves[of[a]].leaf).compute, together)) return of[a];
  }
  return leaves.size();
}

}  // namespace

bool Optimiser::State::accepts(std::span<const LeafUpdate> checked, std::span<const FurtherGradient> further,
                               NonFinite non_finite) {
  if (non_finite == NonFinite::propagate) return true;
  std::size_t first = any_host ? first_on_host(*this, checked, further) : checked.size();
  for (const auto& [index, device] : devices) {
    device->follow();
    first = std::min(first, first_on_device(*this, index, checked, further));
  }
  if (first == checked.size()) return true;
  if (non_finite == NonFinite::skip) {
    ++last_seen.skipped;
    return false;
  }
  const std::string& name = specs[checked[first].leaf].name;
  throw Error(ErrorKind::non_finite,
              std::string(call) + ": gradient at " + quoted(name) +
                  " has elements that are infinite or not a number; nothing was written. Look for what made them, or "
                  "leave such steps out with non_finite=\"skip\"",
              name);
}

}  // namespace optimisers::inline OPT_ABI
