// norm_scratch.hpp: memory that the norms of a call are found in; the state keeps it, so that no call allocates.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/executor.hpp"

namespace optimisers::inline OPT_ABI {

// How far a job has come through its reducing stages.
struct Progress {
  std::size_t job;
  std::size_t next = 0;                     // position in group.reducers
  norms::Sum norm;                          // measured at that stage,
  std::array<double, most_sums> sums = {};  // or what its rule sums
  bool measured = false;
};

struct NormScratch {
  std::vector<Progress> progress;
  std::vector<cpu::Measurement> measurements;
  cpu::ChunkSums chunks;
  std::vector<norms::Sum> sums;  // of the measurements
  struct {
    std::vector<Progress*> members;
    std::vector<norms::Sum> parts;
    std::vector<std::uint32_t> places;
  } together;  // of jobs that share a norm
};

}  // namespace optimisers::inline OPT_ABI
