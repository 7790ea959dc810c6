// first_measures.cu: the kernels of FirstMeasures (kernel_list.hpp).
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr auto table = launchers<Run>(static_cast<FirstMeasures*>(nullptr));
}
const LaunchFn* const first_measures = table.data();
}  // namespace optimisers::inline OPT_ABI::cuda
