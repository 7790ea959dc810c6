// norm_tables.hpp: plans of norms (norm_plan.hpp) with their tables on the device, kept for the calls that come again.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "group_tables.hpp"
#include "norm_plan.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// The groups of a state that are on one device.
struct DeviceGroups {
  std::vector<int> of;  // by the state's group: position in `tables`
  std::vector<std::unique_ptr<GroupTables>> tables;

  GroupTables& operator[](const LeafRecord& leaf) const { return *tables[std::size_t(of[leaf.group])]; }
};

// Where each leaf is measured, and who comes to a norm together.
struct Combination {
  Buffer members, by_lane, lane_start;
  std::uint32_t count;
  bool shared;
};
struct PlannedStep {
  std::vector<Buffer> at;  // of each group; empty: nothing is measured there
  std::vector<bool> first, later;
  std::vector<Combination> combinations;
};
struct Plan {
  std::vector<NormPath> key;
  std::vector<PlannedStep> steps;
  const double* shared_norm = nullptr;  // that of the first stages that share one, of the first leaf's; on the device
  bool powers = false;                  // some norm is of powers, whose sums may leave the range of double
};

class NormTables {
 public:
  NormTables(const Optimiser::State& state, int device, const DeviceGroups& groups)
      : state_(state), device_(device), groups_(groups) {}

  // The leaves of a call that take part, in order.
  void begin();
  void add(const LeafUpdate& u);
  // A norm of leaves on several devices would have to wait for all of them.
  void refuse_shared(std::span<const LeafUpdate> leaves);
  // May allocate and wait, where these leaves have not come together before.
  void make_plan();
  const std::shared_ptr<const Plan>& plan() const { return plan_; }

 private:
  const std::vector<NormPath>& paths();
  void stray();
  NormStage stage(const Group& group, std::uint32_t leaf, int s) const;
  NormPath path_of(const LeafUpdate& u) const;
  bool is_path(const NormPath& path, const LeafUpdate& u) const;
  std::shared_ptr<const Plan> made(const std::vector<NormPath>& paths) const;
  Combination combination(const std::vector<NormPath>& paths, const std::vector<NormStep::At>& who, bool shared) const;

  const Optimiser::State& state_;
  int device_;
  const DeviceGroups& groups_;
  std::shared_ptr<const Plan> plan_ = std::make_shared<Plan>();
  std::vector<std::shared_ptr<const Plan>> plans_;  // the last first
  // This call's leaves: so many as in the plan, or from some leaf on otherwise and then all of them here.
  std::size_t as_planned_ = 0;
  bool strays_ = false;
  std::vector<NormPath> paths_;
};

}  // namespace optimisers::inline OPT_ABI::cuda
