// placed_arrays.hpp: arrays that share no memory with one another, by where they lie: which of them does another meet?
#pragma once
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI {

// Those whose extents overlap hang together as a cluster. Columns of one matrix are one: all of them folded to one row
// can be sorted, while the extent of each meets all others. The views' shapes and strides must outlive this.
class PlacedArrays {
 public:
  static constexpr std::size_t none = std::size_t(-1);

  PlacedArrays() = default;
  explicit PlacedArrays(std::vector<ArrayView> arrays);

  // The first of the arrays that some byte of `a` belongs to. None if `a` is array `own` element for element.
  std::size_t first_shared(const ArrayView& a, std::size_t own) const;

 private:
  struct Cluster {
    Extent extent;
    std::int64_t period;  // 0: as it lies
  };
  struct Place {
    Extent extent, folded;
    std::size_t position;  // among the arrays
    std::uintptr_t reach;  // where the last of those up to here ends, folded
  };
  static Extent fold_into(const Cluster& cluster, const ArrayView& a);

  std::vector<ArrayView> arrays_;
  std::vector<Cluster> clusters_;  // by extent
  std::vector<Place> places_;      // by where they begin, folded
};

}  // namespace optimisers::inline OPT_ABI
