// kernels.cpp: every rule's stage as a vectorised loop, and the few other loops over elements.
// Compiled once per instruction set; all but the table is local to this file, and what it calls is always inlined.
#include "cpu/kernels.hpp"

#include <cstring>
#include <limits>

#include "cpu/convert.hpp"

namespace optimisers::inline OPT_ABI::cpu {
namespace {

// The master copy of x, or x where that was edited: where it is not the rounded master.
template <class Storage, class C>
OPT_FN C edited(C master, Storage x) {
  return bits_of(convert<Storage>(master)) == bits_of(x) ? master : convert<C>(x);
}

// ---- stages on bfloat16 parameters and gradients

#if defined(__x86_64__) && !defined(__AVX2__)
constexpr bool has_bhalf_stages = false;  // narrow vectors: no faster than block by block
#else
constexpr bool has_bhalf_stages = true;
#endif

template <bool Master, class P, class... U>
struct BHalfStages;
template <bool Master, int... P, class... U>
struct BHalfStages<Master, std::integer_sequence<int, P...>, U...> {
  BHalf* x;
  const BHalf* in;
  float* master;
  detail::Bag<detail::stage_data<float, U>...> stage;

  OPT_FN void fetch(std::int64_t i) {
    constexpr std::int64_t half = bhalf_line / 2;
    fetch_ahead(x + i);
    fetch_ahead(in + i);
    if constexpr (Master) fetch_ahead(master + i), fetch_ahead(master + i + half);
    (detail::get<P>(stage).fetch(i), ...);
    (detail::get<P>(stage).fetch(i + half), ...);
  }
  OPT_FN void element(std::int64_t i) {
    float dx = convert<float>(in[i]), before = convert<float>(x[i]);
    if constexpr (Master) before = edited(master[i], x[i]);
    (detail::get<P>(stage).apply(before, dx, i), ...);
    const float after = before - dx;
    if constexpr (Master) master[i] = after;
    x[i] = convert<BHalf>(after);
  }
};

template <bool Master, class... U, int... P>
OPT_FN void run_bhalf(std::integer_sequence<int, P...> all, const std::byte* steps, void* x, const void* in, void* out,
                      void* const* slots, std::int64_t n) {
  BHalfStages<Master, decltype(all), U...> body{
      static_cast<BHalf*>(x), static_cast<const BHalf*>(in), static_cast<float*>(out),
      detail::bag(detail::stage_data<float, U>::at(steps + detail::step_offset<float, U...>(P),
                                                   slots + detail::slot_offset<U...>(P))...)};
  detail::whole_lines<bhalf_line>(n, body);
}
template <bool Master, class... U>
void bhalf_kernel(const std::byte* steps, void* x, const void* in, void* out, void* const* slots, std::int64_t n) {
  run_bhalf<Master, U...>(std::make_integer_sequence<int, int(sizeof...(U))>{}, steps, x, in, out, slots, n);
}

template <class Chain, class... C>
constexpr bool is_in(std::tuple<C...>*) {
  return (std::is_same_v<Chain, C> || ...);
}

template <class T, class... U>
constexpr StageKernels all_kernels() {
  StageKernels kernels = stage_kernels<T, U...>();
  if constexpr (has_bhalf_stages && std::is_same_v<T, float> &&
                is_in<ChainOf<typename U::Rule...>>(static_cast<ChainsOnBHalf*>(nullptr))) {
    kernels.last_bhalf = bhalf_kernel<false, U...>;
    kernels.last_bhalf_master = bhalf_kernel<true, U...>;
  }
  return kernels;
}

#ifdef OPTIMISERS_REAL_ONLY
constexpr bool has_complex = false;  // those of the level below serve
#else
constexpr bool has_complex = true;
#endif

template <class R, class T>
constexpr void fill_rule(StageKernels (&variants)[2][compute_count], int compute) {
  if constexpr (!(is_complex<T> && (!has_complex || RefusesComplex<R>))) {
    variants[0][compute] = all_kernels<T, Use<R, min_slots<R>>>();
    if constexpr (max_slots<R> > min_slots<R>) variants[1][compute] = all_kernels<T, Use<R, max_slots<R>>>();
  }
}

template <class... R>
constexpr void fill_rules(KernelTable& t, std::tuple<R...>*) {
  int id = 0;
  ((fill_rule<R, float>(t.stage[id], 0), fill_rule<R, double>(t.stage[id], 1),
    fill_rule<R, Complex<float>>(t.stage[id], 2), fill_rule<R, Complex<double>>(t.stage[id], 3), ++id),
   ...);
}

template <class... R>
constexpr void fill_chain(StageKernels (&chain)[real_compute_count], ChainOf<R...>*) {
  chain[0] = all_kernels<float, Use<R>...>();
  chain[1] = stage_kernels<double, Use<R>...>();
}
template <class... C>
constexpr void fill_chains(KernelTable& t, std::tuple<C...>*) {
  int i = 0;
  (fill_chain(t.chain[i++], static_cast<C*>(nullptr)), ...);
}

// ---- norms

using namespace norms;
static_assert(lanes == term_lanes);

template <class T>
OPT_FN void fetch_lanes_ahead(const T* a) {
  for (int l = 0; l < lanes; l += int(cache_line / sizeof(T))) fetch_ahead(a + l);
}

#if defined(__GNUC__)
// The lanes of reals as vectors, in registers throughout: left to itself, the compiler finds them on some levels only.
#if defined(__AVX512F__)
constexpr int doubles_in_vector = 8;
#elif defined(__AVX__)
constexpr int doubles_in_vector = 4;
#else
constexpr int doubles_in_vector = 2;
#endif
using Vector [[gnu::vector_size(doubles_in_vector * sizeof(double))]] = double;

template <Measure M>
constexpr bool has_vectors = M == Measure::sum_squares || M == Measure::sum_abs;

// As accumulate(). The scale is a power of two, so squares of floats are exact in double: fusing the addition is no
// other rounding.
template <Measure M, bool Scaled, class R>
OPT_FN Vector accumulate_vector(Vector so_far, Vector a, double scale) {
  const Vector scaled = Scaled ? a * scale : a;
#if defined(__FMA__)
  if constexpr (M == Measure::sum_squares && sizeof(R) < sizeof(double)) {
    for (int k = 0; k < doubles_in_vector; ++k) so_far[k] = __builtin_fma(scaled[k], scaled[k], so_far[k]);
    return so_far;
  }
#endif
  if constexpr (M == Measure::sum_squares) return so_far + scaled * scaled;
  else return so_far + (scaled < 0 ? -scaled : scaled);
}

// Whole rows of lanes; how many elements these are. Not scaled: by 1, as nearly always.
template <Measure M, bool Scaled, class R>
OPT_FN std::int64_t measure_rows(double* lane, const R* a, double scale, std::int64_t n) {
  constexpr int vectors = lanes / doubles_in_vector;
  Vector sum[vectors];
  std::memcpy(sum, lane, sizeof sum);
  std::int64_t i = 0;
  OPT_ROLLED
  for (; i + lanes <= n; i += lanes) {
    fetch_lanes_ahead(a + i);
    for (int v = 0; v < vectors; ++v) {
      R next[doubles_in_vector];
      std::memcpy(next, a + i + v * doubles_in_vector, sizeof next);
      Vector wide;
      for (int k = 0; k < doubles_in_vector; ++k) wide[k] = double(next[k]);
      sum[v] = accumulate_vector<M, Scaled, R>(sum[v], wide, scale);
    }
  }
  std::memcpy(lane, sum, sizeof sum);
  return i;
}
#else
template <Measure M>
constexpr bool has_vectors = false;
#endif

template <Measure M, class T>
void measure(double* lane, const void* dx, const MeasureArgs& given, std::int64_t n) {
  const T* a = static_cast<const T*>(dx);
  const MeasureArgs args = given;
  std::int64_t i = 0;
  if constexpr (has_vectors<M> && !is_complex<T>) {
    const double scale = args.inverse_scale;
    i = scale == 1 ? measure_rows<M, false>(lane, a, scale, n) : measure_rows<M, true>(lane, a, scale, n);
  } else {
    double sum[lanes];
    for (int l = 0; l < lanes; ++l) sum[l] = lane[l];
    for (; i + lanes <= n; i += lanes) {
      fetch_lanes_ahead(a + i);
      for (int l = 0; l < lanes; ++l) sum[l] = accumulate<M>(sum[l], a[i + l], args);
    }
    for (int l = 0; l < lanes; ++l) lane[l] = sum[l];
  }
  OPT_ROLLED
  for (int l = 0; i + l < n; ++l) {
    OPT_ONE_BY_ONE;
    lane[l] = accumulate<M>(lane[l], a[i + l], args);
  }
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
  for (; i + lanes <= n; i += lanes) {
    fetch_lanes_ahead(a + i);
    for (int l = 0; l < lanes; ++l) take(l, i + l);
  }
  const int filled = i > 0 ? lanes : int(n);
  OPT_ROLLED
  for (int l = 0; i + l < n; ++l) {
    OPT_ONE_BY_ONE;
    take(l, i + l);
  }
  OPT_ROLLED
  for (int l = 0; l < filled; ++l) {
    OPT_ONE_BY_ONE;
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

// ---- products of matrices

#if defined(__GNUC__)
#if defined(__AVX512F__)
constexpr int tile_rows = 12;
#elif defined(__AVX__)
constexpr int tile_rows = 6;
#else
constexpr int tile_rows = 4;
#endif
constexpr int tile_vectors = 2;
#if defined(__clang__)
#define OPTIMISERS_FUSED
#else
#define OPTIMISERS_FUSED [[gnu::optimize("fp-contract=fast")]]
#endif

template <class T>
OPTIMISERS_FUSED void multiply_tile(std::int64_t n, const void* a_, const void* b_, void* out_) {
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
  constexpr int bytes = doubles_in_vector * int(sizeof(double)), width = bytes / int(sizeof(T));
  using Wide [[gnu::vector_size(bytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  Wide sum[tile_rows][tile_vectors] = {};
  OPT_ROLLED
  for (std::int64_t k = 0; k < n; ++k, a += tile_rows, b += tile_vectors * width) {
    Wide row[tile_vectors];
    for (int v = 0; v < tile_vectors; ++v) row[v] = *reinterpret_cast<const Wide*>(b + v * width);
#pragma GCC unroll 12
    for (int i = 0; i < tile_rows; ++i)
      for (int v = 0; v < tile_vectors; ++v) sum[i][v] += a[i] * row[v];
  }
  // One by one: as a whole they would live in memory, in the loop too.
  T* out = static_cast<T*>(out_);
  for (int i = 0; i < tile_rows; ++i)
    for (int v = 0; v < tile_vectors; ++v) *reinterpret_cast<Wide*>(out + (i * tile_vectors + v) * width) = sum[i][v];
}
template <class T>
constexpr Tile tile_of() {
  constexpr int bytes = tile_vectors * doubles_in_vector * int(sizeof(double));
  return {tile_rows, bytes / int(sizeof(T)), multiply_tile<T>};
}
#else
template <class T>
void multiply_tile(std::int64_t n, const void* a_, const void* b_, void* out_) {
  constexpr int rows = 4, cols = 8;
  const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
  T sum[rows][cols] = {};
  for (std::int64_t k = 0; k < n; ++k, a += rows, b += cols)
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; ++j) sum[i][j] += a[i] * b[j];
  std::memcpy(out_, sum, sizeof sum);
}
template <class T>
constexpr Tile tile_of() {
  return {4, 8, multiply_tile<T>};
}
#endif

// ---- conversions, and what else is done element by element

// to = value(to, from)
template <class To, class From, class Value>
struct Map {
  To* to;
  const From* from;
  Value value;

  OPT_FN void fetch(std::int64_t i) {
    fetch_ahead(to + i);
    fetch_ahead(from + i);
  }
  OPT_FN void element(std::int64_t i) { to[i] = value(to[i], from[i]); }
};
template <class To, class From, class Value>
OPT_FN void map(void* to, const void* from, std::int64_t n, Value value) {
  // From 2 bytes to 8 a line of the smaller would be unrolled to 5 kB of code.
  constexpr std::size_t smaller = sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To);
  constexpr bool far_apart = sizeof(From) + sizeof(To) == 2 + sizeof(double);
  constexpr std::int64_t line = cache_line / std::int64_t(far_apart ? sizeof(double) : smaller);
  detail::each_element<line>(n, Map<To, From, Value>{static_cast<To*>(to), static_cast<const From*>(from), value});
}

template <class To, class From>
void convert_all(const void* in, void* out, std::int64_t n) {
  map<To, From>(out, in, n, [](To, From a) { return convert<To>(a); });
}

template <class Storage, class C>
void take_edits(const void* x, void* master, std::int64_t n) {
  map<C, Storage>(master, x, n, [](C kept, Storage a) { return edited(kept, a); });
}

template <class C>
void add(void* a, const void* b, std::int64_t n) {
  map<C, C>(a, b, n, [](C to, C from) { return to + from; });
}

template <class C>
void lerp(void* a, const void* b, double keep, double take, std::int64_t n) {
  map<C, C>(a, b, n, [k = C(keep), t = C(take)](C to, C from) { return k * to + t * from; });
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
  t.has_complex = has_complex;
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
  t.tile[0] = tile_of<float>();
  t.tile[1] = tile_of<double>();
  return t;
}

}  // namespace

#define OPTIMISERS_JOIN_(a, b) a##b
#define OPTIMISERS_JOIN(a, b) OPTIMISERS_JOIN_(a, b)
extern const KernelTable OPTIMISERS_JOIN(kernels_, OPTIMISERS_LEVEL);
constinit const KernelTable OPTIMISERS_JOIN(kernels_, OPTIMISERS_LEVEL) = make_table();

}  // namespace optimisers::inline OPT_ABI::cpu
