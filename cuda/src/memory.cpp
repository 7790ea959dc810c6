// memory.cpp: owners of device memory, and tables on their way there.
#include "memory.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernel_list.hpp"
#include "optimisers/cuda.hpp"
#include "optimisers/error.hpp"

namespace optimisers::cuda {

void throw_no_memory(int device, std::size_t bytes) {
  throw Error(ErrorKind::memory, "out of memory on device " + std::to_string(device) + ": " + std::to_string(bytes) +
                                     " bytes asked for, " + std::to_string(driver_in_use().free_memory(device)) +
                                     " free; nothing was changed");
}

Buffer::Buffer(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  const Status status = driver_in_use().allocate(device, bytes, &memory);
  if (status == Status::no_memory) throw_no_memory(device, bytes);
  check(status, device, "allocating memory");
  data_ = static_cast<std::byte*>(memory);
}

Buffer::~Buffer() {
  if (data_ != nullptr) cuda::release(device_, data_);
}

void load_senders(int device) {
  for (const int kernel : {kernel_number<Send<send_small>>, kernel_number<Send<send_large>>})
    check(driver_in_use().load(device, kernel), device, "loading a kernel");
}

void send(int device, void* stream, std::byte* to, const std::byte* from, std::size_t bytes) {
  const auto launch = [&]<int N>(std::integral_constant<int, N>, std::size_t n) {
    SendTable<N> table;
    table.to = to;
    table.bytes = std::uint32_t(n);
    std::memcpy(table.data, from, n);
    check(driver_in_use().launch(device, stream, kernel_number<Send<N>>, &table, 1), device, "sending a table");
  };
  while (bytes > 0) {
    const std::size_t n = std::min<std::size_t>(bytes, send_large);
    if (n <= send_small) launch(std::integral_constant<int, send_small>{}, n);
    else launch(std::integral_constant<int, send_large>{}, n);
    to += n;
    from += n;
    bytes -= n;
  }
}

void Mirror::reserve() {
  if (memory_.bytes() >= wanted_.size()) return;
  memory_ = Buffer(device_, wanted_.size());
  sent_.clear();
}

const std::byte* Mirror::send(void* stream) {
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

}  // namespace optimisers::cuda
