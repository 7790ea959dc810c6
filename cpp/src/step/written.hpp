// written.hpp: the memory a call writes: that its arrays are disjoint, and that gradients keep clear of it.
#pragma once
#include <algorithm>

#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {

// All arrays written in this call are disjoint, and no array of the optimiser's own: decided once, and again only
// when one of them is another array. Throws otherwise. Fills state.written.
void compare_written(Optimiser::State& state, std::span<const LeafUpdate> leaves);

// Throws for a gradient that overlaps what this call writes, other than its own parameter element for element.
void check_overlaps(const Optimiser::State& state, std::span<const LeafUpdate> leaves,
                    std::span<const FurtherGradient> further);

// Looks for written memory that gradients meet. The place of the gradient before helps: the next is mostly there too,
// or one further.
class Meetings {
 public:
  explicit Meetings(const WrittenMemory& written) : extents_(written.extents) {}

  bool meets(Extent e) {
    if (e.lo == e.hi || extents_.empty()) return false;
    if (!is_first(hint_, e) && !(hint_ < extents_.size() && is_first(++hint_, e)))
      hint_ = std::size_t(std::upper_bound(extents_.begin(), extents_.end(), e.lo,
                                           [](std::uintptr_t lo, const Extent& w) { return lo < w.hi; }) -
                          extents_.begin());
    return hint_ < extents_.size() && extents_[hint_].lo < e.hi;
  }

 private:
  bool is_first(std::size_t i, Extent e) const {  // the first written extent that ends behind the gradient's start
    return (i == extents_.size() || extents_[i].hi > e.lo) && (i == 0 || extents_[i - 1].hi <= e.lo);
  }

  const std::vector<Extent>& extents_;
  std::size_t hint_ = 0;
};

}  // namespace optimisers::inline OPT_ABI
