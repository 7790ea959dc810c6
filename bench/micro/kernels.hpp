// kernels.hpp: what there is to time: groups of kernels that do the same work on the same arrays.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

// Arrays for one kernel after the other, each at its own offset within a page.
class Memory {
 public:
  explicit Memory(std::size_t bytes_each);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  static constexpr int count = 8;  // x, dx, out, then slots
  std::byte* array(int index) const { return arrays_[index]; }
  void* const* slots() const { return slots_; }
  std::size_t bytes_each() const { return bytes_; }
  // x = 1, dx = 0.01, slots = 1e-4, as float or double.
  void fill(bool doubles, std::size_t bytes);

 private:
  std::size_t bytes_;
  std::byte* block_;
  std::byte* arrays_[count];
  void* slots_[count - 3];
};

using Run = std::function<void(const Memory&, std::int64_t n)>;
struct Kernel {
  std::string level, of;  // of: the kernel itself, or "traffic"
  Run run;
};
struct Group {
  std::string kernel, form, type;
  int bytes;    // read and written, an element
  int largest;  // bytes an element takes in the largest array
  int arrays;
  bool doubles;
  std::vector<Kernel> kernels;
};

std::vector<Group> all_groups();

}  // namespace bench
