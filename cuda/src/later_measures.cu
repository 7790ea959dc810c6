// later_measures.cu: the kernels of LaterMeasures (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<LaterMeasures*>(nullptr));
}
const LaunchFn* const later_measures = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
