// emulation.cpp: a driver without a GPU, for tests: device memory is host memory, a kernel is a loop
// (emulated_kernels.hpp), a stream runs at once or later (emulated_streams.hpp). Everything but the hardware is the
// same code, under any sanitizer.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include "driver.hpp"
#include "emulated_kernels.hpp"
#include "emulated_streams.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

constexpr int devices = 2;
constexpr std::size_t alignment = 256;

// Freed memory and sizes are checked; `limit` makes allocation fail where a test asks for it.
std::mutex mutex;
std::map<void*, std::size_t> blocks_of_memory;
std::size_t in_use = 0;

std::size_t limit() {
  const char* text = std::getenv("OPTIMISERS_EMULATED_MEMORY");
  return text ? std::strtoull(text, nullptr, 10) : std::size_t(1) << 34;
}

// What tests look at and ask for, by environment variables:
// OPTIMISERS_EMULATED_CALLS=FILE takes a line for each call that concerns a stream, or all of them as getting and
// giving back memory may: "await 0 0x50".
Status note(const char* what, int device, const void* stream) {
  if (const char* path = std::getenv("OPTIMISERS_EMULATED_CALLS"))
    if (std::FILE* file = std::fopen(path, "a")) {
      std::fprintf(file, "%s %d 0x%zx\n", what, device, reinterpret_cast<std::size_t>(stream));
      std::fclose(file);
    }
  return Status::ok;
}
// OPTIMISERS_EMULATED_DESTROYED=HANDLE: the stream is no more, and what is asked of it fails.
Status in_use_still(const void* stream) {
  const char* text = std::getenv("OPTIMISERS_EMULATED_DESTROYED");
  const bool gone = text != nullptr && std::strtoull(text, nullptr, 0) == reinterpret_cast<std::uintptr_t>(stream);
  return gone ? Status::failed : Status::ok;
}
// OPTIMISERS_EMULATED_FAILURE=sticky or failed makes launches fail; "failed:3" those after three more.
std::size_t launched = 0;
Status launch_fault() {
  const char* text = std::getenv("OPTIMISERS_EMULATED_FAILURE");
  if (text == nullptr) {
    launched = 0;
    return Status::ok;
  }
  const char* colon = std::strchr(text, ':');
  if (launched++ < (colon ? std::strtoull(colon + 1, nullptr, 10) : 0)) return Status::ok;
  return *text == 'f' ? Status::failed : Status::sticky;
}

template <class... K>
constexpr auto launches_of(std::tuple<K...>*) {
  return std::array<Work (*)(const void*, unsigned), sizeof...(K)>{launch_of<K>...};
}
template <class... K>
constexpr auto runs_of(std::tuple<K...>*) {
  return std::array<void (*)(const void*, unsigned), sizeof...(K)>{run_now<K>...};
}
const auto launches = launches_of(static_cast<Kernels*>(nullptr));
const auto runs = runs_of(static_cast<Kernels*>(nullptr));

// OPTIMISERS_EMULATED_IDLE, set from the start: kernels do not run, and what is left is the host's part
// (bench/gpu/host.py).
bool idle() {
  static const bool set = std::getenv("OPTIMISERS_EMULATED_IDLE") != nullptr;
  return set;
}

// OPTIMISERS_EMULATED_CAPTURE: a graph is being captured. What is enqueued runs all the same, unless it is "record".
std::string_view capture() {
  const char* text = std::getenv("OPTIMISERS_EMULATED_CAPTURE");
  return text == nullptr ? std::string_view() : text;
}
bool capturing() { return !capture().empty(); }
bool recording() { return capture() == "record"; }

void enqueue(int device, void* stream, Work work) {
  if (recording()) return streams::capture(device, stream, std::move(work));
  streams::enqueue(device, stream, std::move(work));
  streams::go_on();
}

// Some 64 MB of freed memory stays poisoned: what still reads it computes nonsense, what writes it is found.
constexpr int poison = 0xdb;
constexpr std::size_t kept_most = std::size_t(1) << 26;
std::deque<std::pair<std::byte*, std::size_t>> kept;
std::size_t kept_bytes = 0;

void look_at_freed_memory() {
  const std::lock_guard lock(mutex);
  for (const auto& [memory, bytes] : kept)
    if (std::any_of(memory, memory + bytes, [](std::byte b) { return b != std::byte(poison); })) {
      std::fprintf(stderr, "emulation: memory was written after it was freed\n");
      std::abort();
    }
}

void free_later(std::byte* memory, std::size_t bytes) {  // under the lock
  if (!streams::deferred()) return std::free(memory);
  std::memset(memory, poison, bytes);
  kept.emplace_back(memory, bytes);
  for (kept_bytes += bytes; kept_bytes > kept_most; kept.pop_front()) {
    kept_bytes -= kept.front().second;
    std::free(kept.front().first);
  }
}

struct EventHandle {
  const std::shared_ptr<streams::Event> event = std::make_shared<streams::Event>();
};

// Whose code is on the device. In a capture CUDA may refuse to bring it there.
std::array<std::atomic<bool>, kernel_count> loaded{};

Status allocate(int, std::size_t bytes, void** memory) {
  const std::lock_guard lock(mutex);
  if (in_use + bytes > limit()) return Status::no_memory;
  *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (*memory == nullptr) return Status::no_memory;
  std::memset(*memory, 0xa5, bytes);
  blocks_of_memory[*memory] = bytes;
  in_use += bytes;
  return Status::ok;
}
void release(int, void* memory) {
  const std::lock_guard lock(mutex);
  const auto found = blocks_of_memory.find(memory);
  if (found == blocks_of_memory.end()) std::abort();  // freed twice, or never allocated
  in_use -= found->second;
  free_later(static_cast<std::byte*>(memory), found->second);
  blocks_of_memory.erase(found);
}

const Driver emulated{
    .version = driver_version,
    .name = "emulation",
    .count = [](char*, std::size_t) { return devices; },
    .describe =
        [](int, char* name, std::size_t size, int* major, int* minor, std::size_t* memory) {
          std::snprintf(name, size, "emulated device");
          *major = *minor = 0;
          *memory = limit();
        },
    .processors = [](int) { return 2; },
    .allocate =
        [](int device, std::size_t bytes, void** memory) {
          note("allocate", device, nullptr);
          return allocate(device, bytes, memory);
        },
    .release =
        [](int device, void* memory) {
          note("free", device, nullptr);
          streams::drain();  // as CUDA does
          release(device, memory);
        },
    .allocate_on = [](int device, void*, std::size_t bytes, void** memory) { return allocate(device, bytes, memory); },
    .release_on =
        [](int device, void* stream, void* memory) {
          note("release", device, stream);
          if (recording()) streams::hold([=] { release(device, memory); });  // the graph keeps it for its replays
          else enqueue(device, stream, [=] { release(device, memory); });
          return Status::ok;
        },
    .allocate_shared = allocate,
    .release_shared = release,
    .free_memory = [](int) { return limit() - in_use; },
    .copy =
        [](int device, void* stream, void* to, const void* from, std::size_t bytes, bool host) {
          if (host) streams::drain(device, stream);
          const Work move = [=] { bytes > 0 ? std::memmove(to, from, bytes) : to; };
          if (host) move();
          else enqueue(device, stream, move);
          return note(host ? "copy, wait" : "copy", device, stream);
        },
    .launch =
        [](int device, void* stream, int kernel, const void* args, unsigned blocks) {
          if (const Status fault = launch_fault(); fault != Status::ok) return fault;
          if (!loaded[std::size_t(kernel)].exchange(true) && capturing()) return Status::failed;
          if (idle()) return Status::ok;
          if (streams::deferred() || recording()) enqueue(device, stream, launches[std::size_t(kernel)](args, blocks));
          else runs[std::size_t(kernel)](args, blocks);
          return note("launch", device, stream);
        },
    .load =
        [](int device, int kernel) {
          loaded[std::size_t(kernel)] = true;
          return note("load", device, nullptr);
        },
    .wait =
        [](int device, void* stream) {
          note("wait", device, stream);
          streams::drain(device, stream);
          return in_use_still(stream);
        },
    .capturing = [](int, void*) { return capturing(); },
    .fill_now =
        [](int, void* to, const void* from, std::size_t bytes) {
          if (bytes > 0 && from == nullptr) std::memset(to, 0, bytes);
          else if (bytes > 0) std::memcpy(to, from, bytes);
          return Status::ok;
        },
    .stream_id =
        [](int, void* stream, unsigned long long* id) {
          *id = reinterpret_cast<std::uintptr_t>(stream);
          return Status::ok;
        },
    .follow =
        [](int device, void* stream, void* earlier) {
          note("follow", device, stream);
          const auto event = std::make_shared<streams::Event>();
          streams::record(device, earlier, event);
          streams::await(device, stream, event);
          return in_use_still(earlier);
        },
    .record =
        [](int device, void* stream, void** event) {
          if (*event == nullptr) *event = new EventHandle;
          streams::record(device, stream, static_cast<EventHandle*>(*event)->event);
          return note("record", device, stream);
        },
    .await =
        [](int device, void* stream, void* event) {
          streams::await(device, stream, static_cast<EventHandle*>(event)->event);
          return note("await", device, stream);
        },
    .release_event = [](int, void* event) { delete static_cast<EventHandle*>(event); },
    // OPTIMISERS_EMULATED_GONE: no memory is known any more, as after its context was destroyed.
    .device_of = [](const void*) { return std::getenv("OPTIMISERS_EMULATED_GONE") ? -1 : 0; },
    .error_text = [](int) { return "emulated failure"; },
};

}  // namespace
}  // namespace optimisers::inline OPT_ABI::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::emulated;
}

// What tests tell the emulation: "finish" all that is deferred, "replay" or "forget" what was recorded.
extern "C" __attribute__((visibility("default"))) void optimisers_emulation(const char* what) {
  namespace cuda = optimisers::cuda;
  if (*what == 'r') cuda::streams::replay();
  else if (*what == 'f' && what[1] == 'o') cuda::streams::forget();
  else {
    cuda::streams::drain();
    cuda::look_at_freed_memory();
  }
}
