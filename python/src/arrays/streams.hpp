// streams.hpp: CUDA as this module meets it: loaded at the first array on a device, its work enqueued on the stream
// that the array's library is using.
#pragma once
#include <nanobind/nanobind.h>

#include <optional>
#include <string>
#include <vector>

#include "arrays/array.hpp"

namespace optimisers::python {

// Whether arrays on CUDA devices can be trained, and if not, why. Loads the GPU library when it is first asked.
struct CudaStatus {
  bool on = false;
  std::string reason;
};
const CudaStatus& cuda_status();

// Throws what `place` ("setup: array at "w"") is on a CUDA device for and CUDA is off; or that this process was forked.
void require_cuda(const std::string& place);

// CuPy's current stream.
void* cupy_stream(int device);

// Throws that there is no such device.
void check_device(int device);

// A stream as users give it: a handle, or an object of torch, CuPy or any other library; none for None.
std::optional<void*> stream_from(nb::handle object);

// What a consumer of DLPack or of the CUDA array interface calls the stream: these have other names for the default.
std::uintptr_t public_handle(void* stream);
void* stream_of_handle(std::uintptr_t handle);

// The devices some arrays are on, and the stream of each.
class Streams {
 public:
  void add(int device, Library library);
  bool empty() const { return devices_.empty(); }
  // From now on this thread's work for these devices goes to the stream given, or to the one their library uses now.
  void use(std::optional<void*> given = {});
  // Arrays of a library that has no current stream name one themselves.
  void adopt(int device, void* stream);
  // CuPy's stream goes on behind what this thread has enqueued.
  static void let_cupy_follow(int device);
  void wait() const;            // for the streams in use
  void reset() const noexcept;  // this thread's work goes to the default streams again: those in use may end

 private:
  struct Device {
    int device;
    Library library;
    void* stream = nullptr;
    bool given = false;
  };
  std::vector<Device> devices_;
};

// Uses streams for the length of a scope.
class OnStreams {
 public:
  OnStreams(Streams streams, std::optional<void*> given) : streams_(std::move(streams)) { streams_.use(given); }
  ~OnStreams() { streams_.reset(); }
  OnStreams(const OnStreams&) = delete;
  OnStreams& operator=(const OnStreams&) = delete;

 private:
  Streams streams_;
};

}  // namespace optimisers::python
