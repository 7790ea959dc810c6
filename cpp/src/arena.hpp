// arena.hpp: memory of one slot of one group: 64-byte aligned, zeroed lazily by the operating system where it can.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>

namespace optimisers {

class Arena {
 public:
  Arena() = default;
  // `index` staggers arenas that are swept together; without `memory` the operating system gives the pages.
  explicit Arena(std::size_t bytes, int index = 0, std::pmr::memory_resource* memory = nullptr);
  Arena(const Arena&) = delete;
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(block_bytes_, other.block_bytes_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
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
};

}  // namespace optimisers
