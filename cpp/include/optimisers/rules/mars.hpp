// mars.hpp: MARS, variance reduction before AdamW (Yuan et al. 2024, arXiv:2411.10438)
// A summing rule: squares of the corrected gradient, which is clipped to norm 1 over the leaf.
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct MARS {
  double eta = 3e-3;
  Pair beta = {0.95, 0.99};
  double lambda = 0;
  double epsilon = 1e-8;
  double correction = 0.025;

  static constexpr Text text{
      .name = "MARS",
      .summary = "AdamW of gradients corrected by their last change.",
      .update =
          "c = dx + γ β₁/(1−β₁) (dx − g), at first dx;  g ← dx   (γ is correction)\n"
          "c ← c / max(1, ‖c‖) over the leaf\ndx ← η (m̂/(√v̂ + ε) + λ x)   (m̂, v̂ as in Adam, of c)",
      .notes =
          "As the authors' approximate MARS-AdamW, which runs plain AdamW on vectors: give those another rule. g is "
          "a copy; their code keeps the gradient itself, which zero_grad may clear. An infinity or NaN in a gradient "
          "is an error, and nothing is written.",
      .reference = "Yuan et al. 2024, arXiv:2411.10438"};
  static constexpr std::tuple fields{
      Field{"eta", &MARS::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &MARS::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &MARS::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &MARS::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"correction", &MARS::correction, Range::nonnegative, "how much of the gradient's change is added"}};
  static constexpr std::array slots{Slot<MARS>{"m"}, Slot<MARS>{.name = "v", .real = true}, Slot<MARS>{"g"}};
  static constexpr std::array sums{"squares of the corrected gradient"};
  friend bool operator==(const MARS&, const MARS&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    Adam::Step<R> adam;
    R decay, change, clip;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const bool first = c.t == 0;
    const double change = first ? 0 : correction * beta.first / (1 - beta.first);
    return {Adam{eta, beta, epsilon}.tick<R>(c), R(eta * lambda), R(change), R(1)};
  }
  template <class T>
  OPT_FN static T corrected(const Step<real_t<T>>& k, T dx, T g) {
    return dx + k.change * (dx - g);
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& k, T /*x*/, T dx, T /*m*/, real_t<T> /*v*/, T g) {
    return {{wide_abs2(corrected<T>(k, dx, g))}};
  }
  template <class R>
  OPT_FN void finish(Clock&, Step<R>& k, const Sums<1>& found, double /*elements*/) const {
    k.clip = R(1 / maximum(1.0, root(found.of[0])));
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v, T& g) {
    const T given = dx;
    dx = k.clip * corrected<T>(k, dx, g);
    g = given;
    Adam::apply<T>(k.adam, x, dx, m, v);
    dx = dx + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
