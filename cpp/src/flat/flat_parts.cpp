// flat_parts.cpp: copies between strided arrays and a flat one, with conversion and sums.
#include "flat/flat_parts.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/convert.hpp"
#include "cpu/dispatch.hpp"
#include "environment.hpp"
#include "memory/overlap.hpp"
#include "optimisers/threads.hpp"
#include "plan/portions.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// Elements [i * step] for i = 0 .. n-1, steps in bytes, of any alignment.
using Run = void (*)(const std::byte* from, std::int64_t from_step, std::byte* to, std::int64_t to_step,
                     std::int64_t n);

template <class To, class From>
OPT_FN To converted(From a) {
  if constexpr (is_complex<From> && !is_complex<To>) return cpu::convert<To>(a.re);
  else return cpu::convert<To>(a);
}

template <class To, class From, bool Add>
OPT_FN void one(const std::byte* from, std::byte* to) {
  From a;
  std::memcpy(&a, from, sizeof a);
  To b = converted<To>(a);
  if constexpr (Add) {
    To so_far;
    std::memcpy(&so_far, to, sizeof so_far);
    b = so_far + b;
  }
  std::memcpy(to, &b, sizeof b);
}

template <class To, class From, bool Add = false>
void run(const std::byte* from, std::int64_t from_step, std::byte* to, std::int64_t to_step, std::int64_t n) {
  constexpr std::int64_t from_size = sizeof(From), to_size = sizeof(To);
  if (from_step != from_size || to_step != to_size) {
    for (std::int64_t i = 0; i < n; ++i) one<To, From, Add>(from + i * from_step, to + i * to_step);
  } else if constexpr (std::is_same_v<To, From> && !Add) {
    std::memcpy(to, from, static_cast<std::size_t>(n * to_size));
  } else {
    for (std::int64_t i = 0; i < n; ++i) one<To, From, Add>(from + i * from_size, to + i * to_size);
  }
}

Run copy_of(DType to, DType from) {
  Run found = nullptr;
  cpu::with_trainable(to,
                      [&](auto t) { cpu::with_dtype(from, [&](auto f) { found = run<decltype(t), decltype(f)>; }); });
  return found;
}

// Into a compute type.
Run addition_of(DType to, DType from) {
  Run found = nullptr;
  cpu::with_compute(
      to, [&](auto t) { cpu::with_dtype(from, [&](auto f) { found = run<decltype(t), decltype(f), true>; }); });
  return found;
}

// Elements [begin, begin + n) of the array, one after the other.
void gather(const ArrayView& a, std::int64_t begin, std::int64_t n, Run each, std::byte* to, std::int64_t to_step) {
  for_each_run(a, begin, n, [&](const std::byte* from, std::int64_t step, std::int64_t count) {
    each(from, step, to, to_step, count);
    to += count * to_step;
  });
}

void sum_part(const FlatPart& s, std::int64_t begin, std::int64_t n, std::byte* to, DType dtype) {
  constexpr std::int64_t block = 512;
  alignas(16) std::byte sums[block * static_cast<std::int64_t>(sizeof(Complex<double>))];
  const DType compute = compute_dtype(dtype);
  const std::int64_t step = size_of(compute), to_step = size_of(dtype);
  const Run store = copy_of(dtype, compute);
  for (std::int64_t end = begin + n; begin < end; begin += block, to += block * to_step) {
    const std::int64_t count = std::min(block, end - begin);
    gather(s.array, begin, count, copy_of(compute, s.array.dtype), sums, step);
    for (const ArrayView& a : s.further) gather(a, begin, count, addition_of(compute, a.dtype), sums, step);
    store(sums, step, to, to_step, count);
  }
}

void pack_part(const FlatPart& s, std::int64_t begin, std::int64_t n, std::byte* to, DType dtype) {
  const std::int64_t unit = size_of(dtype);
  if (!s.array.present) std::memset(to, 0, static_cast<std::size_t>(n * unit));
  else if (s.further.empty()) gather(s.array, begin, n, copy_of(dtype, s.array.dtype), to, unit);
  else sum_part(s, begin, n, to, dtype);
}

// f(part, first element, count) for all of the flat array, an equal part of it on each thread.
template <class F>
void for_each_part(std::span<const FlatPart> parts, F&& f) {
  constexpr std::int64_t worth_a_thread = 1 << 15, line = 64;
  if (parts.empty()) return;
  const std::int64_t total = parts.back().begin + parts.back().size;
  const auto threads = std::clamp<std::int64_t>(total / worth_a_thread, 1, get_num_threads());
  const int portions = static_cast<int>(threads == 1 ? 1 : threads * parts_a_thread);
  const std::int64_t share = total / portions / line * line;
  const auto run_portion = [&](int p) {
    const std::int64_t lo = p * share, hi = p + 1 == portions ? total : lo + share;
    auto s = std::ranges::upper_bound(parts, lo, {}, [](const FlatPart& l) { return l.begin + l.size; });
    for (; s != parts.end() && s->begin < hi; ++s) {
      const std::int64_t begin = std::max(lo, s->begin), end = std::min(hi, s->begin + s->size);
      if (begin < end) f(*s, begin - s->begin, end - begin);
    }
  };
  if (portions == 1) run_portion(0);
  else parallel(portions, run_portion);
}

}  // namespace

void pack_parts(std::span<const FlatPart> parts, std::byte* flat, DType dtype) {
  const Call here;
  for_each_part(parts, [&](const FlatPart& s, std::int64_t begin, std::int64_t n) {
    pack_part(s, begin, n, flat + (s.begin + begin) * size_of(dtype), dtype);
  });
}

void unpack_parts(const std::byte* flat, DType dtype, std::span<const FlatPart> parts) {
  const Call here;
  const std::int64_t unit = size_of(dtype);
  for_each_part(parts, [&](const FlatPart& s, std::int64_t begin, std::int64_t n) {
    if (!s.array.present) return;
    const Run each = copy_of(s.array.dtype, dtype);
    const std::byte* from = flat + (s.begin + begin) * unit;
    for_each_run(s.array, begin, n, [&](std::byte* to, std::int64_t step, std::int64_t count) {
      each(from, unit, to, step, count);
      from += count * unit;
    });
  });
}

}  // namespace optimisers::inline OPT_ABI
