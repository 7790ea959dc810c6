// any_sweeps.cu: the kernels of AnySweeps (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<AnySweeps*>(nullptr));
}
const LaunchFn* const any_sweeps = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
