// fused.cpp: chains known when compiling, as a C++ program would have them: the library's own rules, one loop.
// The yardstick for chains built at run time.
#include <cstring>
#include <memory>
#include <tuple>

#include "leaves.hpp"
#include "optimisers/kernel.hpp"
#include "optimisers/rules/all.hpp"

// The yardstick is linked without the library, and for arrays in the cache.
std::uintptr_t optimisers::fetch_distance = 0;

namespace bench {
namespace {

using namespace optimisers;
using std::int64_t;

struct AnyChain {
  virtual ~AnyChain() = default;
  virtual void step(const Leaves& leaves, int threads) = 0;
};

// All rules at their defaults. Every leaf has made the same number of steps, so one clock serves all.
template <class... R>
class FusedChain final : public AnyChain {
 public:
  void step(const Leaves& leaves, int threads) override {
    alignas(8) std::byte steps[(step_bytes<R, float> + ... + 0)];
    int stage = 0;
    std::apply([&](auto&... clock) { (tick<R>(clock, steps, stage++), ...); }, clocks_);
    on_threads(leaves, threads, [&](int64_t leaf, int64_t begin, int64_t end) {
      void* slots[slot_count + 1] = {};
      for (int k = 0; k < slot_count; ++k) slots[k] = at<float>(leaves.slot[k * leaves.count + leaf], begin);
      stage_kernels<float, Use<R>...>().last(steps, at<float>(leaves.x[leaf], begin), at<float>(leaves.dx[leaf], begin),
                                             nullptr, slots, end - begin);
    });
  }

 private:
  static constexpr int slot_count = (min_slots<R> + ... + 0);
  std::tuple<optimisers::clock_type<R>...> clocks_;

  template <class One>
  static void tick(optimisers::clock_type<One>& clock, std::byte* steps, int stage) {
    const auto k = One{}.template tick<float>(clock);
    std::memcpy(steps + detail::step_offset<float, Use<R>...>(stage), &k, sizeof k);
  }
};

struct Named {
  const char* name;
  std::unique_ptr<AnyChain> (*make)();
};
template <class... R>
std::unique_ptr<AnyChain> make() {
  return std::make_unique<FusedChain<R...>>();
}
constexpr Named chains[] = {
    {"Adam", make<Adam>},
    {"ClipGrad WeightDecay Adam", make<ClipGrad, WeightDecay, Adam>},
    {"WeightDecay Lion", make<WeightDecay, Lion>},
    {"ClipGrad SignDecay RMSProp Momentum", make<ClipGrad, SignDecay, RMSProp, Momentum>},
};

}  // namespace
}  // namespace bench

// Null: there is no such chain. Lives as long as the process.
BENCH_API void* bench_fused_chain(const char* name) {
  for (const bench::Named& chain : bench::chains)
    if (std::strcmp(chain.name, name) == 0) return chain.make().release();
  return nullptr;
}
BENCH_API void bench_fused_step(void* chain, const bench::Leaves* leaves, int threads) {
  static_cast<bench::AnyChain*>(chain)->step(*leaves, threads);
}
