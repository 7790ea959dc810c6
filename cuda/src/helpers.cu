// helpers.cu: the kernels of Helpers (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<Helpers*>(nullptr));
}
const LaunchFn* const helpers = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
