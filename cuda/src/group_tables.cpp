// group_tables.cpp: fills the tables of a group, and launches its kernels.
#include "group_tables.hpp"

#include <algorithm>
#include <cstring>

#include "arrays.hpp"
#include "kernels/list.hpp"
#include "optimisers/cuda.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

// The position of a program among those that have kernels of their own.
template <class... R>
bool is_program(const Group& group, Fused<R...>*) {
  return group.stages.size() == sizeof...(R) && are<Use<R>...>(group.stages, 0);
}
template <class... P>
int find_program(const Group& group, std::tuple<P...>*) {
  int found = -1, i = 0;
  ((is_program(group, static_cast<P*>(nullptr)) ? found = i : 0, ++i), ...);
  return found;
}

template <Access A, class... P>
int fused_kernel(int program, std::tuple<P...>*) {
  constexpr int kernels[] = {kernel_number<Sweep<float, A, P>>...};
  return program < 0 ? -1 : kernels[program];
}

// By compute type and access; -1 where no leaf can need it.
template <template <class, Access> class Kernel>
int kernel_for(DType compute, Access access) {
  switch (access) {
    case Access::half:
      return kernel_number<Kernel<float, Access::half>>;
    case Access::bhalf:
      return kernel_number<Kernel<float, Access::bhalf>>;
    case Access::plain: {
      constexpr int of[] = {kernel_number<Kernel<float, Access::plain>>, kernel_number<Kernel<double, Access::plain>>,
                            kernel_number<Kernel<Complex<float>, Access::plain>>,
                            kernel_number<Kernel<Complex<double>, Access::plain>>};
      return of[compute_index(compute)];
    }
    default: {
      constexpr int of[] = {kernel_number<Kernel<float, Access::any>>, kernel_number<Kernel<double, Access::any>>,
                            kernel_number<Kernel<Complex<float>, Access::any>>,
                            kernel_number<Kernel<Complex<double>, Access::any>>};
      return of[compute_index(compute)];
    }
  }
}
int later_measure(DType compute) {
  constexpr int of[] = {kernel_number<LaterMeasure<float>>, kernel_number<LaterMeasure<double>>,
                        kernel_number<LaterMeasure<Complex<float>>>, kernel_number<LaterMeasure<Complex<double>>>};
  return of[compute_index(compute)];
}
template <class T, Access A>
using InterpretedSweep = Sweep<T, A, Interpreted>;

// Of a block: more takes longer at the end, where not all have work; with fewer their starts show. Measured on an H200,
// Adam at 10^8, of a copy's speed: 1024 85 %, 2048 95.3, 4096 96.3, 8192 94.7, 16384 93.4.
constexpr std::int64_t block_elements = 4096;

}  // namespace

GroupTables::GroupTables(const Group& group, int device, std::vector<LeafShape> leaves)
    : group_(group),
      device_(device),
      shapes_(std::move(leaves)),
      fused_(find_program(group, static_cast<CommonPrograms*>(nullptr))),
      call_table_(device),
      x_(device),
      dx_(device),
      out_(device),
      further_(device),
      axes_(device) {
  if (group.stages.size() > stage_limit || group.slots.size() > slot_limit || group.step_size > step_limit ||
      group.row_size > row_limit)
    refuse("setup: on a device a chain may have " + std::to_string(stage_limit) + " stages and " +
           std::to_string(slot_limit) + " state arrays, got " + std::to_string(group.stages.size()) + " and " +
           std::to_string(group.slots.size()));
  GroupTable& t = fixed_;
  t.elements = block_elements;
  std::vector<DeviceLeaf> table;
  std::vector<std::uint32_t> block_leaf, chunk_leaf;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const auto [size, offset] = shapes_[i];
    const auto blocks = std::uint32_t(std::max<std::int64_t>(1, (size + t.elements - 1) / t.elements));
    const auto chunks = std::uint32_t((size + norms::chunk - 1) / norms::chunk);
    table.push_back({size, offset, std::uint32_t(block_leaf.size()), blocks, std::uint32_t(chunk_leaf.size()), chunks});
    block_leaf.insert(block_leaf.end(), blocks, std::uint32_t(i));
    chunk_leaf.insert(chunk_leaf.end(), chunks, std::uint32_t(i));
  }
  blocks_ = unsigned(block_leaf.size());
  chunks_ = unsigned(chunk_leaf.size());
  const std::size_t n = shapes_.size();
  leaves_ = constant<DeviceLeaf>(device, table);
  block_leaf_ = constant<std::uint32_t>(device, block_leaf);
  rows_ = constant<std::byte>(device, std::vector<std::byte>(n * std::size_t(group.row_size)));
  const std::vector<std::uint32_t> zeros(n, 0);
  arrived_ = constant<std::uint32_t>(device, zeros);
  if (reduces()) {
    chunk_leaf_ = constant<std::uint32_t>(device, chunk_leaf);
    counted_ = constant<std::uint32_t>(device, zeros);
    sums_ = Buffer(device, chunks_ * sizeof(double));
    extremes_ = Buffer(device, chunks_ * sizeof(double));
    totals_ = constant<Total>(device, std::vector<Total>(n));
    norms_ = constant<double>(device, std::vector<double>(group.reducers.size() * n, no_norm));
  }
  t.leaves = leaves_.as<DeviceLeaf>();
  t.block_leaf = block_leaf_.as<std::uint32_t>();
  t.chunk_leaf = chunk_leaf_.as<std::uint32_t>();
  t.rows = rows_.data();
  t.arrived = arrived_.as<std::uint32_t>();
  t.norms = norms_.as<double>();
  t.master = group.masters.data();
  t.stage_count = std::int32_t(group.stages.size());
  t.row_size = group.row_size;
  t.leaf_count = std::int32_t(n);
  t.storage = group.storage;
  for (std::size_t k = 0; k < group.arenas.size(); ++k) t.slots[k] = group.arenas[k].data();
  for (std::size_t s = 0; s < group.stages.size(); ++s) {
    const Stage& stage = group.stages[s];
    if (stage.info->id < 0)
      refuse(std::string("setup: ") + stage.info->text.name +
             " is a rule of the program's own, which has no kernel for devices; keep its leaves on the host");
    const auto reducer = std::find(group.reducers.begin(), group.reducers.end(), int(s));
    t.stages[s] = {.rule = std::int16_t(stage.info->id),
                   .reducer = std::int16_t(reducer == group.reducers.end() ? -1 : reducer - group.reducers.begin()),
                   .first_slot = std::int16_t(stage.first_slot),
                   .clocks = std::int8_t(stage.info->clock_size),
                   .all_slots = stage.slot_count > stage.info->min_slots,
                   .gates = stage.info->gating(),
                   .rule_offset = stage.rule_offset,
                   .clock_offset = stage.clock_offset,
                   .step_offset = stage.step_offset};
  }
}

void GroupTables::load_rows(const std::byte* rows) {
  if (rows_.bytes() > 0) check(driver_in_use().fill_now(device_, rows_.data(), rows, rows_.bytes()), device_, "setup");
}

void GroupTables::send_rules(void* stream, std::span<const std::uint32_t> rows) {
  const auto row_size = std::size_t(group_.row_size);
  std::vector<std::byte> pieces;
  while (!rows.empty()) {
    std::size_t n = 1;
    while (n < rows.size() && rows[n] == rows[n - 1] + 1) ++n;
    for (const Stage& s : group_.stages) {
      const auto piece = std::size_t(s.clock_offset - s.rule_offset);
      pieces.resize(n * piece);
      if (piece == 0) continue;
      for (std::size_t i = 0; i < n; ++i)
        std::memcpy(pieces.data() + i * piece, group_.row(rows[i]) + s.rule_offset, piece);
      send_pieces(device_, stream, row(rows[0]) + s.rule_offset, row_size, pieces, piece);
    }
    rows = rows.subspan(n);
  }
}

void GroupTables::reserve(std::size_t axes) {
  const std::size_t n = shapes_.size();
  call_table_.reserve(n * sizeof(CallLeaf));
  for (Mirror* m : {&x_, &dx_}) m->reserve(n * sizeof(DeviceArray));
  further_.reserve(n * sizeof(FurtherArray));
  axes_.reserve(axes * sizeof(Axis));
}

void GroupTables::take_call(bool to_out) {
  const std::size_t n = shapes_.size();
  call_ = call_table_.values<CallLeaf>(n);
  x_array_ = x_.values<DeviceArray>(n);
  dx_array_ = dx_.values<DeviceArray>(n);
  if (to_out) out_array_ = out_.values<std::byte*>(n);
  std::fill(call_.begin(), call_.end(), CallLeaf{});
  std::fill(std::begin(accesses_), std::end(accesses_), false);
  if (to_out) std::fill(out_array_.begin(), out_array_.end(), nullptr);
  further_arrays_.clear();
  axis_list_.clear();
  to_out_ = to_out;
  empty_ = true;
}

void GroupTables::take(const CalledLeaf& leaf, std::span<const FurtherGradient> further) {
  DeviceArray& x = x_array_[leaf.index];
  DeviceArray& dx = dx_array_[leaf.index];
  if (leaf.x) x = device_array(*leaf.x, axis_list_);
  if (leaf.dx) dx = device_array(*leaf.dx, axis_list_);
  CallLeaf& call = call_[leaf.index];
  call.role = leaf.role;
  call.flush = leaf.flush;
  call.access = leaf.more >= 0 ? Access::any : access_of(group_.compute, leaf.x ? x : dx, leaf.dx ? &dx : nullptr);
  for (std::int32_t k = leaf.more; k >= 0; k = further[std::size_t(k)].more) {
    const auto at = std::int64_t(further_arrays_.size());
    if (k == leaf.more) call.more = std::int32_t(at);
    const std::int64_t next = further[std::size_t(k)].more >= 0 ? at + 1 : -1;
    further_arrays_.push_back({device_array(further[std::size_t(k)].dx, axis_list_), next});
  }
  if (to_out_) out_array_[leaf.index] = leaf.out;
  accesses_[int(call.access)] = true;
  empty_ = false;
}

void GroupTables::prepare() {
  if (empty_) return;
  further_.set<FurtherArray>(further_arrays_);
  axes_.set<Axis>(axis_list_);
  for (Mirror* m : {&call_table_, &x_, &dx_, &out_, &further_, &axes_}) m->reserve();
  for (int a = 0; a < access_count; ++a)
    if (accesses_[a]) load_kernels(Access(a));
}

void GroupTables::load_usual_kernels() {
  const DeviceArray array{nullptr, 0, 0, group_.storage, true, true};
  load_kernels(access_of(group_.compute, array, nullptr));
}

void GroupTables::load_kernels_of(const ArrayView& x) {
  std::vector<Axis> axes;
  load_kernels(access_of(group_.compute, device_array(x, axes), nullptr));
}

int GroupTables::sweep_kernel(Access access) const {
  auto* programs = static_cast<CommonPrograms*>(nullptr);
  if (group_.compute == DType::float32 && fused_ >= 0 && !to_out_) {
    if (access == Access::plain) return fused_kernel<Access::plain>(fused_, programs);
    if (access == Access::bhalf) return fused_kernel<Access::bhalf>(fused_, programs);
  }
  return kernel_for<InterpretedSweep>(group_.compute, access);
}

// What a call of this kind launches; before anything is enqueued, since it may fail, and cannot be captured.
void GroupTables::load_kernels(Access access) {
  bool& loaded = loaded_[to_out_][int(access)];
  if (loaded) return;
  load_senders(device_);
  std::vector<int> kernels{sweep_kernel(access)};
  if (reduces()) {
    kernels.push_back(kernel_for<FirstMeasure>(group_.compute, access));
    kernels.push_back(kernel_number<Combine>);
    if (group_.reducers.size() > 1 || group_.reducers[0] != 0) kernels.push_back(later_measure(group_.compute));
  }
  for (const int kernel : kernels) check(driver_in_use().load(device_, kernel), device_, "loading a kernel");
  loaded = true;
}

void GroupTables::begin(void* stream, bool capture) {
  const auto place = [&](Mirror& m) -> const std::byte* {
    if (!capture) return m.send(stream);
    captured_.push_back(m.frozen());
    return captured_.back().data();
  };
  at_ = {place(call_table_), place(x_), place(dx_), place(out_), place(further_), place(axes_)};
}

GroupTable GroupTables::table(const Verdict* verdict) const {
  GroupTable t = fixed_;
  t.call = reinterpret_cast<const CallLeaf*>(at_.call);
  t.x = reinterpret_cast<const DeviceArray*>(at_.x);
  t.dx = reinterpret_cast<const DeviceArray*>(at_.dx);
  t.out = to_out_ ? reinterpret_cast<std::byte* const*>(at_.out) : nullptr;
  t.further = reinterpret_cast<const FurtherArray*>(at_.further);
  t.axes = reinterpret_cast<const Axis*>(at_.axes);
  t.verdict = verdict;
  return t;
}

void GroupTables::measure(void* stream, const std::int8_t* at, bool first, bool later, bool powers) {
  if (chunks_ == 0) return;
  const bool needs_extremes = group_.real == 1 || powers;
  MeasureTable t{.group = table(nullptr),
                 .at = at,
                 .sums = sums_.as<double>(),
                 .extremes = needs_extremes ? extremes_.as<double>() : nullptr,
                 .counted = counted_.as<std::uint32_t>(),
                 .totals = totals_.as<Total>(),
                 .rescue = false};
  for (const bool rescue : {false, true}) {
    if (rescue && !needs_extremes) break;
    t.rescue = rescue;
    const auto launch = [&](int kernel) {
      check(driver_in_use().launch(device_, stream, kernel, &t, chunks_), device_, "measuring a norm");
    };
    if (first)
      for (int a = 0; a < access_count; ++a)
        if (accesses_[a]) launch(kernel_for<FirstMeasure>(group_.compute, Access(a)));
    if (later) launch(later_measure(group_.compute));
  }
}

void GroupTables::sweep(void* stream, const Verdict* verdict) {
  const GroupTable t = table(verdict);
  for (int a = 0; a < access_count; ++a) {
    if (!accesses_[a]) continue;
    check(driver_in_use().launch(device_, stream, sweep_kernel(Access(a)), &t, blocks_), device_, "an update");
  }
}

}  // namespace optimisers::inline OPT_ABI::cuda
