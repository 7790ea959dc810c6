// memory.cpp: owners of device memory, and tables on their way there.
#include "memory.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>

#include "kernels/list.hpp"
#include "optimisers/cuda.hpp"
#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI::cuda {

namespace {

std::mutex neighbours_mutex;
Neighbours neighbours;

Neighbours all_neighbours() {
  const std::lock_guard lock(neighbours_mutex);
  return neighbours;
}

[[noreturn]] void throw_no_memory(int device, std::size_t bytes) {
  const Driver& d = driver_in_use();
  std::string text = "out of memory on device " + std::to_string(device) + ": " + std::to_string(bytes) +
                     " bytes asked for, " + std::to_string(d.free_memory(device)) + " free of ";
  char name[256];
  int major = 0, minor = 0;
  std::size_t total = 0;
  d.describe(device, name, sizeof name, &major, &minor, &total);
  text += std::to_string(total);
  if (const Neighbours all = all_neighbours(); all.held != nullptr)
    if (const std::string held = all.held(device); !held.empty()) text += "; in this process " + held;
  throw Error(ErrorKind::memory, text + "; nothing was changed");
}

}  // namespace

void set_neighbours(const Neighbours& all) {
  const std::lock_guard lock(neighbours_mutex);
  neighbours = all;
}

// Libraries keep memory that nobody uses, and a part of a capture may not give it back.
void* obtain(int device, std::size_t bytes, const std::function<Status(void** memory)>& ask) {
  void* memory = nullptr;
  Status status = ask(&memory);
  const Neighbours all = all_neighbours();
  if (status == Status::no_memory && all.give_back != nullptr && !capturing(device)) {
    all.give_back(device);
    status = ask(&memory);
  }
  if (status == Status::no_memory) throw_no_memory(device, bytes);
  check(status, device, "allocating memory");
  return memory;
}

Buffer::Buffer(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  data_ = static_cast<std::byte*>(
      obtain(device, bytes, [&](void** memory) { return driver_in_use().allocate(device, bytes, memory); }));
}

Buffer::~Buffer() {
  if (data_ != nullptr) cuda::release(device_, data_);
}

void load_senders(int device) {
  for (const int kernel : {kernel_number<Send<send_small>>, kernel_number<Send<send_large>>})
    check(driver_in_use().load(device, kernel), device, "loading a kernel");
}

namespace {

template <int N>
void launch_send(int device, void* stream, std::byte* to, std::size_t stride, std::span<const std::byte> data,
                 std::size_t piece, std::size_t bytes) {
  SendTable<N> table;
  table.to = to;
  table.bytes = std::uint32_t(bytes);
  table.piece = std::uint32_t(piece);
  table.stride = std::uint32_t(stride);
  table.given = std::uint32_t(data.size());
  std::memcpy(table.data, data.data(), data.size());
  const auto blocks = unsigned((bytes / 8 + Send<N>::words - 1) / Send<N>::words);
  check(driver_in_use().launch(device, stream, kernel_number<Send<N>>, &table, blocks), device, "sending a table");
}

void launch_send(int device, void* stream, std::byte* to, std::size_t stride, std::span<const std::byte> data,
                 std::size_t piece, std::size_t bytes) {
  if (data.size() <= send_small) launch_send<send_small>(device, stream, to, stride, data, piece, bytes);
  else launch_send<send_large>(device, stream, to, stride, data, piece, bytes);
}

bool all_equal(std::span<const std::byte> pieces, std::size_t piece) {
  return std::equal(pieces.begin() + std::ptrdiff_t(piece), pieces.end(), pieces.begin());
}

}  // namespace

void send(int device, void* stream, std::byte* to, const std::byte* from, std::size_t bytes) {
  while (bytes > 0) {
    const std::size_t n = std::min<std::size_t>(bytes, send_large);
    launch_send(device, stream, to, 0, {from, n}, n, n);
    to += n;
    from += n;
    bytes -= n;
  }
}

void send_pieces(int device, void* stream, std::byte* to, std::size_t stride, std::span<const std::byte> pieces,
                 std::size_t piece) {
  if (pieces.empty()) return;
  if (all_equal(pieces, piece))
    return launch_send(device, stream, to, stride, pieces.first(piece), piece, pieces.size());
  for (const std::size_t most = send_large / piece; !pieces.empty(); to += most * stride) {
    const std::size_t n = std::min(pieces.size(), most * piece);
    launch_send(device, stream, to, stride, pieces.first(n), piece, n);
    pieces = pieces.subspan(n);
  }
}

void Mirror::reserve(std::size_t bytes) {
  bytes = std::max(bytes, wanted_.size());
  if (memory_.bytes() >= bytes) return;
  memory_ = Buffer(device_, bytes);
  sent_.clear();
}

const std::byte* Mirror::send(void* stream) {
  if (wanted_.empty()) return memory_.data();
  if (sent_.size() >= wanted_.size() && std::memcmp(sent_.data(), wanted_.data(), wanted_.size()) == 0)
    return memory_.data();
  const std::size_t known = std::min(sent_.size(), wanted_.size());
  const auto words = [](const std::vector<std::byte>& v) { return reinterpret_cast<const std::uint64_t*>(v.data()); };
  std::size_t first = 0, last = wanted_.size() / 8;
  while (first < known / 8 && words(wanted_)[first] == words(sent_)[first]) ++first;
  if (sent_.size() >= wanted_.size())
    while (last > first && words(wanted_)[last - 1] == words(sent_)[last - 1]) --last;
  if (first < last) {
    cuda::send(device_, stream, memory_.data() + first * 8, wanted_.data() + first * 8, (last - first) * 8);
    if (sent_.size() < wanted_.size()) sent_.resize(wanted_.size());
    std::copy(wanted_.begin() + std::ptrdiff_t(first * 8), wanted_.begin() + std::ptrdiff_t(last * 8),
              sent_.begin() + std::ptrdiff_t(first * 8));
  }
  return memory_.data();
}

Buffer Mirror::frozen() const { return constant<std::byte>(device_, wanted_); }

}  // namespace optimisers::inline OPT_ABI::cuda
