// adamw.hpp: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)
// `couple` decides whether the decay is multiplied by the learning rate (PyTorch) or not (the paper).
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct AdamW {
  double eta = 1e-3;
  Pair beta = {0.9, 0.999};
  double lambda = 0;
  double epsilon = 1e-8;
  bool couple = true;

  static constexpr Text text{
      .name = "AdamW",
      .summary = "Adam with decoupled weight decay.",
      .update = "u ← m̂ / (√v̂ + ε)   (m̂, v̂ as in Adam)\ncouple: dx ← η (u + λ x)\notherwise: dx ← η u + λ x",
      .notes = "couple=True is torch.optim.AdamW (whose λ defaults to 0.01), couple=False the paper.",
      .reference = "Loshchilov & Hutter 2019, arXiv:1711.05101"};
  static constexpr std::tuple fields{
      Field{"eta", &AdamW::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &AdamW::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &AdamW::lambda, Range::nonnegative, "weight decay"},
      Field{"epsilon", &AdamW::epsilon, Range::nonnegative, "added to the denominator"},
      Field{"couple", &AdamW::couple, Range::choice, "multiply the weight decay by the learning rate"}};
  static constexpr std::array slots{Slot<AdamW>{"m"}, Slot<AdamW>{.name = "v", .real = true}};
  friend bool operator==(const AdamW&, const AdamW&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  struct Step {
    Adam::Step<R> adam;
    R decay;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    return {Adam{eta, beta, epsilon}.tick<R>(c), R(couple ? eta * lambda : lambda)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v) {
    Adam::apply<T>(k.adam, x, dx, m, v);
    dx = dx + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
