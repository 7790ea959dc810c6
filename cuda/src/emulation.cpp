// emulation.cpp: a driver without a GPU, for tests: device memory is host memory, a kernel is a loop over its blocks,
// phases and threads, or many blocks at once in any order. Everything but the hardware is the same code, under any
// sanitizer.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "driver.hpp"
#include "launch.hpp"

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

// A block under way: its shared memory, and how far its threads are.
template <class K>
struct Block {
  explicit Block(unsigned n) : number(n) {
    std::memset(memory, 0xa5, sizeof memory);  // what is read before it is written is not zero by luck
  }
  alignas(64) std::byte memory[sizeof(typename K::Shared)];
  unsigned number;
  int phase = 0, done = 0;  // threads that are through the phase
  int first = 0, stride = 1;

  // Some threads go on, none past the end of the phase.
  void run(const typename K::Table& t, int count) {
    run_in(t, std::min(count, K::threads - done), std::make_integer_sequence<int, K::phases>{});
    if (done < K::threads) return;
    ++phase;
    done = 0;
  }

 private:
  template <int... P>
  void run_in(const typename K::Table& t, int count, std::integer_sequence<int, P...>) {
    static_assert((K::threads & (K::threads - 1)) == 0);  // so that any odd stride comes to every thread
    auto& shared = *reinterpret_cast<typename K::Shared*>(memory);
    const auto in = [&]<int Phase>(std::integral_constant<int, Phase>) {
      for (const int end = done + count; done < end; ++done)
        K::template run<Phase>(t, shared, number, (first + done * stride) & (K::threads - 1));
    };
    ((phase == P ? in(std::integral_constant<int, P>{}) : void()), ...);
  }
};

// OPTIMISERS_EMULATED_ORDER=NUMBER: not block after block and thread after thread, but many blocks at once, a few
// threads of one and then of another, in an order drawn from the number: as the hardware may, in steps of a thread's
// phase. Barriers that are missing, and blocks that do not wait for each other where they must, show in the results.
template <class K>
void run_in_any_order(const typename K::Table& t, unsigned blocks, unsigned number) {
  constexpr std::size_t at_once = 16;
  static std::atomic<unsigned> launches{0};
  std::mt19937 random(number + 1000003u * launches.fetch_add(1));
  const auto below = [&](std::size_t n) { return int(random() % n); };
  std::vector<std::unique_ptr<Block<K>>> under_way;
  for (unsigned next = 0; next < blocks || !under_way.empty();) {
    if (next < blocks && (under_way.empty() || (under_way.size() < at_once && below(2) == 0)))
      under_way.push_back(std::make_unique<Block<K>>(next++));
    const auto chosen = under_way.begin() + below(under_way.size());
    Block<K>& block = **chosen;
    if (block.done == 0) {
      block.first = below(K::threads);
      block.stride = 2 * below(K::threads) + 1;
    }
    block.run(t, 1 + below(K::threads));
    if (block.phase == K::phases) under_way.erase(chosen);
  }
}

template <class K>
struct Run {
  static int launch(const void* table, unsigned blocks, void*) {
    const auto& t = *static_cast<const typename K::Table*>(table);
    if (const char* order = std::getenv("OPTIMISERS_EMULATED_ORDER")) {
      run_in_any_order<K>(t, blocks, unsigned(std::strtoul(order, nullptr, 10)));
      return 0;
    }
    for (unsigned b = 0; b < blocks; ++b)
      for (Block<K> block(b); block.phase < K::phases;) block.run(t, K::threads);
    return 0;
  }
};
const auto table = launchers<Run>(static_cast<Kernels*>(nullptr));

// OPTIMISERS_EMULATED_IDLE, set from the start: kernels do not run, and what is left is the host's part
// (bench/gpu/host.py).
bool idle() {
  static const bool set = std::getenv("OPTIMISERS_EMULATED_IDLE") != nullptr;
  return set;
}

bool capturing() { return std::getenv("OPTIMISERS_EMULATED_CAPTURE") != nullptr; }

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
    .allocate =
        [](int device, std::size_t bytes, void** memory) {
          note("allocate", device, nullptr);
          return allocate(device, bytes, memory);
        },
    .release =
        [](int device, void* memory) {
          note("free", device, nullptr);
          release(device, memory);
        },
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
          if (!loaded[std::size_t(kernel)].exchange(true) && capturing()) return Status::failed;
          if (idle()) return Status::ok;
          table[std::size_t(kernel)](args, blocks, stream);
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
          return in_use_still(stream);
        },
    // OPTIMISERS_EMULATED_CAPTURE says so; kernels run all the same.
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
          return in_use_still(earlier);
        },
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
}  // namespace optimisers::inline OPT_ABI::cuda

extern "C" __attribute__((visibility("default"))) const optimisers::cuda::Driver* optimisers_cuda_driver() {
  return &optimisers::cuda::emulated;
}
