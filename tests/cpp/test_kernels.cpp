// test_kernels.cpp: every kernel gives the same bits on every instruction set, and fused as one by one.
#include "cpu/kernels.hpp"

#include <cstring>
#include <random>

#include "support.hpp"

namespace optimisers::cpu {
namespace {

constexpr std::int64_t n = 1031;  // no multiple of any vector width

// A block of elements of a compute type, filled with reals that include zeros, infinities and NaN.
struct Block {
  std::vector<std::byte> bytes;
  Block(int compute, unsigned seed, bool positive = false) : bytes(std::size_t(n) * 16 + 16) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    const bool wide = compute % 2 == 1;
    const std::size_t reals = bytes.size() / (wide ? 8 : 4);
    for (std::size_t i = 0; i < reals; ++i) {
      double v = i % 97 == 0 ? 0.0 : i % 211 == 5 ? INFINITY : i % 307 == 7 ? NAN : normal(random) * 1e-2;
      if (positive) v = std::abs(v);
      const auto f = float(v);
      if (wide) std::memcpy(bytes.data() + 8 * i, &v, 8);
      else std::memcpy(bytes.data() + 4 * i, &f, 4);
    }
  }
};

// NaN payloads are not part of the promise: operations may keep either operand's.
template <class F>
void erase_payloads(std::vector<std::byte>& bytes) {
  auto* a = reinterpret_cast<F*>(bytes.data());
  for (std::size_t i = 0; i < bytes.size() / sizeof(F); ++i)
    if (a[i] != a[i]) a[i] = std::numeric_limits<F>::quiet_NaN();
}

using Result = std::vector<std::vector<std::byte>>;

Result run(StageFn f, const std::byte* steps, int compute, int slot_count) {
  Block x(compute, 1), dx(compute, 2), out(compute, 3), gradient(compute, 30);
  std::vector<Block> slots;
  std::vector<void*> pointers;
  for (int i = 0; i < slot_count; ++i) slots.emplace_back(compute, unsigned(4 + i), i > 0);
  for (auto& s : slots) pointers.push_back(s.bytes.data());
  pointers.push_back(gradient.bytes.data());  // where stages that see it look
  f(steps, x.bytes.data(), dx.bytes.data(), out.bytes.data(), pointers.data(), n);
  Result result{x.bytes, out.bytes};
  for (auto& s : slots) result.push_back(s.bytes);
  for (auto& bytes : result) compute % 2 ? erase_payloads<double>(bytes) : erase_payloads<float>(bytes);
  return result;
}

// Scalars of the third step of a rule.
std::vector<std::byte> third_step(const RuleInfo& info, int real) {
  std::vector<std::byte> step(96);
  RuleValue rule(info);
  if (const FieldInfo* f = info.field("n")) rule.set(*f, 2.0);
  if (const FieldInfo* f = info.field("lambda")) rule.set(*f, 0.1);
  auto clock = info.clock_start;
  for (int t = 0; t < 3; ++t) info.tick[real](rule.data(), clock.data(), step.data());
  return step;
}

TEST(Kernels, SameBitsOnEveryInstructionSet) {
  const auto tables = runnable_kernels();
  int compared = 0;
  for (const RuleInfo& info : rule_registry())
    for (int compute = 0; compute < compute_count; ++compute)
      for (int variant = 0; variant < 2; ++variant) {
        const auto step = third_step(info, compute % 2);
        const int slots = variant ? int(info.slots.size()) : info.min_slots;
        const StageKernels first = tables[0]->stage[info.id][variant][compute];
        if (first.last == nullptr) continue;
        const auto last = run(first.last, step.data(), compute, slots),
                   middle = run(first.middle, step.data(), compute, slots);
        for (const KernelTable* t : tables) {
          const StageKernels k = t->stage[info.id][variant][compute];
          if (compute >= real_compute_count && !t->has_complex) continue;
          EXPECT_EQ(run(k.last, step.data(), compute, slots), last)
              << info.text.name << " " << t->level << " " << compute;
          EXPECT_EQ(run(k.middle, step.data(), compute, slots), middle)
              << info.text.name << " " << t->level << " " << compute;
          ++compared;
        }
      }
  EXPECT_GE(compared, rule_count * 3);
}

template <class... R>
void compare_chain(const KernelTable& t, int chain, ChainOf<R...>*) {
  for (int compute = 0; compute < real_compute_count; ++compute) {
    const int real = compute;
    std::vector<std::byte> steps;
    std::vector<const RuleInfo*> infos{find_rule(R::text.name)...};
    int slots = 0;
    for (const RuleInfo* info : infos) {
      const auto step = third_step(*info, real);
      steps.insert(steps.end(), step.begin(), step.begin() + (info->step_size[std::size_t(real)] + 7) / 8 * 8);
      slots += info->min_slots;
    }
    const Result fused = run(t.chain[chain][compute].last, steps.data(), compute, slots);

    Block x(compute, 1), dx(compute, 2), unused(compute, 3);
    std::vector<Block> blocks;
    std::vector<void*> pointers;
    for (int i = 0; i < slots; ++i) blocks.emplace_back(compute, unsigned(4 + i), i > 0);
    for (auto& s : blocks) pointers.push_back(s.bytes.data());
    std::size_t step = 0, slot = 0;
    for (std::size_t i = 0; i < infos.size(); ++i) {
      const StageKernels k = t.stage[infos[i]->id][0][compute];
      (i + 1 == infos.size() ? k.last : k.middle)(steps.data() + step, x.bytes.data(), dx.bytes.data(), dx.bytes.data(),
                                                  pointers.data() + slot, n);
      step += std::size_t((infos[i]->step_size[std::size_t(real)] + 7) / 8 * 8);
      slot += std::size_t(infos[i]->min_slots);
    }
    Result one_by_one{x.bytes, unused.bytes};
    for (auto& s : blocks) one_by_one.push_back(s.bytes);
    for (auto& bytes : one_by_one) real ? erase_payloads<double>(bytes) : erase_payloads<float>(bytes);
    EXPECT_EQ(fused, one_by_one) << "chain " << chain << " " << t.level << " compute type " << compute;
  }
}

TEST(Kernels, FusedChainsGiveTheBitsOfTheirStages) {
  for (const KernelTable* t : runnable_kernels()) {
    [&]<class... C>(std::tuple<C...>*) {
      int i = 0;
      (compare_chain(*t, i++, static_cast<C*>(nullptr)), ...);
    }(static_cast<CommonChains*>(nullptr));
  }
}

TEST(Kernels, NormsHaveTheSameBitsOnEveryInstructionSetAndInPieces) {
  for (int compute = 0; compute < compute_count; ++compute) {
    Block dx(compute, 2);
    compute % 2 ? erase_payloads<double>(dx.bytes) : erase_payloads<float>(dx.bytes);
    const std::size_t item = compute == 0 ? 4 : compute == 3 ? 16 : 8;
    for (int m = 0; m < norms::measure_count; ++m) {
      if (m == int(norms::Measure::sum_power)) continue;  // goes through pow
      std::vector<std::vector<double>> results;
      for (const KernelTable* t : runnable_kernels()) {
        std::vector<double> whole(norms::lanes, 0), pieces(norms::lanes, 0);
        t->measure[compute][m](whole.data(), dx.bytes.data() + 8 * item, {}, 150);
        t->measure[compute][m](pieces.data(), dx.bytes.data() + 8 * item, {}, 48);
        t->measure[compute][m](pieces.data(), dx.bytes.data() + 56 * item, {}, 102);
        for (double& a : whole) a = a != a ? -1 : a;
        for (double& a : pieces) a = a != a ? -1 : a;
        EXPECT_EQ(whole, pieces);
        results.push_back(whole);
      }
      for (const auto& r : results) EXPECT_EQ(r, results[0]) << compute << " " << m;
    }
  }
}

}  // namespace
}  // namespace optimisers::cpu
