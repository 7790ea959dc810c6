// hand.cpp: what one writes by hand for one rule and this one machine: Adam, and AdamW behind a clip of the global
// norm. Plain loops, fused multiply-adds allowed, no checks. The yardstick for arithmetic and for overhead.
#include <cmath>

#include "leaves.hpp"

namespace bench {
namespace {

using std::int64_t;

constexpr double eta = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, lambda = 0.01, omega = 1.0;

struct Scalars {
  float scale, epsilon, clip, keep;
};
Scalars scalars(int64_t t, double clip, bool decays) {
  const double root = std::sqrt(1 - std::pow(beta2, double(t)));
  return {float(eta * root / (1 - std::pow(beta1, double(t)))), float(epsilon * root), float(clip),
          decays ? float(1 - eta * lambda) : 1.0f};
}

template <bool Chain>
void adam(float* x, const float* dx, float* m, float* v, int64_t n, Scalars k) {
  constexpr float b1 = float(beta1), c1 = float(1 - beta1), b2 = float(beta2), c2 = float(1 - beta2);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const float g = Chain ? k.clip * dx[i] : dx[i];
    const float moment = b1 * m[i] + c1 * g, square = b2 * v[i] + c2 * (g * g);
    m[i] = moment;
    v[i] = square;
    x[i] = (Chain ? k.keep * x[i] : x[i]) - k.scale * moment / (std::sqrt(square) + k.epsilon);
  }
}

template <bool Chain>
void step(const Leaves& l, int64_t t, int threads) {
  const double norm = Chain ? std::sqrt(sum_of_squares(l, threads)) : 0;
  const Scalars k = scalars(t, norm > omega ? omega / norm : 1, Chain);
  on_threads(l, threads, [&](int64_t leaf, int64_t begin, int64_t end) {
    adam<Chain>(at<float>(l.x[leaf], begin), at<float>(l.dx[leaf], begin), at<float>(l.slot[leaf], begin),
                at<float>(l.slot[l.count + leaf], begin), end - begin, k);
  });
}

}  // namespace
}  // namespace bench

// The t-th step, t from 1.
BENCH_API void bench_adam(const bench::Leaves* leaves, std::int64_t t, int threads) {
  bench::step<false>(*leaves, t, threads);
}
BENCH_API void bench_clipped_adamw(const bench::Leaves* leaves, std::int64_t t, int threads) {
  bench::step<true>(*leaves, t, threads);
}
