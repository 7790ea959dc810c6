// pairs_call.cpp: tables of pairs, and their launch.
#include "pairs_call.hpp"

#include <algorithm>
#include <cstring>

#include "arrays.hpp"
#include "kept.hpp"
#include "kernels/list.hpp"
#include "memory.hpp"
#include "optimisers/cuda.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {
constexpr std::int64_t pair_elements = 4096;  // of a block

// Memory in the order of a stream: given back behind the kernel that reads it, also where something fails.
class OnStream {
 public:
  OnStream(int device, std::size_t bytes) : device_(device), stream_(stream(device)) {
    data = static_cast<std::byte*>(obtain(
        device, bytes, [&](void** memory) { return driver_in_use().allocate_on(device, stream_, bytes, memory); }));
  }
  ~OnStream() {
    if (const Driver* d = driver_or_null()) d->release_on(device_, stream_, data);
  }
  OnStream(const OnStream&) = delete;
  std::byte* data;

 private:
  int device_;
  void* stream_;
};

// The tables of a stream's last launch of a kind: those of zero_grad or lerp_ in a training loop come again, and then
// nothing is allocated and nothing sent. Small ones: the host keeps them as well.
struct LastTables {
  int device;
  unsigned long long stream;  // its id: handles are used again
  PairOp op;
  Mirror tables;
};
constexpr std::size_t kept_bytes = std::size_t(1) << 20;

Kept<LastTables>& kept() {
  static auto& all = *new Kept<LastTables>(16);
  return all;
}

// Before anything is enqueued, since it may fail.
void load(int device) {
  load_senders(device);
  check(driver_in_use().load(device, kernel_number<Pairs>), device, "loading a kernel");
}

// `launch` gets the bytes' place on the device.
template <class F>
void with_tables(int device, PairOp op, const std::vector<std::byte>& bytes, F&& launch) {
  const Driver& driver = driver_in_use();
  void* on = stream(device);
  if (bytes.size() > kept_bytes || driver.capturing(device, on)) {
    load(device);
    const OnStream memory(device, bytes.size());
    send(device, on, memory.data, bytes.data(), bytes.size());
    return launch(memory.data);
  }
  unsigned long long id = 0;
  check(driver.stream_id(device, on, &id), device, "asking for a stream");
  std::unique_ptr<LastTables> last = kept().take(
      [&](const LastTables& known) { return known.device == device && known.stream == id && known.op == op; });
  if (last == nullptr) load(device);
  if (last == nullptr) last.reset(new LastTables{device, id, op, Mirror(device)});
  last->tables.set<std::byte>(bytes);
  last->tables.reserve();
  launch(last->tables.send(on));
  kept().put(std::move(last));
}
}  // namespace

void run_pairs(int device, std::span<const ArrayView> to, std::span<const ArrayView> from, PairOp op, double keep,
               double take) {
  std::vector<Axis> axes;
  std::vector<Pair2> pairs;
  std::vector<std::uint32_t> block_pair;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::int64_t size = size_of(to[i]);
    if (size == 0) continue;
    if (!is_trainable(to[i].dtype) && op != PairOp::zero && (op != PairOp::copy || to[i].dtype != from[i].dtype))
      refuse("an array of " + std::string(name_of(to[i].dtype)) + " on a device is copied and zeroed, no more");
    const DeviceArray target = device_array(to[i], axes), source = device_array(from[i], axes);
    const auto blocks = std::size_t((size + pair_elements - 1) / pair_elements);
    block_pair.insert(block_pair.end(), blocks, std::uint32_t(pairs.size()));
    pairs.push_back({target, source, size, std::uint32_t(block_pair.size() - blocks), 0});
  }
  if (pairs.empty()) return;
  // One piece of memory.
  const auto round = [](std::size_t bytes) { return (bytes + 15) / 16 * 16; };
  const std::size_t pair_bytes = round(pairs.size() * sizeof(Pair2)), axis_bytes = round(axes.size() * sizeof(Axis));
  std::vector<std::byte> bytes(pair_bytes + axis_bytes + round(block_pair.size() * sizeof(std::uint32_t)));
  std::memcpy(bytes.data(), pairs.data(), pairs.size() * sizeof(Pair2));
  if (!axes.empty()) std::memcpy(bytes.data() + pair_bytes, axes.data(), axes.size() * sizeof(Axis));
  std::memcpy(bytes.data() + pair_bytes + axis_bytes, block_pair.data(), block_pair.size() * sizeof(std::uint32_t));
  with_tables(device, op, bytes, [&](const std::byte* memory) {
    const PairTable table{.pairs = reinterpret_cast<const Pair2*>(memory),
                          .block_pair = reinterpret_cast<const std::uint32_t*>(memory + pair_bytes + axis_bytes),
                          .axes = reinterpret_cast<const Axis*>(memory + pair_bytes),
                          .elements = pair_elements,
                          .keep = keep,
                          .take = take,
                          .op = op};
    check(driver_in_use().launch(device, stream(device), kernel_number<Pairs>, &table, unsigned(block_pair.size())),
          device, "an elementwise kernel");
  });
}

}  // namespace optimisers::inline OPT_ABI::cuda
