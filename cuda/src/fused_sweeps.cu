// fused_sweeps.cu: the kernels of FusedSweeps (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<FusedSweeps*>(nullptr));
}
const LaunchFn* const fused_sweeps = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
