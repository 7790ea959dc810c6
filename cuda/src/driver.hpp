// driver.hpp: the boundary between the host's logic and what only a GPU's toolchain can build: memory, streams, and
// launches of the kernels of kernel_list.hpp. Plain functions and status codes, so that the GPU library may be loaded
// at run time; tests have a driver that runs the same kernels as loops on the host.
#pragma once
#include <cstddef>
#include <cstdint>

namespace optimisers::cuda {

inline constexpr int driver_version = 1;  // of this struct and of the tables in tables.hpp

enum class Status : std::int32_t { ok, no_memory, sticky, failed };

struct Driver {
  int version;
  const char* name;  // "cuda"

  // How many devices there are; with 0, `why` says why in at most `size` bytes.
  int (*count)(char* why, std::size_t size);
  void (*describe)(int device, char* name, std::size_t size, int* major, int* minor, std::size_t* memory,
                   int* processors);
  // Device memory is aligned to 256 bytes; host memory is seen by device and host under the same address.
  Status (*allocate)(int device, std::size_t bytes, void** memory);
  void (*release)(int device, void* memory);
  // In the order of the stream: what runs before the release on it may still use the memory.
  Status (*allocate_on)(int device, void* stream, std::size_t bytes, void** memory);
  Status (*release_on)(int device, void* stream, void* memory);
  Status (*allocate_shared)(int device, std::size_t bytes, void** memory);
  void (*release_shared)(int device, void* memory);
  std::size_t (*free_memory)(int device);

  // All on a stream. copy: to and from may be on the host; it is then complete on return.
  Status (*zero)(int device, void* stream, void* memory, std::size_t bytes);
  Status (*copy)(int device, void* stream, void* to, const void* from, std::size_t bytes, bool host);
  Status (*launch)(int device, void* stream, int kernel, const void* args, unsigned blocks);
  Status (*wait)(int device, void* stream);
  // Whether a graph is being captured on the stream; then `copy` and `zero` with `now` bypass the capture.
  bool (*capturing)(int device, void* stream);
  Status (*fill_now)(int device, void* to, const void* from, std::size_t bytes);  // from the host, outside any capture
  // The stream waits for what `earlier`, another stream, holds now.
  Status (*follow)(int device, void* stream, void* earlier);
  // An event for what the stream holds now (made where *event is null), and a stream that waits for it. It may outlive
  // its stream.
  Status (*record)(int device, void* stream, void** event);
  Status (*await)(int device, void* stream, void* event);
  void (*release_event)(int device, void* event);
  int (*device_of)(const void* memory);  // -1: no device's, or no longer

  const char* (*error_text)(int device);  // of the last failure on this thread
};

}  // namespace optimisers::cuda

// What the GPU library exports.
extern "C" const optimisers::cuda::Driver* optimisers_cuda_driver();
