// arena.cpp: anonymous pages where there is mmap, aligned heap memory elsewhere, or what the program gives.
#include "memory/arena.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define OPTIMISERS_MMAP
#endif

namespace optimisers::inline OPT_ABI {
namespace {
constexpr std::size_t alignment = 64;
constexpr std::size_t huge_page = std::size_t(2) << 20;
// Arrays swept together must not start at the same offset within a page: their lines would compete for the same
// cache sets, and loads would wait for stores they only seem to overlap.
constexpr std::size_t stagger = 17 * alignment;
constexpr std::size_t stagger_period = 3;
constexpr std::size_t mapped_from = std::size_t(1) << 20;  // below, a mapping of its own wastes more than it saves
}  // namespace

Arena::Arena(std::size_t bytes, int index, std::pmr::memory_resource* memory) : bytes_(bytes), memory_(memory) {
  if (bytes == 0) return;
  const std::size_t offset = (1 + static_cast<std::size_t>(index) % stagger_period) * stagger;
  const std::size_t total = bytes + offset + alignment;
  if (memory_ != nullptr) {
    block_ = memory_->allocate(total, alignment);
    block_bytes_ = total;
    std::memset(block_, 0, total);
  }
#ifdef OPTIMISERS_MMAP
  if (memory_ == nullptr && bytes >= mapped_from) {
    block_bytes_ = (total + 2 * huge_page - 1) / huge_page * huge_page;
    block_ = mmap(nullptr, block_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block_ == MAP_FAILED) {
      block_ = nullptr;
      throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    madvise(block_, block_bytes_, MADV_HUGEPAGE);
#endif
  }
#endif
  if (block_ == nullptr) {
    block_bytes_ = 0;
    block_ = std::calloc(total, 1);
    if (block_ == nullptr) throw std::bad_alloc();
  }
  std::byte* start = static_cast<std::byte*>(block_) + offset;
  data_ = start + (alignment - reinterpret_cast<std::uintptr_t>(start) % alignment) % alignment;
}

Arena::~Arena() {
  if (release_ != nullptr) {
    release_(device_, data_);
    return;
  }
  if (memory_ != nullptr) {
    if (block_ != nullptr) memory_->deallocate(block_, block_bytes_, alignment);
    return;
  }
#ifdef OPTIMISERS_MMAP
  if (block_bytes_ != 0) {
    munmap(block_, block_bytes_);
    return;
  }
#endif
  std::free(block_);
}

}  // namespace optimisers::inline OPT_ABI
