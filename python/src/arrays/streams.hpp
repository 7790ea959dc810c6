// streams.hpp: CUDA as this module meets it: loaded at the first array on a device, its work enqueued on the stream
// that the array's library is using.
#pragma once
#include <nanobind/nanobind.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "arrays/array.hpp"
#include "optimisers/cuda.hpp"

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

// Whether a CUDA graph is being captured on the stream.
bool captures(int device, void* stream);

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
  // Arrays of a library that has no current stream name one themselves; the first one's is taken, what comes in later
  // is ordered with it.
  void adopt(int device, void* stream);
  // CuPy's stream goes on behind what this thread has enqueued.
  static void let_cupy_follow(int device);
  bool beside_torch() const;  // whether a device has another stream than torch's, which nobody gave
  // Where the stream is not torch's own and nobody gave it: it goes on behind what torch has enqueued, and the other
  // way round.
  void follow_torch() const;
  void let_torch_follow() const;
  std::vector<cuda::Mark> marks() const;  // what the streams in use hold now
  void reset() const noexcept;            // this thread's work goes to the default streams again: those in use may end

 private:
  struct Device {
    int device;
    Library library;
    void* stream = nullptr;
    bool given = false, adopted = false;
  };
  template <class F>
  void order_with_torch(F&& order) const;
  std::vector<Device> devices_;
};

// Waits for them on this thread's streams, without the interpreter's lock.
void wait_for(std::span<const cuda::Mark> marks);

// Uses streams for the length of a scope.
class OnStreams {
 public:
  OnStreams(Streams streams, std::optional<void*> given) : streams_(std::move(streams)) { streams_.use(given); }
  ~OnStreams() { streams_.reset(); }
  OnStreams(const OnStreams&) = delete;
  OnStreams& operator=(const OnStreams&) = delete;
  const Streams& streams() const { return streams_; }

 private:
  Streams streams_;
};

}  // namespace optimisers::python
