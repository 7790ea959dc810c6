// traffic.cpp: the kernels of traffic.hpp for one instruction set; nothing but the table leaves this file.
#include "traffic.hpp"

namespace bench {
namespace {

using namespace optimisers;

template <class R, class T>
constexpr void fill(TrafficTable& t, int id, int compute) {
  t.stage[id][0][compute] = stage_kernels<T, Use<Traffic<R>, min_slots<R>>>();
  t.stage[id][1][compute] = stage_kernels<T, Use<Traffic<R>, max_slots<R>>>();
}

template <class... R>
constexpr TrafficTable make_table(std::tuple<R...>*) {
  TrafficTable t{};
  int id = 0;
  ((fill<R, float>(t, id, 0), fill<R, double>(t, id, 1), fill<R, Complex<float>>(t, id, 2),
    fill<R, Complex<double>>(t, id, 3), ++id),
   ...);
  return t;
}

}  // namespace

#define BENCH_JOIN_(a, b) a##b
#define BENCH_JOIN(a, b) BENCH_JOIN_(a, b)
extern const TrafficTable BENCH_JOIN(traffic_, BENCH_LEVEL);
constinit const TrafficTable BENCH_JOIN(traffic_, BENCH_LEVEL) = make_table(static_cast<AllRules*>(nullptr));

}  // namespace bench
