// isa.cpp: chooses one of the kernel tables that were built, once, by what the processor has.
#include "optimisers/isa.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.hpp"
#include "optimisers/error.hpp"
#include "optimisers/made_once.hpp"

namespace optimisers::inline OPT_ABI {
namespace cpu {
#ifdef OPTIMISERS_X86_LEVELS
#ifdef OPTIMISERS_HAS_v2
extern const KernelTable kernels_v2;
#endif
#ifdef OPTIMISERS_HAS_v3
extern const KernelTable kernels_v3;
#endif
#ifdef OPTIMISERS_HAS_v4
extern const KernelTable kernels_v4;
#endif
#else
extern const KernelTable kernels_baseline;
#endif
}  // namespace cpu

namespace {

struct Level {
  const cpu::KernelTable* table;
  bool here;
};

std::vector<Level> levels() {
#ifdef OPTIMISERS_X86_LEVELS
  __builtin_cpu_init();
  [[maybe_unused]] const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                   __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  [[maybe_unused]] const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                                   __builtin_cpu_supports("avx512vl");
  std::vector<Level> built;
#ifdef OPTIMISERS_HAS_v2
  built.push_back({&cpu::kernels_v2, true});
#endif
#ifdef OPTIMISERS_HAS_v3
  built.push_back({&cpu::kernels_v3, v3});
#endif
#ifdef OPTIMISERS_HAS_v4
  built.push_back({&cpu::kernels_v4, v4});
#endif
  return built;
#else
  return {{&cpu::kernels_baseline, true}};
#endif
}

// Measured, 10^7 elements beside their bare traffic, with 4096 and with 0: on an Intel Xeon a chain of four rules 1.03
// and 1.59, bfloat16 Adam 0.83 and 1.26, WeightDecay 0.98 and 1.13; on an AMD Zen 4, whose own prefetchers keep up with
// as many streams, all three take 1.1 to 1.5 times as long with 4096 as with 0.
std::uintptr_t chosen_fetch_distance() {
  if (const char* wish = std::getenv("OPTIMISERS_PREFETCH"); wish != nullptr && *wish != '\0') {
    std::uintptr_t bytes = 0;
    const char* end = wish + std::strlen(wish);
    const auto [stop, fault] = std::from_chars(wish, end, bytes);
    if (fault == std::errc{} && stop == end && bytes <= 65536) return bytes;
    throw Error(ErrorKind::value,
                "OPTIMISERS_PREFETCH must be a number of bytes from 0 to 65536, got \"" + std::string(wish) + "\"");
  }
#ifdef OPTIMISERS_X86_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return 4096;
#endif
  return 0;
}

struct Choice {
  IsaChoice described;
  const cpu::KernelTable* table = nullptr;
  const cpu::KernelTable* complex = nullptr;  // for complex leaves

  Choice() {
    if (const std::uintptr_t distance = chosen_fetch_distance(); distance != fetch_distance) fetch_distance = distance;
    const char* wish = std::getenv("OPTIMISERS_ISA");
    std::string wanted = wish == nullptr ? "" : wish, known;
    bool found = wanted.empty();
    for (const Level& level : levels()) {
      known += (known.empty() ? "" : ", ") + std::string(level.table->level);
      found |= wanted == level.table->level;
      if (level.here) described.available.emplace_back(level.table->level);
    }
    if (!found) throw Error(ErrorKind::value, "OPTIMISERS_ISA must be one of " + known + ", got \"" + wanted + "\"");
    for (const Level& level : levels()) {
      if (!level.here) continue;
      table = level.table;
      if (table->has_complex) complex = table;
      if (wanted == level.table->level) break;
    }
    if (table == nullptr)
      throw Error(ErrorKind::value, "this build of the library has kernels for " + known +
                                        " only, which this machine lacks; OPTIMISERS_LEVELS chooses others");
    described.chosen = table->level;
    if (!wanted.empty() && wanted != described.chosen)
      described.note = "OPTIMISERS_ISA asks for " + wanted + ", which this machine lacks";
  }
};

const Choice& choice() {
  return detail::made_once([] { return Choice(); });
}

}  // namespace

std::uintptr_t fetch_distance = 0;

const IsaChoice& isa_choice() { return choice().described; }
const cpu::KernelTable& cpu::kernels() { return *choice().table; }

const StageKernels& cpu::stage_kernels_of(int rule, std::size_t variant, std::size_t compute) {
  const bool real = compute < std::size_t(real_compute_count);
  return (real ? choice().table : choice().complex)->stage[rule][variant][compute];
}

std::vector<const cpu::KernelTable*> cpu::runnable_kernels() {
  std::vector<const KernelTable*> tables;
  for (const Level& level : levels())
    if (level.here) tables.push_back(level.table);
  return tables;
}

}  // namespace optimisers::inline OPT_ABI
