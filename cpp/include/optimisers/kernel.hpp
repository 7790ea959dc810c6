// kernel.hpp: turns the apply() of one rule, or of several fused, into a loop over arrays that compilers vectorise.
// The library instantiates it once per instruction set (cpu/kernels.cpp); a program's own rules, in that program.
#pragma once
#include <cfloat>
#include <cstddef>
#include <cstdint>

#include "optimisers/isa.hpp"
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

// One or more stages over n elements: reads dx from `in`; `middle` writes dx to `out`, `last` subtracts it from x.
// All arrays are contiguous and aligned to their element type; `in` and `out` may be the same array.
using StageFn = void (*)(const std::byte* steps, void* x, const void* in, void* out, void* const* slots,
                         std::int64_t n);
// What n elements add to each sum of a rule, into that sum's lanes: element i goes to lane i mod term_lanes.
inline constexpr int term_lanes = 16;
using TermsFn = void (*)(double* lanes, const std::byte* step, const void* x, const void* dx, void* const* slots,
                         std::int64_t n);
// The entries of a matrix rule's matrices, from what has come to its stage.
using EntriesFn = void (*)(void* to, const std::byte* step, const void* x, const void* dx, void* const* slots,
                           std::int64_t n);
struct StageKernels {
  StageFn middle = nullptr, last = nullptr;
  // As `last` in float32, on x and dx in bfloat16, a multiple of bhalf_line elements; with a master copy in `out`. The
  // library has them for some of its own chains, on instruction sets where they pay.
  StageFn last_bhalf = nullptr, last_bhalf_master = nullptr;
  TermsFn terms = nullptr;      // of a summing rule
  EntriesFn entries = nullptr;  // of a matrix rule
};
inline constexpr std::int64_t bhalf_line = 32;  // of them fill a cache line

// A rule with the number of slots it has here.
template <class R, int Slots = min_slots<R>>
struct Use {
  using Rule = R;
  static constexpr int slots = Slots;
};

// Each stage's scalars lie behind those of the stage before it, at multiples of 8 bytes.
template <class R, class Real>
inline constexpr int step_bytes = (int(sizeof(typename R::template Step<Real>)) + 7) / 8 * 8;

inline constexpr std::int64_t cache_line = 64;  // bytes
// Loops over elements ask for memory this far ahead (isa.cpp).
OPT_FN void fetch_ahead(const void* p) {
  OPT_PREFETCH(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + fetch_distance));
}

// Clang reports each loop it could not vectorise (without -O3, or complex elements): slower there, never wrong.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

namespace detail {

// `Count` elements, a multiple of what vector registers hold: the compiler has nothing left over to see to.
template <std::int64_t Count, class Body>
OPT_FN void few(Body& body, std::int64_t i) {
  OPT_INDEPENDENT OPT_ROLLED for (std::int64_t k = 0; k < Count; ++k) body.element(i + k);
}

// body.element(i) for all i in the whole lines of n, body.fetch(i) once for each `Line` of them, which fill a cache
// line. Returns where they end. Clang unrolls the inner loops before it could vectorise them: one loop there, and
// memory is not asked for.
template <std::int64_t Line, class Body>
OPT_FN std::int64_t whole_lines(std::int64_t n, Body& body) {
  const std::int64_t end = n / Line * Line;
#if defined(__GNUC__) && !defined(__clang__)
  OPT_ROLLED
  for (std::int64_t i = 0; i < end; i += Line) {
    body.fetch(i);
    few<Line>(body, i);
  }
#else
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < end; ++i) body.element(i);
#endif
  return end;
}

// The same for all i below n.
template <std::int64_t Line, class Body>
OPT_FN void each_element(std::int64_t n, Body body) {
#if defined(__GNUC__) && !defined(__clang__)
  constexpr std::int64_t part = Line / 4;  // what the narrowest vectors hold
  std::int64_t i = whole_lines<Line>(n, body);
  if constexpr (part > 1) {
    OPT_ROLLED
    for (; i + part <= n; i += part) few<part>(body, i);
  }
  OPT_ROLLED
  for (; i < n; ++i) {
    OPT_ONE_BY_ONE;
    body.element(i);
  }
#else
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) body.element(i);
#endif
}

// A tuple whose access is always inlined: kernels may leave no shared function behind.
template <class... T>
struct Bag {};
template <class T, class... Rest>
struct Bag<T, Rest...> {
  T first;
  [[no_unique_address]] Bag<Rest...> rest;
};
OPT_FN Bag<> bag() { return {}; }
template <class T, class... Rest>
OPT_FN Bag<T, Rest...> bag(T first, Rest... rest) {
  return {first, bag(rest...)};
}
template <int I, class T, class... Rest>
OPT_FN auto& get(Bag<T, Rest...>& bag) {
  if constexpr (I == 0) return bag.first;
  else return get<I - 1>(bag.rest);
}

// The gradient of a stage that sees it, or its transformed matrix: the pointer stands behind those of the slots.
template <class T, bool Sees>
struct SeenGradient {
  OPT_FN static SeenGradient at(void* const*) { return {}; }
  OPT_FN void fetch(std::int64_t) {}
};
template <class T>
struct SeenGradient<T, true> {
  const T* g;
  OPT_FN static SeenGradient at(void* const* behind_slots) { return {static_cast<const T*>(*behind_slots)}; }
  OPT_FN void fetch(std::int64_t i) { fetch_ahead(g + i); }
};

// Pointers to the slots of one rule, and its scalars.
template <class T, class U, class Indices>
struct StageData;
template <class T, class U, int... I>
struct StageData<T, U, std::integer_sequence<int, I...>> {
  using R = typename U::Rule;
  typename R::template Step<real_t<T>> k;
  Bag<slot_t<R, I, T>*...> slot;
  [[no_unique_address]] SeenGradient<T, takes_another<R>> gradient;

  OPT_FN static StageData at(const std::byte* step, void* const* slots) {
    return {*reinterpret_cast<const typename R::template Step<real_t<T>>*>(step),
            bag(static_cast<slot_t<R, I, T>*>(slots[I])...),
            SeenGradient<T, takes_another<R>>::at(slots + sizeof...(I))};
  }

  OPT_FN void fetch([[maybe_unused]] std::int64_t i) {
    (fetch_ahead(get<I>(slot) + i), ...);
    gradient.fetch(i);
  }

  OPT_FN void apply(T x, T& dx, [[maybe_unused]] std::int64_t i) {
    [[maybe_unused]] Bag<slot_t<R, I, T>...> s = bag(get<I>(slot)[i]...);
    if constexpr (takes_another<R>) R::template apply<T>(k, x, gradient.g[i], dx, get<I>(s)...);
    else R::template apply<T>(k, x, dx, get<I>(s)...);
    ((get<I>(slot)[i] = get<I>(s)), ...);
  }

  OPT_FN auto terms(T x, T dx, [[maybe_unused]] std::int64_t i) {
    if constexpr (SeesGradient<R>) return R::template terms<T>(k, x, gradient.g[i], dx, get<I>(slot)[i]...);
    else return R::template terms<T>(k, x, dx, get<I>(slot)[i]...);
  }
  OPT_FN T entry(T x, T dx, std::int64_t i) { return R::template entry<T>(k, x, dx, get<I>(slot)[i]...); }
};
template <class T, class U>
using stage_data = StageData<T, U, std::make_integer_sequence<int, U::slots>>;

// Where the scalars (in bytes) and the slots of the stage at `position` begin.
template <class T, class... U>
constexpr int step_offset(int position) {
  int offset = 0, i = 0;
  ((offset += i++ < position ? step_bytes<typename U::Rule, real_t<T>> : 0), ...);
  return offset;
}
template <class... U>
constexpr int slot_offset(int position) {
  int offset = 0, i = 0;
  ((offset += i++ < position ? U::slots : 0), ...);
  return offset;
}

// The loop over one or several stages: P counts them.
template <bool Last, class T, class P, class... U>
struct Stages;
template <bool Last, class T, int... P, class... U>
struct Stages<Last, T, std::integer_sequence<int, P...>, U...> {
  T* x;
  const T* in;
  T* out;
  Bag<stage_data<T, U>...> stage;

  OPT_FN void fetch(std::int64_t i) {
    if constexpr (Last) fetch_ahead(x + i);
    fetch_ahead(in + i);
    (get<P>(stage).fetch(i), ...);
  }
  OPT_FN void element(std::int64_t i) {
    T dx = in[i];
    const T before = x[i];
    (get<P>(stage).apply(before, dx, i), ...);
    if constexpr (Last) x[i] = before - dx;
    else out[i] = dx;
  }
};

// The sums of one stage over whole rows of lanes, and over what is left of them.
template <class T, class U>
OPT_FN void add_terms(double* lanes, const std::byte* step, const T* x, const T* dx, void* const* slots,
                      std::int64_t n) {
  constexpr int sums = sum_count<typename U::Rule>();
  stage_data<T, U> stage = stage_data<T, U>::at(step, slots);
  double sum[sums][term_lanes];
  for (int s = 0; s < sums; ++s)
    for (int l = 0; l < term_lanes; ++l) sum[s][l] = lanes[s * term_lanes + l];
  const auto take = [&](int l, std::int64_t i) {
    const Sums<sums> terms = stage.terms(x[i], dx[i], i);
    for (int s = 0; s < sums; ++s) sum[s][l] += terms.of[s];
  };
  std::int64_t i = 0;
  OPT_ROLLED
  for (; i + term_lanes <= n; i += term_lanes) {
    for (int l = 0; l < term_lanes; l += int(cache_line / sizeof(T))) {
      fetch_ahead(x + i + l);
      fetch_ahead(dx + i + l);
      stage.fetch(i + l);
    }
    OPT_INDEPENDENT
    for (int l = 0; l < term_lanes; ++l) take(l, i + l);
  }
  OPT_ROLLED
  for (int l = 0; i + l < n; ++l) {
    OPT_ONE_BY_ONE;
    take(l, i + l);
  }
  for (int s = 0; s < sums; ++s)
    for (int l = 0; l < term_lanes; ++l) lanes[s * term_lanes + l] = sum[s][l];
}

template <bool Last, class T, class... U, int... P>
OPT_FN void run(std::integer_sequence<int, P...> all, const std::byte* steps, void* x, const void* in, void* out,
                void* const* slots, std::int64_t n) {
  each_element<cache_line / int(sizeof(T))>(
      n, Stages<Last, T, decltype(all), U...>{
             static_cast<T*>(x), static_cast<const T*>(in), static_cast<T*>(out),
             bag(stage_data<T, U>::at(steps + step_offset<T, U...>(P), slots + slot_offset<U...>(P))...)});
}

}  // namespace detail

// Local to the file that asks for it (static), so that files built for other instruction sets share nothing.
template <bool Last, class T, class... U>
OPT_EXACT static void stage_kernel(const std::byte* steps, void* x, const void* in, void* out, void* const* slots,
                                   std::int64_t n) {
  detail::run<Last, T, U...>(std::make_integer_sequence<int, int(sizeof...(U))>{}, steps, x, in, out, slots, n);
}

template <class T, class U>
OPT_EXACT static void terms_kernel(double* lanes, const std::byte* step, const void* x, const void* dx,
                                   void* const* slots, std::int64_t n) {
  detail::add_terms<T, U>(lanes, step, static_cast<const T*>(x), static_cast<const T*>(dx), slots, n);
}
template <class T, class... U>
static constexpr TermsFn terms_of() {
  if constexpr (sizeof...(U) == 1 && (SummingRule<typename U::Rule> && ...)) return terms_kernel<T, U...>;
  else return nullptr;
}

template <class T, class U>
OPT_EXACT static void entries_kernel(void* to, const std::byte* step, const void* x, const void* dx, void* const* slots,
                                     std::int64_t n) {
  auto stage = detail::stage_data<T, U>::at(step, slots);
  T* out = static_cast<T*>(to);
  OPT_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = stage.entry(static_cast<const T*>(x)[i], static_cast<const T*>(dx)[i], i);
}
template <class T, class... U>
static constexpr EntriesFn entries_of() {
  if constexpr (sizeof...(U) == 1 && !is_complex<T> && (MatrixRule<typename U::Rule> && ...))
    return entries_kernel<T, U...>;
  else return nullptr;
}

template <class T, class... U>
static constexpr StageKernels stage_kernels() {
  static_assert(!OPT_FREE_MATH || sizeof(T) == 0,
                "a rule or fused chain of this file is compiled under -ffast-math or a part of it, which would change "
                "its results: compile the file with -fno-fast-math behind it, or link optimisers::kernel_flags");
  static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16 || sizeof(T) == 0,
                "floats are computed in a wider type than they have, which would change results: on 32-bit x86 compile "
                "with -msse2 -mfpmath=sse");
  return {.middle = stage_kernel<false, T, U...>,
          .last = stage_kernel<true, T, U...>,
          .terms = terms_of<T, U...>(),
          .entries = entries_of<T, U...>()};
}

#if defined(__clang__)
#pragma clang diagnostic pop
#endif

}  // namespace optimisers::inline OPT_ABI
