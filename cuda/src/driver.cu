// driver.cu: the driver of real GPUs, over the CUDA runtime.
#include <cstdio>
#include <cstring>

#include "driver.hpp"
#include "launch.cuh"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

// The thread's context, in the words of the driver's own interface. The runtime's cudaSetDevice would do to go back to
// the device before, but makes a context there where the thread had none: hundreds of MB on a GPU nobody uses.
struct ThreadContext {
  int (*get)(void** context) = nullptr;
  int (*set)(void* context) = nullptr;
};
const ThreadContext& thread_context() {
  static const ThreadContext functions = [] {
    const auto find = [](const char* name) {
      void* function = nullptr;
      cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
#else
      cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#endif
      return function;
    };
    return ThreadContext{reinterpret_cast<int (*)(void**)>(find("cuCtxGetCurrent")),
                         reinterpret_cast<int (*)(void*)>(find("cuCtxSetCurrent"))};
  }();
  return functions;
}

// The thread's current device and its capture mode, as they were, afterwards.
class OnDevice {
 public:
  explicit OnDevice(int device, bool anywhere) : anywhere_(anywhere) {
    const ThreadContext& context = thread_context();
    if (context.set == nullptr || context.get(&before_) != 0) before_ = nullptr;
    int current = -1;
    if (before_ == nullptr || cudaGetDevice(&current) != cudaSuccess || current != device) {
      error_ = cudaSetDevice(device);
      changed_ = context.set != nullptr;
    }
    if (anywhere_) cudaThreadExchangeStreamCaptureMode(&mode_);
  }
  ~OnDevice() {
    if (anywhere_) cudaThreadExchangeStreamCaptureMode(&mode_);
    if (changed_) thread_context().set(before_);
  }
  OnDevice(const OnDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  void* before_ = nullptr;
  bool anywhere_, changed_ = false;
  cudaError_t error_ = cudaSuccess;
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
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
#if CUDART_VERSION >= 13000
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
#endif
      return Status::sticky;
    default:
      return Status::failed;
  }
}

cudaStream_t as_stream(void* s) { return static_cast<cudaStream_t>(s); }

// work() with the device current; not at all where it cannot be made so, which would be on another device.
Status on(int device, auto&& work) {
  const OnDevice there(device, false);
  return status_of(there.error() == cudaSuccess ? work() : there.error());
}
// The same for what may be called while this thread captures a graph, and is no part of it.
Status anywhere_on(int device, auto&& work) {
  const OnDevice there(device, true);
  return status_of(there.error() == cudaSuccess ? work() : there.error());
}

// On a stream of ours, and done when it returns.
cudaError_t on_own_stream(auto&& work) {
  cudaStream_t own;
  cudaError_t e = cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking);
  if (e != cudaSuccess) return e;
  e = work(own);
  if (e == cudaSuccess) e = cudaStreamSynchronize(own);
  cudaStreamDestroy(own);
  return e;
}

// Newer than some that the runtime puts up with: kernels here have more than 4096 bytes of arguments (12.1), and their
// code is compressed in a way that older ones cannot read (12.4).
constexpr int oldest_driver = 12040;

int count(char* why, std::size_t size) {
  int driver = 0, n = 0;
  cudaError_t e = cudaDriverGetVersion(&driver);
  if (e == cudaSuccess && driver == 0) {
    std::snprintf(why, size, "there is no NVIDIA driver");
    return 0;
  }
  if (e == cudaSuccess && driver < oldest_driver) e = cudaErrorInsufficientDriver;
  if (e == cudaSuccess) e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess && n > 0) return n;
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  if (runtime / 1000 == oldest_driver / 1000) runtime = oldest_driver;  // drivers of one major version serve all of it
  if (e == cudaErrorInsufficientDriver)
    std::snprintf(why, size, "the NVIDIA driver is for CUDA %d.%d, this build needs %d.%d or newer", driver / 1000,
                  driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  else if (e == cudaSuccess || e == cudaErrorNoDevice) std::snprintf(why, size, "there is no NVIDIA GPU");
  else std::snprintf(why, size, "%s", cudaGetErrorString(e));
  cudaGetLastError();
  return 0;
}

void describe(int device, char* name, std::size_t size, int* major, int* minor, std::size_t* memory) {
  cudaDeviceProp p{};
  cudaGetDeviceProperties(&p, device);
  std::snprintf(name, size, "%s", p.name);
  *major = p.major;
  *minor = p.minor;
  *memory = p.totalGlobalMem;
}

LaunchFn launcher(int kernel) {
  LaunchFn found = nullptr;
  const auto look = [&]<int... P>(std::integer_sequence<int, P...>) {
    const auto in = [&](const LaunchFn* part, int size) {
      if (kernel >= 0 && kernel < size) found = part[kernel];
      kernel -= size;
    };
    (in(launchers_of<P>(), int(std::tuple_size_v<std::tuple_element_t<P, Parts>>)), ...);
  };
  look(std::make_integer_sequence<int, OPT_PARTS>{});
  return found;
}
static_assert(std::tuple_size_v<Parts> == OPT_PARTS, "CMakeLists.txt compiles as many");

const Driver gpu{
    .version = driver_version,
    .name = "cuda",
    .count = count,
    .describe = describe,
    .processors =
        [](int device) {
          int n = 1;
          if (cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) cudaGetLastError();
          return n;
        },
    .allocate = [](int device, std::size_t bytes,
                   void** memory) { return anywhere_on(device, [&] { return cudaMalloc(memory, bytes); }); },
    // At the end of the process the runtime may be gone, which is no matter.
    .release = [](int device, void* memory) { anywhere_on(device, [&] { return cudaFree(memory); }); },
    .allocate_on =
        [](int device, void* stream, std::size_t bytes, void** memory) {
          return on(device, [&] { return cudaMallocAsync(memory, bytes, as_stream(stream)); });
        },
    .release_on = [](int device, void* stream,
                     void* memory) { return on(device, [&] { return cudaFreeAsync(memory, as_stream(stream)); }); },
    .allocate_shared =
        [](int device, std::size_t bytes, void** memory) {
          return anywhere_on(device,
                             [&] { return cudaHostAlloc(memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped); });
        },
    .release_shared = [](int device, void* memory) { anywhere_on(device, [&] { return cudaFreeHost(memory); }); },
    .free_memory =
        [](int device) {
          std::size_t free = 0, total = 0;
          anywhere_on(device, [&] { return cudaMemGetInfo(&free, &total); });
          return free;
        },
    .copy =
        [](int device, void* stream, void* to, const void* from, std::size_t bytes, bool host) {
          return on(device, [&] {
            cudaError_t e = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, as_stream(stream));
            if (e == cudaSuccess && host) e = cudaStreamSynchronize(as_stream(stream));
            return e;
          });
        },
    .launch =
        [](int device, void* stream, int kernel, const void* args, unsigned blocks) {
          if (blocks == 0) return Status::ok;
          return on(device, [&] { return static_cast<cudaError_t>(launcher(kernel)(args, blocks, stream)); });
        },
    .load =
        [](int device, int kernel) {
          return anywhere_on(device, [&] { return static_cast<cudaError_t>(launcher(kernel)(nullptr, 0, nullptr)); });
        },
    .wait = [](int device,
               void* stream) { return on(device, [&] { return cudaStreamSynchronize(as_stream(stream)); }); },
    .capturing =
        [](int device, void* stream) {
          cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
          const Status known = on(device, [&] { return cudaStreamIsCapturing(as_stream(stream), &status); });
          return known == Status::ok && status != cudaStreamCaptureStatusNone;
        },
    .fill_now =
        [](int device, void* to, const void* from, std::size_t bytes) {
          return anywhere_on(device, [&] {
            return on_own_stream([&](cudaStream_t own) {
              return from == nullptr ? cudaMemsetAsync(to, 0, bytes, own)
                                     : cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, own);
            });
          });
        },
    .stream_id =
        [](int device, void* stream, unsigned long long* id) {
          return on(device, [&] { return cudaStreamGetId(as_stream(stream), id); });
        },
    .follow =
        [](int device, void* stream, void* earlier) {
          return on(device, [&] {
            cudaEvent_t event;
            cudaError_t e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
            if (e != cudaSuccess) return e;
            e = cudaEventRecord(event, as_stream(earlier));
            if (e == cudaSuccess) e = cudaStreamWaitEvent(as_stream(stream), event, 0);
            cudaEventDestroy(event);
            return e;
          });
        },
    .record =
        [](int device, void* stream, void** event) {
          return on(device, [&] {
            cudaError_t e = cudaSuccess;
            if (*event == nullptr) {
              cudaEvent_t made;
              e = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
              if (e == cudaSuccess) *event = made;
            }
            return e == cudaSuccess ? cudaEventRecord(static_cast<cudaEvent_t>(*event), as_stream(stream)) : e;
          });
        },
    .await =
        [](int device, void* stream, void* event) {
          return on(device, [&] { return cudaStreamWaitEvent(as_stream(stream), static_cast<cudaEvent_t>(event), 0); });
        },
    .release_event =
        [](int device, void* event) {
          anywhere_on(device, [&] { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); });
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
}  // namespace optimisers::inline OPT_ABI::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::gpu;
}
