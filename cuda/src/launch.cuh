// launch.cuh: one kernel on a stream, for the files that compile a part of kernel_list.hpp.
#pragma once
#include <cuda_runtime.h>

#include "launch.hpp"

namespace optimisers::inline OPT_ABI::cuda {

template <class K, int... P>
__device__ void run_phases(const typename K::Table& table, typename K::Shared& shared,
                           std::integer_sequence<int, P...>) {
  ((P > 0 ? __syncthreads() : void(), K::template run<P>(table, shared, blockIdx.x, int(threadIdx.x))), ...);
}

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

}  // namespace optimisers::inline OPT_ABI::cuda
