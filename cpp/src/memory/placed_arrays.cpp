// placed_arrays.cpp: clusters of arrays, each folded to one period.
#include "memory/placed_arrays.hpp"

#include <algorithm>

#include "memory/overlap.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// The period that most arrays of a cluster step by. Which one it is decides how many arrays must be compared, not
// whether they share memory.
std::int64_t common_period(std::span<const ArrayView* const> arrays) {
  std::vector<std::int64_t> periods;
  for (const ArrayView* a : arrays) {
    if (is_contiguous(*a)) continue;
    std::int64_t longest = 0;
    for (int i = 0; i < a->ndim; ++i)
      if (a->shape[i] != 1) longest = std::max(longest, std::abs(a->strides[i] * a->stride_unit));
    periods.push_back(longest);
  }
  if (arrays.size() < 2 || periods.empty()) return 0;
  const auto middle = periods.begin() + std::ptrdiff_t(periods.size() / 2);
  std::nth_element(periods.begin(), middle, periods.end());
  return *middle;
}

}  // namespace

PlacedArrays::PlacedArrays(std::vector<ArrayView> arrays) : arrays_(std::move(arrays)) {
  for (std::size_t i = 0; i < arrays_.size(); ++i)
    if (const Extent e = extent_of(arrays_[i]); e.lo != e.hi) places_.push_back({e, e, i, 0});
  std::sort(places_.begin(), places_.end(), [](auto& l, auto& r) { return l.extent.lo < r.extent.lo; });
  std::vector<const ArrayView*> members;
  for (std::size_t begin = 0, end; begin < places_.size(); begin = end) {
    Extent extent = places_[begin].extent;
    members.clear();
    for (end = begin; end < places_.size() && places_[end].extent.lo < extent.hi; ++end) {
      extent.hi = std::max(extent.hi, places_[end].extent.hi);
      members.push_back(&arrays_[places_[end].position]);
    }
    clusters_.push_back({extent, common_period(members)});  // clang before 16 makes no aggregate in place
    const Cluster& cluster = clusters_.back();
    for (std::size_t i = begin; i < end; ++i) places_[i].folded = fold_into(cluster, arrays_[places_[i].position]);
  }
  std::sort(places_.begin(), places_.end(), [](auto& l, auto& r) { return l.folded.lo < r.folded.lo; });
  std::uintptr_t reach = 0;
  for (Place& p : places_) p.reach = reach = std::max(reach, p.folded.hi);
}

// Inside the cluster's extent, so that clusters stay apart. What is not one interval of a period counts as all of it.
Extent PlacedArrays::fold_into(const Cluster& cluster, const ArrayView& a) {
  const auto [lo, hi] = cluster.extent;
  if (cluster.period == 0) {
    const Extent e = extent_of(a);
    return {std::max(lo, e.lo), std::min(hi, e.hi)};
  }
  const Extent e = folded(a, cluster.period);
  std::int64_t begin = std::int64_t(e.lo - lo) % cluster.period;
  if (begin < 0) begin += cluster.period;
  const std::int64_t end = begin + std::int64_t(e.hi - e.lo);
  if (end > cluster.period) return {lo, lo + std::uintptr_t(cluster.period)};
  return {lo + std::uintptr_t(begin), lo + std::uintptr_t(end)};
}

std::size_t PlacedArrays::first_shared(const ArrayView& a, std::size_t own) const {
  if (own != none && same_view(arrays_[own], a)) return none;
  const Extent extent = extent_of(a);
  std::size_t first = none;
  if (extent.lo == extent.hi) return none;
  auto cluster = std::upper_bound(clusters_.begin(), clusters_.end(), extent.lo,
                                  [](std::uintptr_t lo, const Cluster& c) { return lo < c.extent.hi; });
  for (; cluster != clusters_.end() && cluster->extent.lo < extent.hi; ++cluster) {
    const Extent e = fold_into(*cluster, a);
    auto p = std::lower_bound(places_.begin(), places_.end(), e.hi,
                              [](const Place& place, std::uintptr_t hi) { return place.folded.lo < hi; });
    while (p != places_.begin() && (--p)->reach > e.lo)
      if (p->position < first && p->folded.hi > e.lo && p->extent.lo < extent.hi && extent.lo < p->extent.hi &&
          share_memory(arrays_[p->position], a))
        first = p->position;
  }
  return first;
}

}  // namespace optimisers::inline OPT_ABI
