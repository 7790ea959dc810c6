// yogi.hpp: Yogi, Adam whose second moment changes by sums (Zaheer et al. 2018, NeurIPS)
// As the authors' TensorFlow code and optax: bias corrections, and a second moment that starts at a small number.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct Yogi {
  double eta = 1e-2;
  Pair beta = {0.9, 0.999};
  double epsilon = 1e-3;
  double initial = 1e-6;

  static constexpr Text text{
      .name = "Yogi",
      .summary = "Adam whose second moment moves by at most the squared gradient, however large it is.",
      .update =
          "m ← β₁ m + (1−β₁) dx\nv ← v − (1−β₂) sign(v − |dx|²) |dx|²\n"
          "dx ← η (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)   (m, v start at initial)",
      .notes =
          "optax.yogi and tensorflow_addons; the paper's algorithm has no bias corrections. For a complex leaf m "
          "starts "
          "at a real number.",
      .reference = "Zaheer et al. 2018, NeurIPS"};
  static constexpr std::tuple fields{
      Field{"eta", &Yogi::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &Yogi::beta, Range::unit, "decay of the first and rate of the second moment"},
      Field{"epsilon", &Yogi::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"initial", &Yogi::initial, Range::nonnegative, "what the moments start at"}};
  static constexpr std::array slots{Slot<Yogi>{.name = "m", .start = &Yogi::initial},
                                    Slot<Yogi>{.name = "v", .real = true, .start = &Yogi::initial}};
  friend bool operator==(const Yogi&, const Yogi&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  using Step = Adam::Step<R>;
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    return Adam{eta, beta, epsilon}.tick<R>(c);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m, real_t<T>& v) {
    const real_t<T> square = abs2(dx);
    m = k.beta1 * m + k.rest1 * dx;
    v = v - (k.rest2 * sign(v - square)) * square;
    dx = (k.scale * m) / (root(v) + k.epsilon);
  }
};

}  // namespace optimisers::inline OPT_ABI
