// cuda.hpp: leaves on NVIDIA GPUs. Spans of device memory take part in setup and update like any other; the work is
// enqueued on the calling thread's stream for the device, and no call waits for it unless it says so.
//
//   #include <optimisers/optimisers.hpp>
//   #include <optimisers/cuda.hpp>
//   opt::cuda::use(opt::cuda::driver());                    // once
//   auto x = opt::cuda::span(x_pointer, n);                 // device memory, any allocation of the runtime's
//   opt::State state = opt::setup(opt::Adam{}, x);
//   opt::cuda::Stream on(stream);                           // for this scope and thread
//   state.update(x, opt::cuda::span(dx_pointer, n));
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "optimisers/any_span.hpp"
#include "optimisers/array.hpp"

namespace optimisers::inline OPT_ABI::cuda {

/// What runs kernels and holds memory: the GPU library's, or an emulation on the host (tests).
struct Driver;

}  // namespace optimisers::inline OPT_ABI::cuda

extern "C" const optimisers::cuda::Driver* optimisers_cuda_driver();

namespace optimisers::inline OPT_ABI::cuda {

/// The GPU library's, where the program links it (target optimisers::cuda).
inline const Driver& driver() { return *optimisers_cuda_driver(); }

/// Makes leaves on devices possible, with this driver; the first call in a process counts, a second with another
/// driver throws Error(value).
void use(const Driver& driver);

/// Loads the GPU library from a file and uses its driver. False, with the reason: there is none, it is of another
/// version, or it finds no GPU.
bool load(const std::string& path, std::string& reason);

/// Elements in device memory, for setup and update.
template <Element T>
AnySpan span(T* data, std::size_t size, int device = 0) {
  return AnySpan(data, size).on(device);
}

struct Device {
  std::string name;
  int major, minor;    // compute capability
  std::size_t memory;  // bytes
};
/// The GPUs; empty without a driver in use.
std::vector<Device> devices();
/// Why there are none; "" if there are some.
std::string why_no_devices();

/// The calling thread's stream for a device (a cudaStream_t; null: the default stream).
void* stream(int device);
void set_stream(int device, void* stream);

/// The thread's stream for the length of a scope.
class Stream {
 public:
  explicit Stream(void* stream, int device = 0) : device_(device), before_(cuda::stream(device)) {
    set_stream(device, stream);
  }
  ~Stream() { set_stream(device_, before_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

 private:
  int device_;
  void* before_;
};

/// Others in the process that keep memory of devices for later. Where an allocation fails, `give_back` is called and it
/// is tried once more; `held` says who holds what, for the error. Both on any thread; null: nobody.
struct Neighbours {
  void (*give_back)(int device) = nullptr;
  std::string (*held)(int device) = nullptr;
};
void set_neighbours(const Neighbours& neighbours);

/// Memory of the driver's, zeroed. Throws Error(memory) that gives the sizes, with nothing changed.
std::byte* allocate(int device, std::size_t bytes);
void release(int device, std::byte* memory) noexcept;

/// Bytes between the host (device -1) and devices, in the order of the devices' streams. Waits if the host takes part.
void copy(std::byte* to, int to_device, const std::byte* from, int from_device, std::size_t bytes);

/// to[i] = from[i], converted, or to[i] += from[i]; all arrays on this device, of any strides. Enqueued.
void transfer(int device, std::span<const ArrayView> to, std::span<const ArrayView> from, bool add = false);

/// Zeroes arrays of any dtype and strides on this device. Enqueued.
void zero(int device, std::span<const ArrayView> arrays);

/// Waits for the thread's stream. Throws Error(value) while a graph is being captured on it.
void wait(int device);

/// Whether a CUDA graph is being captured on the thread's stream.
bool capturing(int device);

/// `stream` goes on after what `earlier` holds now. Waits for neither.
void follow(int device, void* stream, void* earlier);

/// What the thread's stream for a device holds now, for streams that are to come behind it when it may be gone.
class Mark {
 public:
  Mark() = default;  // nothing
  explicit Mark(int device);
  Mark(Mark&& other) noexcept { *this = std::move(other); }
  Mark& operator=(Mark&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(id_, other.id_);
    std::swap(event_, other.event_);
    return *this;
  }
  Mark(const Mark&) = delete;
  ~Mark();
  int device() const { return device_; }  // -1: of nothing
  /// `stream` goes on behind it. Waits for neither; not while a graph is being captured, which nothing else is part of.
  void precede(void* stream) const;

 private:
  int device_ = -1;
  unsigned long long id_ = 0;  // of the stream
  void* event_ = nullptr;      // null: the default stream, which is never gone
};

/// The device this memory belongs to; -1: none, or it is gone.
int device_of(const void* memory);

}  // namespace optimisers::inline OPT_ABI::cuda
