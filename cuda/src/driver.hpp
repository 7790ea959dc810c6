// driver.hpp: the boundary between the host's logic and what only a GPU's toolchain can build: memory, streams, and
// launches of the kernels of kernels/list.hpp. Plain functions and status codes, so that the GPU library may be loaded
// at run time; tests have a driver that runs the same kernels as loops on the host.
#pragma once
#include <cstddef>
#include <cstdint>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::cuda {

inline constexpr int driver_version = 5;  // of this struct and of the tables in tables.hpp

enum class Status : std::int32_t { ok, no_memory, sticky, failed };

struct Driver {
  int version;
  const char* name;  // "cuda"

  // How many devices there are; with 0, `why` says why in at most `size` bytes.
  int (*count)(char* why, std::size_t size);
  void (*describe)(int device, char* name, std::size_t size, int* major, int* minor, std::size_t* memory);
  int (*processors)(int device);
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
  Status (*copy)(int device, void* stream, void* to, const void* from, std::size_t bytes, bool host);
  Status (*launch)(int device, void* stream, int kernel, const void* args, unsigned blocks);
  // The kernel's code is on the device: CUDA loads it at its first use, which is no part of a graph and may fail.
  Status (*load)(int device, int kernel);
  Status (*wait)(int device, void* stream);
  // Whether a graph is being captured on the stream, or was until something was called that cannot be.
  bool (*capturing)(int device, void* stream);
  // From the host, or zeros (null), outside any capture and the order of any stream; complete on return.
  Status (*fill_now)(int device, void* to, const void* from, std::size_t bytes);
  // A number that no other stream of the process ever has: handles of destroyed streams are used again.
  Status (*stream_id)(int device, void* stream, unsigned long long* id);
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

}  // namespace optimisers::inline OPT_ABI::cuda

// What the GPU library exports.
extern "C" const optimisers::cuda::Driver* optimisers_cuda_driver();
