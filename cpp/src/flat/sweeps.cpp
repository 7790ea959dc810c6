// sweeps.cpp: norms of, and moving averages between, lists of arrays.
#include "optimisers/sweeps.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <map>
#include <numeric>

#include "cpu/norms.hpp"
#include "device.hpp"
#include "environment.hpp"
#include "memory/placed_arrays.hpp"
#include "optimisers/error.hpp"
#include "refuse.hpp"
#include "rules/number_text.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// The arrays of each device, in their order.
std::map<std::int8_t, std::vector<std::size_t>> by_device(std::span<const ArrayView> arrays) {
  std::map<std::int8_t, std::vector<std::size_t>> of;
  for (std::size_t i = 0; i < arrays.size(); ++i) of[arrays[i].device].push_back(i);
  return of;
}

std::vector<norms::Sum> host_sums(std::span<const ArrayView> arrays, double p) {
  // A job without stages: its gradient is measured as it comes.
  std::deque<Group> groups;
  std::vector<LeafUpdate> updates(arrays.size());
  std::vector<cpu::Job> jobs;
  std::vector<cpu::Measurement> measurements;
  jobs.reserve(arrays.size());
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const DType leaf = is_trainable(arrays[i].dtype) ? arrays[i].dtype : DType::float64;
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.storage == leaf; });
    if (group == groups.end()) group = groups.emplace(groups.end(), Program{}, leaf);
    updates[i] = {.leaf = 0, .x = {}, .dx = arrays[i]};
    updates[i].dx.present = true;
    const bool contiguous = is_contiguous(arrays[i]);
    const bool direct = contiguous && arrays[i].dtype == group->compute && is_aligned(arrays[i]);
    jobs.push_back({.group = &*group,
                    .arrays = &updates[i],
                    .steps = nullptr,
                    .offset = 0,
                    .size = size_of(arrays[i]),
                    .flags = {.dx_contiguous = contiguous, .dx_direct = direct}});
    measurements.push_back(cpu::measurement(&jobs.back(), 0, p));
  }
  cpu::ChunkSums memory;
  std::vector<norms::Sum> sums;
  cpu::measure_norms(measurements, {}, memory, sums);
  return sums;
}

}  // namespace

double norm(std::span<const ArrayView> arrays, double p) {
  const Call here;
  if (p == 0 || std::isnan(p))
    throw Error(ErrorKind::value, "norm: p must be any real number but 0, or ±inf, got " + number_text(p));
  std::vector<norms::Sum> sums(arrays.size());
  for (const auto& [device, which] : by_device(arrays)) {
    std::vector<ArrayView> there;
    for (std::size_t i : which) there.push_back(arrays[i]);
    const auto parts = device == on_host ? host_sums(there, p) : accelerator().measure(device, there, p);
    for (std::size_t k = 0; k < which.size(); ++k) sums[which[k]] = parts[k];
  }
  std::vector<std::uint32_t> places(arrays.size());
  std::iota(places.begin(), places.end(), 0u);
  return cpu::combined_norm(p, sums, places);
}

void lerp(std::span<const ArrayView> targets, std::span<const ArrayView> sources, double w, const NameOf& name_of) {
  const Call here;
  const auto refuse = [](const std::string& message) { optimisers::refuse("lerp_: " + message); };
  const auto place = [&](std::size_t i) { return quoted(name_of(i)); };
  if (!(w >= 0 && w <= 1)) refuse("w must be a number in [0, 1], got " + number_text(w));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const ArrayView &to = targets[i], &from = sources[i];
    if (to.device != from.device)
      refuse("source at " + place(i) + " is on another device than its target; move it there");
    if (!to.writable)
      refuse("target at " + place(i) + " is read-only, but lerp_ writes it in place; pass a writable copy");
    if (!std::equal(to.shape, to.shape + to.ndim, from.shape, from.shape + from.ndim))
      refuse("source at " + place(i) + " has shape " + shape_text({from.shape, std::size_t(from.ndim)}) +
             ", target has " + shape_text({to.shape, std::size_t(to.ndim)}));
    if (is_complex_dtype(from.dtype) && !is_complex_dtype(to.dtype))
      refuse("source at " + place(i) + " is complex, target is real; pass its real part");
  }
  const auto aliases = find_aliases(targets, name_of, "lerp_");
  for (std::size_t i = 0; i < aliases.size(); ++i)
    if (aliases[i].first != i)
      refuse("targets at " + place(aliases[i].first) + " and " + place(i) + " are the same array; name it once");
  const PlacedArrays written({targets.begin(), targets.end()});
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (const std::size_t first = written.first_shared(sources[i], i); first != PlacedArrays::none)
      refuse("source at " + place(i) + " overlaps the target at " + place(first) + "; pass a copy");
  for (const auto& [device, which] : by_device(targets)) {
    std::vector<ArrayView> to, from;
    for (std::size_t i : which) {
      to.push_back(targets[i]);
      from.push_back(sources[i]);
    }
    if (device == on_host) cpu::lerp(to, from, 1 - w, w);
    else accelerator().lerp(device, to, from, 1 - w, w);
  }
}

}  // namespace optimisers::inline OPT_ABI
