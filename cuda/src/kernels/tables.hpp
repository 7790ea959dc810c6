// tables.hpp: what the host tells kernels: plain structs that lie in device memory or travel as a kernel's argument.
#pragma once
#include <cstddef>
#include <cstdint>

#include "optimisers/dtype.hpp"
#include "plan/norm_terms.hpp"

namespace optimisers::inline OPT_ABI::cuda {

inline constexpr int stage_limit = 16, slot_limit = 32, row_limit = 1024, step_limit = 1024;
inline constexpr int sweep_threads = 256;
inline constexpr int combine_threads = norms::sum_lanes;

// One array of one leaf.
struct DeviceArray {
  std::byte* data;
  std::uint32_t axes;       // its first in the table of axes, innermost first
  std::uint8_t axis_count;  // 0: contiguous
  DType dtype;
  bool aligned;  // to its element type; complex numbers, which are read as one piece, as a whole
  bool wide;     // contiguous, and its start is aligned to 16 bytes
};
struct Axis {
  std::int64_t size, stride;  // stride in bytes
};

// What never changes about a leaf.
struct DeviceLeaf {
  std::int64_t size, offset;  // elements; offset in the arenas
  std::uint32_t first_block;  // of the blocks that sweep the group
  std::uint32_t blocks;
  std::uint32_t first_chunk;  // of the group's chunks, whose sums make norms
  std::uint32_t chunks;
};

// Which kernel reads and writes a leaf's arrays: contiguous ones of the compute type, contiguous 16-bit ones, or any.
enum class Access : std::uint8_t { plain, half, bhalf, any };
inline constexpr int access_count = 4;

enum class Role : std::uint8_t { absent, no_gradient, gradient };  // absent: frozen, or not in this call
struct CallLeaf {
  std::int32_t more = -1;  // further gradient, in the table of those
  Role role = Role::absent;
  Access access = Access::plain;
  bool flush = false;  // gating stages open on what they hold
  std::uint8_t unused = 0;
};
struct FurtherArray {
  DeviceArray dx;
  std::int64_t more;
};

struct StageTable {
  std::int16_t rule;     // index in AllRules
  std::int16_t reducer;  // how many stages before it measure; -1: it does not measure itself
  std::int16_t first_slot;
  std::int8_t clocks;                                   // doubles
  bool all_slots, gates;                                // it has its conditional slots
  std::int32_t rule_offset, clock_offset, step_offset;  // bytes
};

// How far the norms of a call have come.
struct Verdict {
  std::uint32_t refused;  // not 0: a norm was refused, and the call writes nothing
};
// Seen by the host: what was refused since it last looked. The next refusal may be written while it looks, so that what
// belongs together, a leaf and a stage of it, is written at once.
struct Report {
  std::uint64_t refusals;
  std::uint64_t place;  // leaf * stage_limit + stage
  double norm;
};

// All leaves of one group on one device. A kernel's argument: lies in constant memory.
struct GroupTable {
  const DeviceLeaf* leaves;
  const std::uint32_t* block_leaf;  // of each block of a sweep
  const std::uint32_t* chunk_leaf;  // of each block of a measurement
  const CallLeaf* call;
  const DeviceArray *x, *dx;
  std::byte* const* out;  // null: dx is subtracted from x
  const FurtherArray* further;
  const Axis* axes;
  std::byte* rows;
  std::uint32_t* arrived;  // blocks of each leaf that have read its clocks
  const double* norms;     // [reducer][leaf]
  const Verdict* verdict;  // null: nothing measures
  std::byte* master;       // null: no master copies
  std::int64_t elements;   // of a block
  std::int32_t stage_count, row_size, leaf_count;
  DType storage;
  std::byte* slots[slot_limit];
  StageTable stages[stage_limit];
};

// What a measurement found for one leaf.
struct Total {
  norms::Sum sum;
  double extreme;
  bool stopped;  // the leaf does not reach the stage in this call
  bool safe;
};

// One step of measuring: each leaf of the group at the stage that `at` gives.
struct MeasureTable {
  GroupTable group;
  const std::int8_t* at;   // reducer of each leaf; -1: not in this step
  double* sums;            // of each chunk
  double* extremes;        // likewise, where sums may leave the range of double; null: they cannot
  std::uint32_t* counted;  // chunks of each leaf that are done
  Total* totals;           // of each leaf
  bool rescue;             // second pass: leaves whose sum was not safe, scaled
};

// Leaves that come to their norms together: each to its own, or all to one.
struct Member {
  const Total* total;
  const std::byte* rule;
  double* norm;        // where the sweep looks for it
  std::int64_t size;   // elements
  std::uint32_t leaf;  // in the optimiser
  std::int16_t rule_index, stage;
};
struct CombineTable {
  const Member* members;            // in walk order
  const std::uint32_t* by_lane;     // the members of each lane of norm_terms.hpp, one lane after the other
  const std::uint32_t* lane_start;  // where each begins; one more than there are lanes
  std::uint32_t count;
  bool shared_norm;
  bool first;  // of the call
  Verdict* verdict;
  Report* report;
};

// Elementwise between pairs of arrays.
enum class PairOp : std::uint8_t { copy, add, lerp, zero };  // zero: of the first alone
struct Pair2 {
  DeviceArray to, from;
  std::int64_t size;
  std::uint32_t first_block, unused;
};
struct PairTable {
  const Pair2* pairs;
  const std::uint32_t* block_pair;
  const Axis* axes;
  std::int64_t elements;
  double keep, take;
  PairOp op;
};

struct FillTable {
  std::byte* to;
  std::int64_t count;
  double value;
  DType dtype;
};

// Bytes that travel with the launch itself: no staging memory to keep alive, and right in a captured graph. They go to
// pieces of memory that are so far apart. Sizes are in bytes, and multiples of 8.
template <int N>
struct SendTable {
  std::byte* to;
  std::uint32_t bytes;  // to write, in all pieces
  std::uint32_t piece, stride;
  std::uint32_t given;  // of data; where that is one piece, all get it
  alignas(16) std::byte data[N];
};
inline constexpr int send_small = 480, send_large = 16384;

}  // namespace optimisers::inline OPT_ABI::cuda
