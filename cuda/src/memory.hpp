// memory.hpp: device memory with an owner, and tables that are sent only where they have changed.
#pragma once
#include <algorithm>
#include <functional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "kernels/tables.hpp"
#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI::cuda {

const Driver* driver_or_null() noexcept;                  // null also in a forked process, which owns nothing there
const Driver& driver_in_use();                            // throws Error(value) without one
void check(Status status, int device, const char* what);  // throws Error(memory), Error(device) or Lost

// Memory by `ask` (of a Driver's status), twice where others in the process have some to give back; or throws
// Error(memory) that says who holds what.
void* obtain(int device, std::size_t bytes, const std::function<Status(void** memory)>& ask);

// The device cannot be used in this process any more.
class Lost : public Error {
 public:
  using Error::Error;
};

// Throws Error(value) while a graph is being captured: waiting would end the capture.
void refuse_to_wait_in_capture(int device, const char* what);

class Buffer {
 public:
  Buffer() = default;
  Buffer(int device, std::size_t bytes);  // not zeroed
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  ~Buffer();

  std::byte* detach() { return std::exchange(data_, nullptr); }
  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  int device_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// What never changes: filled outside the order of any stream.
template <class T>
Buffer constant(int device, std::span<const T> values);

// `bytes` of host memory to the device, within the launches themselves, whose kernels `load_senders` has brought there.
void load_senders(int device);
void send(int device, void* stream, std::byte* to, const std::byte* from, std::size_t bytes);
// Pieces of so many bytes, one after the other, to places `stride` apart.
void send_pieces(int device, void* stream, std::byte* to, std::size_t stride, std::span<const std::byte> pieces,
                 std::size_t piece);

// A table of the host's with its copy on the device.
class Mirror {
 public:
  explicit Mirror(int device = 0) : device_(device) {}
  // The host's side, to be written to: what there was, or zeros. Valid until it is asked for again.
  template <class T>
  std::span<T> values(std::size_t n) {
    static_assert(std::is_trivially_copyable_v<T>);
    wanted_.resize((n * sizeof(T) + 7) / 8 * 8);
    return {reinterpret_cast<T*>(wanted_.data()), n};
  }
  template <class T>
  void set(std::span<const T> from) {
    const std::span<T> to = values<T>(from.size());
    std::copy(from.begin(), from.end(), to.begin());
  }
  void reserve(std::size_t bytes = 0);  // makes room for what is wanted and at least so much, or throws
  const std::byte* send(void* stream);  // what differs from what is there; returns where it is
  std::size_t bytes() const { return wanted_.size(); }
  Buffer frozen() const;  // a copy nothing will change, for a graph

 private:
  int device_;
  std::vector<std::byte> wanted_, sent_;
  Buffer memory_;
};

template <class T>
Buffer constant(int device, std::span<const T> values) {
  Buffer buffer(device, values.size_bytes());
  if (!values.empty())
    check(driver_in_use().fill_now(device, buffer.data(), values.data(), values.size_bytes()), device, "setup");
  return buffer;
}

}  // namespace optimisers::inline OPT_ABI::cuda
