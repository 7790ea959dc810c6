// bare.cpp: the memory's limit. Each loop reads and writes the arrays a rule has to, adds once to each, and does
// nothing else: no root, no division. What a step costs beyond that is arithmetic or overhead.
#include <array>
#include <bit>
#include <cstring>

#include "leaves.hpp"

namespace bench {
namespace {

using std::int64_t;
using Bits = std::uint16_t;  // a bfloat16

float wide(Bits b) { return std::bit_cast<float>(std::uint32_t(b) << 16); }
Bits narrow(float f) { return Bits((std::bit_cast<std::uint32_t>(f) + 0x8000u) >> 16); }

// x and `Slots` state arrays are read and written, dx is read: 12 + 8 * Slots bytes an element.
template <int Slots>
void update(const Leaves& l, int64_t leaf, int64_t begin, int64_t end) {
  float* x = at<float>(l.x[leaf], 0);
  const float* dx = at<float>(l.dx[leaf], 0);
  std::array<float*, 4> s{};
  for (int k = 0; k < Slots; ++k) s[std::size_t(k)] = at<float>(l.slot[k * l.count + leaf], 0);
  float *a = s[0], *b = s[1], *c = s[2], *d = s[3];
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const float g = dx[i];
    x[i] += g;
    if constexpr (Slots > 0) a[i] += g;
    if constexpr (Slots > 1) b[i] += g;
    if constexpr (Slots > 2) c[i] += g;
    if constexpr (Slots > 3) d[i] += g;
  }
}

// 16-bit x and dx, two float32 slots: 22 bytes.
void half(const Leaves& l, int64_t leaf, int64_t begin, int64_t end) {
  Bits* x = at<Bits>(l.x[leaf], 0);
  const Bits* dx = at<Bits>(l.dx[leaf], 0);
  float *m = at<float>(l.slot[leaf], 0), *v = at<float>(l.slot[l.count + leaf], 0);
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const float g = wide(dx[i]);
    x[i] = narrow(wide(x[i]) + g);
    m[i] += g;
    v[i] += g;
  }
}

// 16-bit dx is read and x written, a float32 master copy and two slots are read and written: 28 bytes.
void master(const Leaves& l, int64_t leaf, int64_t begin, int64_t end) {
  Bits* x = at<Bits>(l.x[leaf], 0);
  const Bits* dx = at<Bits>(l.dx[leaf], 0);
  float *m = at<float>(l.slot[leaf], 0), *v = at<float>(l.slot[l.count + leaf], 0);
  float* w = at<float>(l.slot[2 * l.count + leaf], 0);
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const float g = wide(dx[i]), sum = w[i] + g;
    w[i] = sum;
    x[i] = narrow(sum);
    m[i] += g;
    v[i] += g;
  }
}

// dx is read, x written: 8 bytes.
void copy(const Leaves& l, int64_t leaf, int64_t begin, int64_t end) {
  std::memcpy(at<float>(l.x[leaf], begin), at<float>(l.dx[leaf], begin), std::size_t(end - begin) * sizeof(float));
}

using Loop = void (*)(const Leaves&, int64_t leaf, int64_t begin, int64_t end);
struct Kind {
  const char* name;
  Loop loop;
  bool measures;  // dx is read once more, before
};
constexpr Kind kinds[] = {
    {"update0", update<0>, false}, {"update1", update<1>, false}, {"update2", update<2>, false},
    {"update3", update<3>, false}, {"update4", update<4>, false}, {"clipped0", update<0>, true},
    {"clipped1", update<1>, true}, {"clipped2", update<2>, true}, {"clipped3", update<3>, true},
    {"clipped4", update<4>, true}, {"half", half, false},         {"master", master, false},
    {"copy", copy, false},         {"norm", nullptr, true},
};

double sum_of_piece(const float* a, int64_t n) {
  constexpr int64_t block = 4096;
  constexpr int lanes = 64;
  double sum = 0;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t end = std::min(n, start + block);
    float lane[lanes] = {};
    int64_t i = start;
    for (; i + lanes <= end; i += lanes)
      for (int k = 0; k < lanes; ++k) lane[k] += a[i + k] * a[i + k];
    for (int k = 0; i + k < end; ++k) lane[k] += a[i + k] * a[i + k];
    for (float f : lane) sum += double(f);
  }
  return sum;
}

}  // namespace

double sum_of_squares(const Leaves& leaves, int threads) {
  double sum = 0;
  on_threads(leaves, threads, [&](int64_t leaf, int64_t begin, int64_t end) {
    const double piece = sum_of_piece(at<float>(leaves.dx[leaf], begin), end - begin);
#pragma omp atomic
    sum += piece;
  });
  return sum;
}

}  // namespace bench

// Returns the sum of squares if the kind measures, 0 otherwise; -1: there is no such kind.
BENCH_API double bench_bare(const char* name, const bench::Leaves* leaves, int threads) {
  for (const bench::Kind& kind : bench::kinds) {
    if (std::strcmp(kind.name, name) != 0) continue;
    const double sum = kind.measures ? bench::sum_of_squares(*leaves, threads) : 0;
    if (kind.loop != nullptr)
      bench::on_threads(*leaves, threads,
                        [&](auto leaf, auto begin, auto end) { kind.loop(*leaves, leaf, begin, end); });
    return sum;
  }
  return -1;
}

BENCH_API int bench_has_threads() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}
