// launch.hpp: runs a kernel by its number. Included by the file that makes a driver; Run is how one kernel runs.
#pragma once
#include "kernel_list.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// With no blocks it only brings the kernel's code to the device.
using LaunchFn = int (*)(const void* table, unsigned blocks, void* stream);

template <template <class> class Run, class... K>
constexpr auto launchers(std::tuple<K...>*) {
  return std::array<LaunchFn, sizeof...(K)>{Run<K>::launch...};
}

}  // namespace optimisers::inline OPT_ABI::cuda
