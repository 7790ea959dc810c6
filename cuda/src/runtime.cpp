// runtime.cpp: the driver of this process, streams, and the accelerator that the core calls.
#include <atomic>
#include <map>
#include <mutex>

#include "kernels/list.hpp"
#include "leaves.hpp"
#include "measure_arrays.hpp"
#include "memory.hpp"
#include "optimisers/cuda.hpp"
#include "pairs_call.hpp"
#include "refuse.hpp"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace optimisers::inline OPT_ABI::cuda {
namespace {

#if defined(_WIN32)
void watch_forks(void (*)()) {}  // there are none
void* open_library(const std::string& path) { return LoadLibraryA(path.c_str()); }
void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
std::string why_not_opened(const std::string& path) { return path + " cannot be loaded"; }
#else
void watch_forks(void (*in_child)()) { pthread_atfork(nullptr, nullptr, in_child); }
void* open_library(const std::string& path) { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }
void* find_symbol(void* library, const char* name) { return dlsym(library, name); }
std::string why_not_opened(const std::string&) { return dlerror(); }
#endif

std::atomic<const Driver*> in_use{nullptr};
std::atomic<bool> forked{false};  // since then; asking for the process's number each time would be a system call

std::map<int, void*>& streams() {
  static thread_local std::map<int, void*> of_device;
  return of_device;
}

class Cuda final : public Accelerator {
 public:
  std::byte* allocate(int device, std::size_t bytes) override { return cuda::allocate(device, bytes); }
  void release(int device, std::byte* memory) noexcept override { cuda::release(device, memory); }
  std::unique_ptr<DeviceLeaves> leaves(Optimiser::State& state, int device, std::span<const ArrayView> x) override {
    return make_leaves(state, device, x);
  }
  std::vector<norms::Sum> measure(int device, std::span<const ArrayView> arrays, double p) override {
    return measure_arrays(device, arrays, p);
  }
  void lerp(int device, std::span<const ArrayView> targets, std::span<const ArrayView> sources, double keep,
            double take) override {
    run_pairs(device, targets, sources, PairOp::lerp, keep, take);
  }
  void copy(std::byte* to, int to_device, const std::byte* from, int from_device, std::size_t bytes) override {
    cuda::copy(to, to_device, from, from_device, bytes);
  }
};

}  // namespace

const Driver& driver_in_use() {
  const Driver* d = in_use;
  if (d == nullptr) refuse("arrays on a GPU need a driver: cuda::use or cuda::load first");
  if (forked)
    throw Error(ErrorKind::device,
                "CUDA cannot be used in a process that was forked after it was first used; start it with the "
                "\"spawn\" or \"forkserver\" method");
  return *d;
}

const Driver* driver_or_null() noexcept {
  const Driver* d = in_use;
  return forked ? nullptr : d;
}

void check(Status status, int device, const char* what) {
  if (status == Status::ok) return;
  const std::string where = std::string(what) + " on device " + std::to_string(device);
  if (status == Status::no_memory)
    throw Error(ErrorKind::memory,
                where + ": out of memory, " + std::to_string(driver_in_use().free_memory(device)) + " bytes free");
  const std::string failed = where + " failed: " + driver_in_use().error_text(device);
  if (status == Status::sticky)
    throw Lost(ErrorKind::device, failed + "; the device cannot be used in this process any more");
  throw Error(ErrorKind::device, failed);
}

void refuse_to_wait_in_capture(int device, const char* what) {
  if (capturing(device))
    refuse(std::string(what) + " has to wait for device " + std::to_string(device) +
           ", which cannot be part of the CUDA graph that is being captured; call it before or after the capture");
}

void use(const Driver& driver) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (driver.version != driver_version)
    refuse("the GPU library is of another version: " + std::to_string(driver.version) + ", expected " +
           std::to_string(driver_version));
  const Driver* before = in_use;
  if (before == &driver) return;
  if (before != nullptr) refuse("there is a driver in use already: " + std::string(before->name));
  static Cuda cuda;
  watch_forks([] { forked = true; });
  in_use = &driver;
  set_accelerator(&cuda);
}

bool load(const std::string& path, std::string& reason) {
  void* library = open_library(path);
  if (library == nullptr) {
    reason = why_not_opened(path);
    return false;
  }
  const auto get = reinterpret_cast<const Driver* (*)()>(find_symbol(library, "optimisers_cuda_driver"));
  if (get == nullptr) {
    reason = path + " is not the GPU library";
    return false;
  }
  const Driver* driver = get();
  if (driver->version != driver_version) {
    reason = path + " is of another version";
    return false;
  }
  char why[256] = "";
  if (driver->count(why, sizeof why) == 0) {
    reason = why;
    return false;
  }
  use(*driver);
  return true;
}

std::vector<Device> devices() {
  std::vector<Device> all;
  const Driver* d = in_use;
  if (d == nullptr) return all;
  char text[256];
  const int n = d->count(text, sizeof text);
  for (int i = 0; i < n; ++i) {
    Device device{};
    d->describe(i, text, sizeof text, &device.major, &device.minor, &device.memory);
    device.name = text;
    all.push_back(device);
  }
  return all;
}

std::string why_no_devices() {
  const Driver* d = in_use;
  if (d == nullptr) return "no driver is in use";
  char why[256] = "";
  return d->count(why, sizeof why) > 0 ? "" : why;
}

void* stream(int device) {
  const auto found = streams().find(device);
  return found == streams().end() ? nullptr : found->second;
}
void set_stream(int device, void* stream) { streams()[device] = stream; }

std::byte* allocate(int device, std::size_t bytes) {
  Buffer buffer(device, bytes);
  if (bytes > 0) check(driver_in_use().fill_now(device, buffer.data(), nullptr, bytes), device, "zeroing memory");
  return buffer.detach();
}

void release(int device, std::byte* memory) noexcept {
  if (const Driver* d = driver_or_null(); d != nullptr && memory != nullptr) d->release(device, memory);
}

void copy(std::byte* to, int to_device, const std::byte* from, int from_device, std::size_t bytes) {
  const int device = to_device == on_host ? from_device : to_device;
  const bool host = to_device == on_host || from_device == on_host;
  if (host || to_device != from_device) refuse_to_wait_in_capture(device, "copying");
  if (to_device != from_device && !host) {  // what the source's stream still writes
    const Driver& d = driver_in_use();
    check(d.wait(from_device, stream(from_device)), from_device, "copying");
  }
  check(driver_in_use().copy(device, stream(device), to, from, bytes, host), device, "copying");
}

void transfer(int device, std::span<const ArrayView> to, std::span<const ArrayView> from, bool add) {
  run_pairs(device, to, from, add ? PairOp::add : PairOp::copy, 0, 0);
}

void zero(int device, std::span<const ArrayView> arrays) { run_pairs(device, arrays, arrays, PairOp::zero, 0, 0); }

void wait(int device) {
  refuse_to_wait_in_capture(device, "this call");
  check(driver_in_use().wait(device, stream(device)), device, "waiting");
}

bool capturing(int device) { return driver_in_use().capturing(device, stream(device)); }

void follow(int device, void* stream, void* earlier) {
  check(driver_in_use().follow(device, stream, earlier), device, "ordering streams");
}

Mark::Mark(int device) {
  void* const here = stream(device);
  if (capturing(device)) return;  // what is captured has not been enqueued
  const Driver& d = driver_in_use();
  if (here != nullptr) {
    check(d.stream_id(device, here, &id_), device, "asking for a stream");
    check(d.record(device, here, &event_), device, "marking a stream");
  }
  device_ = device;
}

Mark::~Mark() {
  if (const Driver* d = driver_or_null(); d != nullptr && event_ != nullptr) d->release_event(device_, event_);
}

void Mark::precede(void* stream) const {
  if (device_ < 0) return;
  const Driver& d = driver_in_use();
  if (d.capturing(device_, stream)) return;
  if (event_ == nullptr) {
    if (stream != nullptr) follow(device_, stream, nullptr);
    return;
  }
  unsigned long long id = 0;
  if (stream != nullptr) check(d.stream_id(device_, stream, &id), device_, "asking for a stream");
  if (stream == nullptr || id != id_) check(d.await(device_, stream, event_), device_, "ordering streams");
}

int device_of(const void* memory) { return driver_in_use().device_of(memory); }

}  // namespace optimisers::inline OPT_ABI::cuda
