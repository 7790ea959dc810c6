// driver.cu: the driver of real GPUs, over the CUDA runtime.
#include <cstdio>
#include <cstring>

#include "driver.hpp"
#include "launch.cuh"
#include "parts.hpp"

namespace optimisers::cuda {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

// The thread's current device and its capture mode, as they were, afterwards.
class OnDevice {
 public:
  explicit OnDevice(int device, bool anywhere = false) : anywhere_(anywhere) {
    cudaGetDevice(&before_);
    if (before_ != device) cudaSetDevice(device);
    device_ = device;
    if (anywhere_) cudaThreadExchangeStreamCaptureMode(&mode_);
  }
  ~OnDevice() {
    if (anywhere_) cudaThreadExchangeStreamCaptureMode(&mode_);
    if (before_ != device_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0, device_ = 0;
  bool anywhere_;
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

Status status_of(cudaError_t e) {
  if (e == cudaSuccess) return Status::ok;
  last_error = e;
  cudaGetLastError();  // an error that is not sticky is forgotten here, and reported once
  if (e == cudaErrorMemoryAllocation) return Status::no_memory;
  switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
      return Status::sticky;
    default:
      return Status::failed;
  }
}

cudaStream_t as_stream(void* s) { return static_cast<cudaStream_t>(s); }

// A stream of ours for what must not become part of a graph that is being captured.
Status outside_capture(int device, auto&& work) {
  const OnDevice on(device, true);
  cudaStream_t own;
  cudaError_t e = cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking);
  if (e != cudaSuccess) return status_of(e);
  e = work(own);
  if (e == cudaSuccess) e = cudaStreamSynchronize(own);
  cudaStreamDestroy(own);
  return status_of(e);
}

int count(char* why, std::size_t size) {
  int driver = 0, n = 0;
  cudaError_t e = cudaDriverGetVersion(&driver);
  if (e == cudaSuccess && driver == 0) {
    std::snprintf(why, size, "there is no NVIDIA driver");
    return 0;
  }
  if (e == cudaSuccess) e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess && n > 0) return n;
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (e == cudaErrorInsufficientDriver)
    std::snprintf(why, size, "the NVIDIA driver is for CUDA %d.%d, this build needs %d.%d or newer", driver / 1000,
                  driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  else if (e == cudaSuccess || e == cudaErrorNoDevice) std::snprintf(why, size, "there is no NVIDIA GPU");
  else std::snprintf(why, size, "%s", cudaGetErrorString(e));
  cudaGetLastError();
  return 0;
}

void describe(int device, char* name, std::size_t size, int* major, int* minor, std::size_t* memory, int* processors) {
  cudaDeviceProp p{};
  cudaGetDeviceProperties(&p, device);
  std::snprintf(name, size, "%s", p.name);
  *major = p.major;
  *minor = p.minor;
  *memory = p.totalGlobalMem;
  *processors = p.multiProcessorCount;
}

Status launch(int device, void* stream, int kernel, const void* args, unsigned blocks) {
  if (blocks == 0) return Status::ok;
  const OnDevice on(device);
  const LaunchFn* const parts[] = {helpers,      plain_sweeps,   narrow_sweeps, any_sweeps,
                                   fused_sweeps, first_measures, later_measures};
  static_assert(std::size(parts) == part_count);
  int part = 0;
  while (kernel >= part_sizes[part]) kernel -= part_sizes[part++];
  return status_of(static_cast<cudaError_t>(parts[part][kernel](args, blocks, stream)));
}

const Driver gpu{
    .version = driver_version,
    .name = "cuda",
    .count = count,
    .describe = describe,
    .allocate =
        [](int device, std::size_t bytes, void** memory) {
          const OnDevice on(device, true);
          return status_of(cudaMalloc(memory, bytes));
        },
    .release =
        [](int device, void* memory) {
          const OnDevice on(device, true);
          cudaFree(memory);
          cudaGetLastError();  // at the end of the process the runtime may be gone
        },
    .allocate_on =
        [](int device, void* stream, std::size_t bytes, void** memory) {
          const OnDevice on(device);
          return status_of(cudaMallocAsync(memory, bytes, as_stream(stream)));
        },
    .release_on =
        [](int device, void* stream, void* memory) {
          const OnDevice on(device);
          return status_of(cudaFreeAsync(memory, as_stream(stream)));
        },
    .allocate_shared =
        [](int device, std::size_t bytes, void** memory) {
          const OnDevice on(device, true);
          return status_of(cudaHostAlloc(memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped));
        },
    .release_shared =
        [](int device, void* memory) {
          const OnDevice on(device, true);
          cudaFreeHost(memory);
          cudaGetLastError();
        },
    .free_memory =
        [](int device) {
          const OnDevice on(device, true);
          std::size_t free = 0, total = 0;
          cudaMemGetInfo(&free, &total);
          return free;
        },
    .zero =
        [](int device, void* stream, void* memory, std::size_t bytes) {
          const OnDevice on(device);
          return status_of(cudaMemsetAsync(memory, 0, bytes, as_stream(stream)));
        },
    .copy =
        [](int device, void* stream, void* to, const void* from, std::size_t bytes, bool host) {
          const OnDevice on(device);
          cudaError_t e = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, as_stream(stream));
          if (e == cudaSuccess && host) e = cudaStreamSynchronize(as_stream(stream));
          return status_of(e);
        },
    .launch = launch,
    .wait =
        [](int device, void* stream) {
          const OnDevice on(device);
          return status_of(cudaStreamSynchronize(as_stream(stream)));
        },
    .capturing =
        [](int device, void* stream) {
          const OnDevice on(device);
          cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
          cudaStreamIsCapturing(as_stream(stream), &status);
          return status == cudaStreamCaptureStatusActive;
        },
    .fill_now =
        [](int device, void* to, const void* from, std::size_t bytes) {
          return outside_capture(
              device, [&](cudaStream_t own) { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, own); });
        },
    .follow =
        [](int device, void* stream, void* earlier) {
          const OnDevice on(device);
          cudaEvent_t event;
          cudaError_t e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
          if (e != cudaSuccess) return status_of(e);
          e = cudaEventRecord(event, as_stream(earlier));
          if (e == cudaSuccess) e = cudaStreamWaitEvent(as_stream(stream), event, 0);
          cudaEventDestroy(event);
          return status_of(e);
        },
    .record =
        [](int device, void* stream, void** event) {
          const OnDevice on(device);
          cudaError_t e = cudaSuccess;
          if (*event == nullptr) {
            cudaEvent_t made;
            e = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
            if (e == cudaSuccess) *event = made;
          }
          if (e == cudaSuccess) e = cudaEventRecord(static_cast<cudaEvent_t>(*event), as_stream(stream));
          return status_of(e);
        },
    .await =
        [](int device, void* stream, void* event) {
          const OnDevice on(device);
          return status_of(cudaStreamWaitEvent(as_stream(stream), static_cast<cudaEvent_t>(event), 0));
        },
    .release_event =
        [](int device, void* event) {
          const OnDevice on(device, true);
          cudaEventDestroy(static_cast<cudaEvent_t>(event));
          cudaGetLastError();
        },
    .device_of =
        [](const void* memory) {
          cudaPointerAttributes a{};
          if (cudaPointerGetAttributes(&a, memory) != cudaSuccess) cudaGetLastError();
          const bool there = a.type == cudaMemoryTypeDevice || a.type == cudaMemoryTypeManaged;
          return there ? a.device : -1;
        },
    .error_text = [](int) { return cudaGetErrorString(last_error); },
};

}  // namespace
}  // namespace optimisers::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::gpu;
}
