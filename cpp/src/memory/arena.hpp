// arena.hpp: memory of one slot of one group: 64-byte aligned, zeroed lazily by the operating system where it can.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

class Arena {
 public:
  Arena() = default;
  // `index` staggers arenas that are swept together; without `memory` the operating system gives the pages.
  explicit Arena(std::size_t bytes, int index = 0, std::pmr::memory_resource* memory = nullptr);
  // Memory that somebody else gave, and how it is given back.
  using Release = void (*)(int device, std::byte* data);
  Arena(std::byte* data, std::size_t bytes, int device, Release release)
      : data_(data), bytes_(bytes), device_(device), release_(release) {}
  Arena(const Arena&) = delete;
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(block_bytes_, other.block_bytes_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
    std::swap(device_, other.device_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Arena();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* block_ = nullptr;
  std::size_t block_bytes_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::pmr::memory_resource* memory_ = nullptr;
  int device_ = -1;
  Release release_ = nullptr;
};

}  // namespace optimisers::inline OPT_ABI
