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
        [](int, char* name, std::size_t size, int* major, int* minor, std::size_t* memory, int* processors) {
          std::snprintf(name, size, "emulated device");
          *major = *minor = 0;
          *memory = limit();
          *processors = 2;
        },
    .allocate = allocate,
    .release = release,
    .allocate_on = [](int device, void*, std::size_t bytes, void** memory) { return allocate(device, bytes, memory); },
    .release_on =
        [](int device, void*, void* memory) {
          release(device, memory);
          return Status::ok;
        },
    .allocate_shared = allocate,
    .release_shared = release,
    .free_memory = [](int) { return limit() - in_use; },
    .zero =
        [](int, void*, void* memory, std::size_t bytes) {
          if (bytes > 0) std::memset(memory, 0, bytes);
          return Status::ok;
        },
    .copy =
        [](int, void*, void* to, const void* from, std::size_t bytes, bool) {
          if (bytes > 0) std::memmove(to, from, bytes);
          return Status::ok;
        },
    .launch =
        [](int, void* stream, int kernel, const void* args, unsigned blocks) {
          if (std::getenv("OPTIMISERS_EMULATED_FAILURE")) return Status::sticky;
          table[std::size_t(kernel)](args, blocks, stream);
          return Status::ok;
        },
    .wait = [](int, void*) { return Status::ok; },
    .capturing = [](int, void*) { return false; },
    .fill_now =
        [](int, void* to, const void* from, std::size_t bytes) {
          if (bytes > 0) std::memcpy(to, from, bytes);
          return Status::ok;
        },
    .follow = [](int, void*, void*) { return Status::ok; },
    .record = [](int, void*, void**) { return Status::ok; },
    .await = [](int, void*, void*) { return Status::ok; },
    .release_event = [](int, void*) {},
    .device_of = [](const void*) { return 0; },
    .error_text = [](int) { return "emulated failure"; },
};

}  // namespace
}  // namespace optimisers::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::emulated;
}
