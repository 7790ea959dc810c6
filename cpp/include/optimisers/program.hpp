// program.hpp: a chain built at run time: the stages one leaf goes through in one sweep over memory.
#pragma once
#include <array>
#include <optional>
#include <vector>

#include "optimisers/registry.hpp"

namespace optimisers::inline OPT_ABI {

// Neighbouring stages that a program has fused into kernels of its own (chain.hpp). Same bits as stage by stage.
struct FusedStages {
  struct Of {
    const RuleInfo* info;
    int slots;
  };
  int first;
  std::vector<Of> of;  // what the kernels were made for: rules and how many slots they have
  std::array<StageKernels, compute_count> kernels;  // null: not for this compute type
};

struct Program {
  std::vector<RuleValue> stages;  // empty: dx is subtracted as it comes
  std::optional<DType> master;    // MixedPrecision: float32 or float64; leaves already as wide get no copy
  std::vector<FusedStages> fused = {};

  // The type arithmetic runs in for a leaf of this dtype, and whether it has a master copy.
  DType compute(DType leaf) const {
    const DType own = compute_dtype(leaf);
    if (!master) return own;
    const DType wide = is_complex_dtype(leaf) ? complex_dtype(*master) : *master;
    return size_of(wide) > size_of(own) ? wide : own;
  }
  bool has_master(DType leaf) const { return master && compute(leaf) != leaf; }
};

}  // namespace optimisers::inline OPT_ABI
