// narrow_sweeps.cu: the kernels of NarrowSweeps (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<NarrowSweeps*>(nullptr));
}
const LaunchFn* const narrow_sweeps = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
