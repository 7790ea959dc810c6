// plain_sweeps.cu: the kernels of PlainSweeps (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<PlainSweeps*>(nullptr));
}
const LaunchFn* const plain_sweeps = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
