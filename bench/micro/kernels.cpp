// kernels.cpp: the groups, from the rule registry and the kernel tables: nothing here names a rule.
#include "kernels.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "cpu/kernels.hpp"
#include "optimisers/registry.hpp"
#include "traffic.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bench {
#ifdef BENCH_X86_LEVELS
extern const TrafficTable traffic_v2, traffic_v3, traffic_v4;
#else
extern const TrafficTable traffic_baseline;
#endif

using namespace optimisers;
using cpu::KernelTable;

Memory::Memory(std::size_t bytes_each) : bytes_(bytes_each) {
  constexpr std::size_t huge_page = std::size_t(2) << 20, stagger = 17 * 64;
  const std::size_t each = (bytes_each + 63) / 64 * 64 + stagger;
  const std::size_t total = (each * count + huge_page - 1) / huge_page * huge_page;
  block_ = static_cast<std::byte*>(std::aligned_alloc(huge_page, total));
  if (block_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  madvise(block_, total, MADV_HUGEPAGE);
#endif
  std::memset(block_, 0, total);
  for (int i = 0; i < count; ++i) arrays_[i] = block_ + each * std::size_t(i);
  for (int i = 3; i < count; ++i) slots_[i - 3] = arrays_[i];
}
Memory::~Memory() { std::free(block_); }

template <class F>
static void fill_array(std::byte* a, std::size_t bytes, double value) {
  std::fill_n(reinterpret_cast<F*>(a), bytes / sizeof(F), F(value));
}

void Memory::fill(bool doubles, std::size_t bytes) {
  for (int i = 0; i < count; ++i) {
    const double value = i == 0 ? 1 : i == 1 ? 0.01 : i == 2 ? 0 : 1e-4;
    doubles ? fill_array<double>(arrays_[i], bytes, value) : fill_array<float>(arrays_[i], bytes, value);
  }
}

namespace {

const TrafficTable& traffic_of([[maybe_unused]] std::string_view level) {
#ifdef BENCH_X86_LEVELS
  return level == "v4" ? traffic_v4 : level == "v3" ? traffic_v3 : traffic_v2;
#else
  return traffic_baseline;
#endif
}

constexpr DType compute_types[] = {DType::float32, DType::float64, DType::complex64, DType::complex128};
std::string name(DType d) { return std::string(name_of(d)); }

// The scalars of a late step (the first ones of RAdam are cheaper); hyperparameters without a default get 2.
using Steps = std::vector<std::byte>;
void append_step(Steps& steps, const RuleInfo& info, int real) {
  RuleValue rule(info);
  for (const FieldInfo& f : info.fields)
    if (f.kind == FieldKind::count) rule.set(f, 2.0);
  alignas(8) std::byte step[96] = {};
  auto clock = info.clock_start;
  for (int t = 0; t < 100; ++t) info.tick[real](rule.data(), clock.data(), step);
  if (info.reducing()) info.finish[real](rule.data(), step, 20.0);
  steps.insert(steps.end(), step, step + (info.step_size[std::size_t(real)] + 7) / 8 * 8);
}

Run stage_run(StageFn f, Steps steps) {
  const auto shared = std::make_shared<const Steps>(std::move(steps));
  return [f, shared](const Memory& m, std::int64_t n) {
    f(shared->data(), m.array(0), m.array(1), m.array(2), m.slots(), n);
  };
}

int slot_bytes(const RuleInfo& info, int slots, DType type) {
  int bytes = 0;
  for (int i = 0; i < slots; ++i) bytes += size_of(info.slots[std::size_t(i)].real ? real_dtype(type) : type);
  return bytes;
}

// One rule in one compute type: the last stage of a pass subtracts from x, a middle one writes dx.
void add_rule(std::vector<Group>& groups, const RuleInfo& info, int variant, int compute) {
  const DType type = compute_types[compute];
  const int size = size_of(type), slots = variant == 0 ? info.min_slots : int(info.slots.size());
  std::string title = info.text.name;
  if (variant == 1) title += " with " + std::string(info.slots.back().name);
  Steps steps;
  append_step(steps, info, compute % 2);
  for (bool last : {true, false}) {
    Group g{title,     last ? "last" : "middle", name(type), 3 * size + 2 * slot_bytes(info, slots, type), size,
            2 + slots, compute % 2 == 1,         {}};
    for (const KernelTable* t : cpu::runnable_kernels()) {
      const auto pick = [&](const auto& table) {
        const StageKernels& k = table.stage[info.id][variant][compute];
        return last ? k.last : k.middle;
      };
      if (pick(*t) == nullptr) continue;
      g.kernels.push_back({t->level, "kernel", stage_run(pick(*t), steps)});
      g.kernels.push_back({t->level, "traffic", stage_run(pick(traffic_of(t->level)), Steps(16))});
    }
    if (!g.kernels.empty()) groups.push_back(std::move(g));
  }
}

// A common chain as one kernel, and stage by stage as a chain that is not common would run.
template <class... R>
void add_chain(std::vector<Group>& groups, int chain, int compute, cpu::ChainOf<R...>*) {
  const DType type = compute_types[compute];
  std::vector<const RuleInfo*> infos{find_rule(R::text.name)...};
  std::string title;
  Steps steps;
  std::vector<Steps> single;
  int bytes = 3 * size_of(type), slots = 0;
  for (const RuleInfo* info : infos) {
    if (!title.empty()) title += ' ';
    title += info->text.name;
    append_step(steps, *info, compute % 2);
    append_step(single.emplace_back(), *info, compute % 2);
    bytes += 2 * slot_bytes(*info, info->min_slots, type);
    slots += info->min_slots;
  }
  Group g{title, "chain", name(type), bytes, size_of(type), 2 + slots, compute % 2 == 1, {}};
  for (const KernelTable* t : cpu::runnable_kernels()) {
    g.kernels.push_back({t->level, "kernel", stage_run(t->chain[chain][compute].last, steps)});
    g.kernels.push_back({t->level, "stages", [=](const Memory& m, std::int64_t n) {
                           const void* dx = m.array(1);
                           int slot = 0;
                           for (std::size_t i = 0; i < infos.size(); ++i) {
                             const StageKernels& k = t->stage[infos[i]->id][0][compute];
                             (i + 1 == infos.size() ? k.last : k.middle)(single[i].data(), m.array(0), dx, m.array(2),
                                                                         m.slots() + slot, n);
                             dx = m.array(2);
                             slot += infos[i]->min_slots;
                           }
                         }});
  }
  groups.push_back(std::move(g));
}

template <class... C>
void add_chains(std::vector<Group>& groups, std::tuple<C...>*) {
  for (int compute = 0; compute < cpu::real_compute_count; ++compute) {
    int chain = 0;
    (add_chain(groups, chain++, compute, static_cast<C*>(nullptr)), ...);
  }
}

void add_norms(std::vector<Group>& groups) {
  constexpr const char* names[norms::measure_count] = {"sum of squares", "sum of |dx|", "sum of |dx|^p", "largest |dx|",
                                                       "smallest |dx|"};
  for (int measure = 0; measure < norms::measure_count; ++measure)
    for (int compute = 0; compute < compute_count; ++compute) {
      const int size = size_of(compute_types[compute]);
      Group g{names[measure], "norm", name(compute_types[compute]), size, size, 1, compute % 2 == 1, {}};
      for (const KernelTable* t : cpu::runnable_kernels())
        g.kernels.push_back({t->level, "kernel", [f = t->measure[compute][measure]](const Memory& m, std::int64_t n) {
                               double lane[norms::lanes] = {};
                               f(lane, m.array(1), {.inverse_scale = 1, .p = 3}, n);
                             }});
      groups.push_back(std::move(g));
    }
}

void add_conversions(std::vector<Group>& groups) {
  constexpr DType stored[cpu::real_dtypes] = {DType::float16, DType::bfloat16, DType::float32, DType::float64};
  for (int from = 0; from < cpu::real_dtypes; ++from)
    for (int to = 0; to < 2; ++to) {
      const DType wide = compute_types[to];
      const int bytes = size_of(stored[from]) + size_of(wide), largest = std::max(size_of(stored[from]), size_of(wide));
      const std::string forth = name(stored[from]) + " to " + name(wide),
                        back = name(wide) + " to " + name(stored[from]);
      Group widen{forth, "convert", name(wide), bytes, largest, 2, to == 1, {}};
      Group narrow{back, "convert", name(wide), bytes, largest, 2, to == 1, {}};
      Group edits{forth, "take edits", name(wide), bytes + size_of(wide), largest, 2, to == 1, {}};
      for (const KernelTable* t : cpu::runnable_kernels()) {
        const auto on = [](auto f, int in, int out) -> Run {
          return [=](const Memory& m, std::int64_t n) { f(m.array(in), m.array(out), n); };
        };
        widen.kernels.push_back({t->level, "kernel", on(t->widen[from][to], 0, 3)});
        narrow.kernels.push_back({t->level, "kernel", on(t->narrow[to][from], 0, 3)});
        edits.kernels.push_back({t->level, "kernel", on(t->take_edits[from][to], 0, 3)});
      }
      for (Group* g : {&widen, &narrow, &edits}) groups.push_back(std::move(*g));
    }
}

}  // namespace

std::vector<Group> all_groups() {
  std::vector<Group> groups;
  for (int compute = 0; compute < compute_count; ++compute)
    for (const RuleInfo& info : rule_registry())
      for (int variant = 0; variant < (int(info.slots.size()) > info.min_slots ? 2 : 1); ++variant)
        add_rule(groups, info, variant, compute);
  add_chains(groups, static_cast<cpu::CommonChains*>(nullptr));
  add_norms(groups);
  add_conversions(groups);
  return groups;
}

}  // namespace bench
