// kernels.cpp: every rule's stage as a vectorised loop, and the few other loops over elements.
// Compiled once per instruction set; all but the table is local to this file, and what it calls is always inlined.
#include "cpu/kernels.hpp"

#include <limits>

#include "cpu/convert.hpp"

namespace optimisers::cpu {
namespace {

template <class R, class T>
constexpr void fill_rule(StageKernels (&variants)[2][compute_count], int compute) {
  if constexpr (!(is_complex<T> && RefusesComplex<R>)) {
    variants[0][compute] = stage_kernels<T, Use<R, min_slots<R>>>();
    if constexpr (max_slots<R> > min_slots<R>) variants[1][compute] = stage_kernels<T, Use<R, max_slots<R>>>();
  }
}

template <class... R>
constexpr void fill_rules(KernelTable& t, std::tuple<R...>*) {
  static_assert(((max_slots<R> - min_slots<R> <= 1) && ...), "one conditional slot a rule");
  int id = 0;
  ((fill_rule<R, float>(t.stage[id], 0), fill_rule<R, double>(t.stage[id], 1),
    fill_rule<R, Complex<float>>(t.stage[id], 2), fill_rule<R, Complex<double>>(t.stage[id], 3), ++id),
   ...);
}

template <class... R>
constexpr void fill_chain(StageKernels (&chain)[compute_count], ChainOf<R...>*) {
  chain[0] = stage_kernels<float, Use<R>...>();
  chain[1] = stage_kernels<double, Use<R>...>();
  chain[2] = stage_kernels<Complex<float>, Use<R>...>();
  chain[3] = stage_kernels<Complex<double>, Use<R>...>();
}
template <class... C>
constexpr void fill_chains(KernelTable& t, std::tuple<C...>*) {
  int i = 0;
  (fill_chain(t.chain[i++], static_cast<C*>(nullptr)), ...);
}

// ---- norms

using namespace norms;

template <Measure M, class T>
void measure(double* lane, const void* dx, const MeasureArgs& given, std::int64_t n) {
  const T* a = static_cast<const T*>(dx);
  const MeasureArgs args = given;
  double sum[lanes];
  for (int l = 0; l < lanes; ++l) sum[l] = lane[l];
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) sum[l] = accumulate<M>(sum[l], a[i + l], args);
  for (int l = 0; i + l < n; ++l) sum[l] = accumulate<M>(sum[l], a[i + l], args);
  for (int l = 0; l < lanes; ++l) lane[l] = sum[l];
}

// Largest or smallest magnitude of reals. Without their sign bit floats are ordered as their bits are, NaN above
// infinity, so integers do, for which every instruction set has a maximum.
template <Measure M, class R>
void extreme(double* lane, const void* dx, const MeasureArgs& args, std::int64_t n) {
  using Bits = decltype(bits_of(R{}));
  constexpr Bits magnitude_bits = Bits(~Bits(0)) >> 1;
  const R* a = static_cast<const R*>(dx);
  Bits most[lanes] = {}, least[lanes];
  for (int l = 0; l < lanes; ++l) least[l] = magnitude_bits;
  const auto take = [&](int l, std::int64_t i) {
    const Bits bits = bits_of(a[i]) & magnitude_bits;
    most[l] = most[l] > bits ? most[l] : bits;
    if constexpr (M == Measure::min_abs) least[l] = least[l] < bits ? least[l] : bits;
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) take(l, i + l);
  const int filled = i > 0 ? lanes : int(n);
  for (int l = 0; i + l < n; ++l) take(l, i + l);
  for (int l = 0; l < filled; ++l) {
    const R largest = std::bit_cast<R>(most[l]);
    const R found = M == Measure::max_abs || largest != largest ? largest : std::bit_cast<R>(least[l]);
    lane[l] = accumulate<M>(lane[l], found, args);
  }
}

template <class T>
constexpr void fill_measures(MeasureFn (&m)[measure_count]) {
  m[int(Measure::sum_squares)] = measure<Measure::sum_squares, T>;
  m[int(Measure::sum_abs)] = measure<Measure::sum_abs, T>;
  m[int(Measure::sum_power)] = measure<Measure::sum_power, T>;
  if constexpr (is_complex<T>) {
    m[int(Measure::max_abs)] = measure<Measure::max_abs, T>;
    m[int(Measure::min_abs)] = measure<Measure::min_abs, T>;
  } else {
    m[int(Measure::max_abs)] = extreme<Measure::max_abs, T>;
    m[int(Measure::min_abs)] = extreme<Measure::min_abs, T>;
  }
}

// ---- conversions

template <class To, class From>
void convert_all(const void* in, void* out, std::int64_t n) {
  const From* a = static_cast<const From*>(in);
  To* b = static_cast<To*>(out);
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) b[i] = convert<To>(a[i]);
}

template <class Storage, class C>
void take_edits(const void* x, void* master, std::int64_t n) {
  const Storage* a = static_cast<const Storage*>(x);
  C* m = static_cast<C*>(master);
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const C kept = m[i];
    m[i] = bits_of(convert<Storage>(kept)) == bits_of(a[i]) ? kept : convert<C>(a[i]);
  }
}

template <class C>
void add(void* a, const void* b, std::int64_t n) {
  C* to = static_cast<C*>(a);
  const C* from = static_cast<const C*>(b);
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) to[i] = to[i] + from[i];
}

template <class C>
void lerp(void* a, const void* b, double keep, double take, std::int64_t n) {
  C* to = static_cast<C*>(a);
  const C* from = static_cast<const C*>(b);
  const C k = C(keep), t = C(take);
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) to[i] = k * to[i] + t * from[i];
}

template <class Storage>
constexpr void fill_conversions(KernelTable& t, int storage) {
  t.widen[storage][0] = convert_all<float, Storage>;
  t.widen[storage][1] = convert_all<double, Storage>;
  t.narrow[0][storage] = convert_all<Storage, float>;
  t.narrow[1][storage] = convert_all<Storage, double>;
  t.take_edits[storage][0] = take_edits<Storage, float>;
  t.take_edits[storage][1] = take_edits<Storage, double>;
}

#define OPTIMISERS_TEXT_(x) #x
#define OPTIMISERS_TEXT(x) OPTIMISERS_TEXT_(x)

constexpr KernelTable make_table() {
  KernelTable t{};
  t.level = OPTIMISERS_TEXT(OPTIMISERS_LEVEL);
  fill_rules(t, static_cast<AllRules*>(nullptr));
  fill_chains(t, static_cast<CommonChains*>(nullptr));
  fill_measures<float>(t.measure[0]);
  fill_measures<double>(t.measure[1]);
  fill_measures<Complex<float>>(t.measure[2]);
  fill_measures<Complex<double>>(t.measure[3]);
  fill_conversions<Half>(t, 0);
  fill_conversions<BHalf>(t, 1);
  fill_conversions<float>(t, 2);
  fill_conversions<double>(t, 3);
  t.add[0] = add<float>;
  t.add[1] = add<double>;
  t.lerp[0] = lerp<float>;
  t.lerp[1] = lerp<double>;
  return t;
}

}  // namespace

#define OPTIMISERS_JOIN_(a, b) a##b
#define OPTIMISERS_JOIN(a, b) OPTIMISERS_JOIN_(a, b)
extern const KernelTable OPTIMISERS_JOIN(kernels_, OPTIMISERS_LEVEL);
constinit const KernelTable OPTIMISERS_JOIN(kernels_, OPTIMISERS_LEVEL) = make_table();

}  // namespace optimisers::cpu
