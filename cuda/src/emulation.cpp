// emulation.cpp: a driver without a GPU, for tests: device memory is host memory, a kernel is a loop over its blocks,
// phases and threads. Everything but the hardware is the same code, under any sanitizer.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "driver.hpp"
#include "launch.hpp"

namespace optimisers::cuda {
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
// OPTIMISERS_EMULATED_CALLS=FILE takes a line for each call that concerns a stream: "await 0 0x50".
Status note(const char* what, int device, const void* stream) {
  if (const char* path = std::getenv("OPTIMISERS_EMULATED_CALLS"))
    if (std::FILE* file = std::fopen(path, "a")) {
      std::fprintf(file, "%s %d 0x%zx\n", what, device, reinterpret_cast<std::size_t>(stream));
      std::fclose(file);
    }
  return Status::ok;
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

template <class K, int... P>
void run_block(const typename K::Table& t, unsigned block, std::integer_sequence<int, P...>) {
  alignas(64) std::byte memory[sizeof(typename K::Shared)];
  std::memset(memory, 0xa5, sizeof memory);  // what is read before it is written is not zero by luck
  auto& shared = *reinterpret_cast<typename K::Shared*>(memory);
  const auto phase = [&]<int Phase>(std::integral_constant<int, Phase>) {
    for (int thread = 0; thread < K::threads; ++thread) K::template run<Phase>(t, shared, block, thread);
  };
  (phase(std::integral_constant<int, P>{}), ...);
}

template <class K>
struct Run {
  static int launch(const void* table, unsigned blocks, void*) {
    const auto& t = *static_cast<const typename K::Table*>(table);
    for (unsigned b = 0; b < blocks; ++b) run_block<K>(t, b, std::make_integer_sequence<int, K::phases>{});
    return 0;
  }
};
const auto table = launchers<Run>(static_cast<Kernels*>(nullptr));

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
  blocks_of_memory.erase(found);
  std::free(memory);
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
    .allocate = allocate,
    .release = release,
    .allocate_on = [](int device, void*, std::size_t bytes, void** memory) { return allocate(device, bytes, memory); },
    .release_on =
        [](int device, void* stream, void* memory) {
          note("release", device, stream);
          release(device, memory);
          return Status::ok;
        },
    .allocate_shared = allocate,
    .release_shared = release,
    .free_memory = [](int) { return limit() - in_use; },
    .copy =
        [](int device, void* stream, void* to, const void* from, std::size_t bytes, bool host) {
          if (bytes > 0) std::memmove(to, from, bytes);
          return note(host ? "copy, wait" : "copy", device, stream);
        },
    .launch =
        [](int device, void* stream, int kernel, const void* args, unsigned blocks) {
          if (const Status fault = launch_fault(); fault != Status::ok) return fault;
          table[std::size_t(kernel)](args, blocks, stream);
          return note("launch", device, stream);
        },
    .load = [](int device, int) { return note("load", device, nullptr); },
    .wait = [](int device, void* stream) { return note("wait", device, stream); },
    // OPTIMISERS_EMULATED_CAPTURE says so; kernels run all the same.
    .capturing = [](int, void*) { return std::getenv("OPTIMISERS_EMULATED_CAPTURE") != nullptr; },
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
    .follow = [](int device, void* stream, void*) { return note("follow", device, stream); },
    .record =
        [](int device, void* stream, void** event) {
          *event = &launched;  // there is one
          return note("record", device, stream);
        },
    .await = [](int device, void* stream, void*) { return note("await", device, stream); },
    .release_event = [](int, void*) {},
    // OPTIMISERS_EMULATED_GONE: no memory is known any more, as after its context was destroyed.
    .device_of = [](const void*) { return std::getenv("OPTIMISERS_EMULATED_GONE") ? -1 : 0; },
    .error_text = [](int) { return "emulated failure"; },
};

}  // namespace
}  // namespace optimisers::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::emulated;
}
