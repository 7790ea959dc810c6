// c_api.hpp: what the files of the C interface share: the handle, pointers checked, exceptions turned into status
// codes.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "api/failure.hpp"
#include "api/state_data.hpp"
#include "optimisers/optimisers.h"
#include "optimisers/optimisers.hpp"

namespace optimisers::inline OPT_ABI {

// The host's functions as a memory resource.
class HostMemory : public std::pmr::memory_resource {
 public:
  explicit HostMemory(const optimisers_memory& memory) : memory_(memory) {}

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* block = memory_.allocate(memory_.self, bytes, alignment);
    if (block == nullptr) throw std::bad_alloc();
    if (reinterpret_cast<std::uintptr_t>(block) % alignment == 0) return block;
    memory_.release(memory_.self, block, bytes, alignment);
    refuse("memory: allocate gave a block that is not aligned to the " + std::to_string(alignment) +
           " bytes asked for");
  }
  void do_deallocate(void* block, std::size_t bytes, std::size_t alignment) override {
    memory_.release(memory_.self, block, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
  optimisers_memory memory_;
};

}  // namespace optimisers::inline OPT_ABI

struct optimisers_state {
  std::shared_ptr<optimisers::HostMemory> memory;  // outlives the state
  optimisers::State state;
};

namespace optimisers::inline OPT_ABI {

// Keeps it as this thread's last failure, in the words of C: `call` is the function's name.
optimisers_status failed(const char* call, const Failure& failure) noexcept;

template <class F>
optimisers_status guarded(const char* call, F&& f) noexcept {
  const Result<> result = attempt(f);
  return result ? OPTIMISERS_OK : failed(call, result.error());
}

template <class T>
T& required(T* pointer, const char* what) {
  if (pointer == nullptr) refuse(std::string(what) + " is NULL");
  return *pointer;
}

// Structures of the caller's are as large as its header knew them, and no smaller than their first version.
template <class T>
void check_struct_size(const T& given, const char* what, std::size_t first_version) {
  if (given.struct_size < first_version)
    refuse(std::string(what) + ": struct_size is " + std::to_string(given.struct_size) +
           ", set it to sizeof of the structure");
}
// What was added since is not written.
template <class T>
void give(T& to, const char* what, std::size_t first_version, T value) {
  check_struct_size(to, what, first_version);
  value.struct_size = to.struct_size;
  std::memcpy(&to, &value, std::min(value.struct_size, sizeof value));
}

// One interface for reading and writing: constness of a state does not reach into Leaf handles.
inline State& state_of(const optimisers_state* handle) {
  return const_cast<optimisers_state&>(required(handle, "state")).state;
}
Leaf leaf_of(const optimisers_state* handle, std::int64_t leaf);

std::vector<AnySpan> spans_of(const optimisers_array* arrays, std::size_t count, bool may_be_missing);

}  // namespace optimisers::inline OPT_ABI
