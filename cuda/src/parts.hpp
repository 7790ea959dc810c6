// parts.hpp: kernel_list.hpp cut into files that compile side by side, in the order of Kernels.
#pragma once
#include "launch.hpp"

namespace optimisers::inline OPT_ABI::cuda {

inline constexpr int part_count = 7;
inline constexpr int part_sizes[part_count] = {
    int(std::tuple_size_v<Helpers>),      int(std::tuple_size_v<PlainSweeps>), int(std::tuple_size_v<NarrowSweeps>),
    int(std::tuple_size_v<AnySweeps>),    int(std::tuple_size_v<FusedSweeps>), int(std::tuple_size_v<FirstMeasures>),
    int(std::tuple_size_v<LaterMeasures>)};

extern const LaunchFn *const helpers,
    *const plain_sweeps, *const narrow_sweeps, *const any_sweeps, *const fused_sweeps, *const first_measures,
                                                                                           *const later_measures;

}  // namespace optimisers::inline OPT_ABI::cuda
