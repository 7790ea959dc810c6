// norm_plan.hpp: in which order a call's leaves come to their norms. Depends on which leaves take part and on the
// rules' orders and scopes alone, not on numbers: a plan is made once, and serves every such call.
#pragma once
#include <cstdint>
#include <vector>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// What a leaf measures on its way, in order.
struct NormStage {
  double p;
  bool global;
  friend bool operator==(const NormStage&, const NormStage&) = default;
};
struct NormPath {
  std::uint32_t leaf;  // of the call
  int first;           // the reducer it begins with
  std::vector<NormStage> stages;
  friend bool operator==(const NormPath&, const NormPath&) = default;
};

// One step: everyone in `measure` is measured at a reducer; then norms come of it.
struct NormStep {
  struct At {
    std::size_t path;
    int reducer;
  };
  std::vector<At> measure;
  std::vector<At> own;                // each to its own norm
  std::vector<std::vector<At>> sets;  // each to one
};

std::vector<NormStep> plan_norms(const std::vector<NormPath>& paths);

}  // namespace optimisers::inline OPT_ABI::cuda
