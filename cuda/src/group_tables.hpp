// group_tables.hpp: one group on one device: what its kernels read, and the launches over it.
#pragma once
#include <span>
#include <vector>

#include "memory.hpp"
#include "optimisers/optimiser.hpp"
#include "plan/group.hpp"

namespace optimisers::inline OPT_ABI::cuda {

inline constexpr double no_norm = -1;  // what stands in a norm's place before one was measured

// A leaf as a call has it.
struct CalledLeaf {
  std::uint32_t index;  // row in the group
  Role role;
  const ArrayView* x;   // null: none is read or written (norms)
  const ArrayView* dx;  // null: missing
  std::int32_t more = -1;
  std::byte* out = nullptr;
  bool flush = false;
};

class GroupTables {
 public:
  struct LeafShape {
    std::int64_t size, offset;  // elements; place in the arenas
  };
  GroupTables(const Group& group, int device, std::vector<LeafShape> leaves);

  const Group& group() const { return group_; }
  bool reduces() const { return !group_.reducers.empty(); }
  std::byte* row(std::uint32_t index) const { return rows_.data() + std::size_t(index) * std::size_t(group_.row_size); }
  void load_rows(const std::byte* rows);  // all of them, now
  // The rules of these rows as the group has them; clocks stay. One launch or a few for rows that follow one another.
  void send_rules(void* stream, std::span<const std::uint32_t> rows);
  std::int64_t size(std::uint32_t index) const { return shapes_[index].size; }

  // Room for calls whose leaves have at most one further gradient each, and so many axes together.
  void reserve(std::size_t axes);
  // What leaves as they usually are need, and one like this: bringing a kernel's code to the device may wait for it.
  void load_usual_kernels();
  void load_kernels_of(const ArrayView& x);

  // A call is taken down: begun, leaf by leaf, and room made for its tables. Throws before anything is enqueued.
  void take_call(bool to_out);
  void take(const CalledLeaf& leaf, std::span<const FurtherGradient> further);
  void prepare();
  bool empty() const { return empty_; }
  // Sends what has changed; with `capture`, into tables of their own that are kept.
  void begin(void* stream, bool capture);
  // One step of measuring: `at` gives each leaf's reducer, -1 for none; some of them are the first stage (`first`),
  // some have stages before them (`later`). With double
  // elements, and sums of `powers`, the range of double may not do.
  void measure(void* stream, const std::int8_t* at, bool first, bool later, bool powers);
  void sweep(void* stream, const Verdict* verdict);

  const Total* total(std::uint32_t index) const { return totals_.as<Total>() + index; }
  double* norm(int reducer, std::uint32_t index) const {
    return norms_.as<double>() + std::size_t(reducer) * shapes_.size() + index;
  }

 private:
  GroupTable table(const Verdict* verdict) const;
  int sweep_kernel(Access access) const;
  void load_kernels(Access access);

  const Group& group_;
  int device_;
  std::vector<LeafShape> shapes_;
  GroupTable fixed_{};
  int fused_;  // kernels of its own: position in CommonPrograms, -1 for none
  unsigned blocks_ = 0, chunks_ = 0;
  Buffer leaves_, block_leaf_, chunk_leaf_, rows_, arrived_, counted_, sums_, extremes_, totals_, norms_;

  bool empty_ = true, to_out_ = false, accesses_[access_count] = {}, loaded_[2][access_count] = {};
  Mirror call_table_, x_, dx_, out_, further_, axes_;
  std::span<CallLeaf> call_;  // in these tables
  std::span<DeviceArray> x_array_, dx_array_;
  std::span<std::byte*> out_array_;
  std::vector<FurtherArray> further_arrays_;
  std::vector<Axis> axis_list_;
  struct Places {
    const std::byte *call, *x, *dx, *out, *further, *axes;
  } at_{};
  std::vector<Buffer> captured_;
};

}  // namespace optimisers::inline OPT_ABI::cuda
