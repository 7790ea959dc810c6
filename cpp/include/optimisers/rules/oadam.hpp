// oadam.hpp: optimistic Adam (Daskalakis et al. 2018, arXiv:1711.00141)
#pragma once
#include "optimisers/rule.hpp"
#include "optimisers/rules/adam.hpp"

namespace optimisers::inline OPT_ABI {

struct OAdam {
  double eta = 1e-3;
  Pair beta = {0.5, 0.9};
  double epsilon = 1e-8;

  static constexpr Text text{.name = "OAdam",
                             .summary = "Adam with an optimistic look-ahead, for games and adversarial training.",
                             .update = "o' ← η m̂ / (√v̂ + ε)   (m̂, v̂ as in Adam)\ndx ← 2 o' − o\no ← o'",
                             .notes = "As the paper and Optimisers.jl.",
                             .reference = "Daskalakis et al. 2018, arXiv:1711.00141"};
  static constexpr std::tuple fields{
      Field{"eta", &OAdam::eta, Range::nonnegative, "learning rate"},
      Field{"beta", &OAdam::beta, Range::unit, "decay of the first and the second moment"},
      Field{"epsilon", &OAdam::epsilon, Range::nonnegative, "added to the denominator"}};
  static constexpr std::array slots{Slot<OAdam>{"m"}, Slot<OAdam>{.name = "v", .real = true}, Slot<OAdam>{"o"}};
  friend bool operator==(const OAdam&, const OAdam&) = default;

  using Clock = Adam::Clock;
  static constexpr std::array clock = Adam::clock;

  template <class R>
  using Step = Adam::Step<R>;
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    return Adam{eta, beta, epsilon}.tick<R>(c);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, real_t<T>& v, T& o) {
    Adam::apply<T>(k, x, dx, m, v);
    const T now = dx;
    dx = (now + now) - o;
    o = now;
  }
};

}  // namespace optimisers::inline OPT_ABI
