// launch.cuh: kernels on a stream, by number. A file of the build for each of kernels/list.hpp's parts says which in
// OPT_PART and includes this; driver.cu knows them all.
#pragma once
#include <cuda_runtime.h>

#include <array>

#include "kernels/list.hpp"

namespace optimisers::inline OPT_ABI::cuda {

template <class K, int... P>
__device__ void run_phases(const typename K::Table& table, typename K::Shared& shared,
                           std::integer_sequence<int, P...>) {
  ((P > 0 ? __syncthreads() : void(), K::template run<P>(table, shared, blockIdx.x, int(threadIdx.x))), ...);
}

// With no blocks it only brings the kernel's code to the device.
using LaunchFn = int (*)(const void* table, unsigned blocks, void* stream);

template <int Part>
const LaunchFn* launchers_of();

// How many blocks a processor is to hold at least; 0: ptxas decides. It would spill for one more block where one is
// given here.
template <class K>
inline constexpr int least_blocks = 0;
template <class T, Access A>
inline constexpr int least_blocks<Sweep<T, A, Interpreted>> = A == Access::any || is_complex<T> ? 1 : 0;
template <class T, Access A, bool Stages>
inline constexpr int least_blocks<MeasureSums<T, A, Stages>> = 1;
template <>
inline constexpr int least_blocks<Sweep<float, Access::plain, Interpreted>> = 1;

template <class K>
__global__ void __launch_bounds__(K::threads, least_blocks<K>) kernel(const __grid_constant__ typename K::Table table) {
  __shared__ alignas(16) std::byte memory[sizeof(typename K::Shared)];
  run_phases<K>(table, reinterpret_cast<typename K::Shared&>(memory), std::make_integer_sequence<int, K::phases>{});
}

template <class K>
struct Run {
  static int launch(const void* table, unsigned blocks, void* stream) {
    const void* code = reinterpret_cast<const void*>(&kernel<K>);
    if (blocks == 0) {
      cudaFuncAttributes loaded;
      return int(cudaFuncGetAttributes(&loaded, code));
    }
    void* arguments[] = {const_cast<void*>(table)};
    // Not <<<>>>, whose errors only cudaGetLastError tells, with those that others have left there.
    return int(cudaLaunchKernel(code, dim3(blocks), dim3(K::threads), arguments, 0, static_cast<cudaStream_t>(stream)));
  }
};

#ifdef OPT_PART
template <class... K>
constexpr auto launchers(std::tuple<K...>*) {
  return std::array<LaunchFn, sizeof...(K)>{Run<K>::launch...};
}

template <>
const LaunchFn* launchers_of<OPT_PART>() {
  static constexpr auto table = launchers(static_cast<std::tuple_element_t<OPT_PART, Parts>*>(nullptr));
  return table.data();
}
#endif

}  // namespace optimisers::inline OPT_ABI::cuda
