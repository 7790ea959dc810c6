// schedule_free.hpp: schedule-free learning behind any rule (Defazio et al. 2024, arXiv:2405.15682), the last stage
// The parameter is y, where gradients are taken. With x the average, y = (1−ρ) z + ρ x; in the authors' form
//   y ← (1−c) y + c z + (ρ (1−c) − 1) dx;  z ← z − dx.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct ScheduleFree {
  double rho = 0.9;
  double warmup = 0;
  double power = 0;

  static constexpr Text text{
      .name = "ScheduleFree",
      .summary = "Averages the parameter in place of a schedule of learning rates: the last stage.",
      .update =
          "s = min(t/warmup, 1);  w = tʳ s², r is power;  c = w / Σ w;  dx ← s dx\n"
          "dx' ← c (x − z) + (1 − ρ (1−c)) dx;  z ← z − dx;  dx ← dx'   (z starts at x)\n"
          "where the model is used: z + (x − z)/ρ",
      .notes =
          "Authors' AdamWScheduleFree: OptimiserChain(Adam(η, beta=(0, β₂)), WeightDecay(ηλ), ScheduleFree(ρ)); "
          "SGDScheduleFree: OptimiserChain(Descent(η), ScheduleFree(ρ)). The learning rate is constant: the warm-up is "
          "this stage's. What is evaluated and saved is z + (x − z)/ρ and not x, which is where gradients are taken. "
          "Sums of weights are in double, whatever the leaf; optax keeps them in the parameter's type, where bfloat16 "
          "stops growing.",
      .reference = "Defazio et al. 2024, arXiv:2405.15682"};
  static constexpr std::tuple fields{
      Field{"rho", &ScheduleFree::rho, Range::unit, "how far gradients are taken towards the average"},
      Field{"warmup", &ScheduleFree::warmup, Range::nonnegative, "steps over which the learning rate grows"},
      Field{"power", &ScheduleFree::power, Range::nonnegative, "of the step in the weights of the average"}};
  static constexpr std::array slots{Slot<ScheduleFree>{.name = "z", .at_x = true}};
  friend bool operator==(const ScheduleFree&, const ScheduleFree&) = default;

  struct Clock {
    double t = 0, weights = 0;
  };
  static constexpr std::array clock{"t", "weights"};

  template <class R>
  struct Step {
    R scale, average, push;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    c.t += 1;
    const double scale = c.t < warmup ? c.t / warmup : 1;
    const double weight = (power == 0 ? 1 : std::pow(c.t, power)) * scale * scale;
    c.weights += weight;
    const double average = weight / c.weights;
    return {R(scale), R(average), R(1 - rho * (1 - average))};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& z) {
    const T step = k.scale * dx;
    dx = k.average * (x - z) + k.push * step;
    z = z - step;
  }
};

}  // namespace optimisers::inline OPT_ABI
