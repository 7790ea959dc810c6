// prodigy.hpp: Prodigy, Adam that finds its learning rate (Mishchenko & Defazio 2023, arXiv:2306.06101)
// A summing rule whose clock is of the whole state: d is one number, estimated from all leaves of a call.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Prodigy {
  double eta = 1;
  Pair beta = {0.9, 0.999};
  double lambda = 0;
  double epsilon = 1e-8;
  double d0 = 1e-6;
  double coefficient = 1;
  bool bias_correction = false;
  bool safeguard = false;

  static constexpr Text text{
      .name = "Prodigy",
      .summary = "Adam that finds its learning rate: η stays at 1, or follows a schedule from 1 to 0.",
      .update =
          "m ← β₁ m + d(1−β₁) dx;  v ← β₂ v + d²(1−β₂) dx²;  s ← √β₂ s + d²η/d₀ dx\n"
          "over all leaves: N ← √β₂ N + Σ d²η/d₀ dx·(x₀ − x);  d' = max(d, c N/Σ|s|)\n"
          "dx ← η d (m/(√v + d'ε) + λ x);  d ← d'   (x₀: x at setup; c is coefficient)",
      .notes =
          "As the authors' code. d, N and the steps are of the whole state, in double: one number for all leaves, "
          "those "
          "that are frozen or join later too. There is no bias correction unless asked for (optax has it always); "
          "safeguard=True leaves η out of s, for warm-ups. Where all gradients have been 0 nothing moves. An infinity "
          "or "
          "NaN is an error, and nothing is written.",
      .reference = "Mishchenko & Defazio 2023, arXiv:2306.06101"};
  static constexpr std::tuple fields{
      Field{"eta", &Prodigy::eta, Range::nonnegative, "factor of the learning rate that is found"},
      Field{"beta", &Prodigy::beta, Range::unit, "decay of the first and the second moment"},
      Field{"lambda", &Prodigy::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"epsilon", &Prodigy::epsilon, Range::nonnegative, "added to the denominator, times d"},
      Field{"d0", &Prodigy::d0, Range::positive, "what d starts at"},
      Field{"coefficient", &Prodigy::coefficient, Range::positive, "of the estimate of d"},
      Field{"bias_correction", &Prodigy::bias_correction, Range::choice, "correct the moments' bias, as Adam"},
      Field{"safeguard", &Prodigy::safeguard, Range::choice, "leave the learning rate out of s"}};
  static constexpr std::array slots{Slot<Prodigy>{"m"}, Slot<Prodigy>{.name = "v", .real = true}, Slot<Prodigy>{"s"},
                                    Slot<Prodigy>{.name = "x0", .at_x = true}};
  static constexpr std::array sums{"gradients along the way back", "sizes of s"};
  OPT_FN Scope sums_over() const { return Scope::global; }
  static constexpr const char* refuses_complex = "the way from the start is measured in real numbers";
  friend bool operator==(const Prodigy&, const Prodigy&) = default;

  struct Clock {
    double t = 0, d = 0, numerator = 0;
  };
  static constexpr std::array clock{"t", "d", "numerator"};
  static constexpr int shared_clock = 3;

  template <class R>
  struct Step {
    R beta1, rest1, beta2, rest2, beta3, rest3;
    R back;  // of the numerator's terms
    R scale, epsilon, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const double d = c.d == 0 ? d0 : c.d;
    const double correction =
        bias_correction ? root(1 - std::pow(beta.second, c.t + 1)) / (1 - std::pow(beta.first, c.t + 1)) : 1;
    const double rate = d * eta * correction;
    return {R(beta.first),
            R(d * (1 - beta.first)),
            R(beta.second),
            R(d * d * (1 - beta.second)),
            R(root(beta.second)),
            R(d / d0 * (safeguard ? d : rate)),
            R(d / d0 * rate),
            R(rate),
            root_epsilon<R>(d * epsilon),
            R(rate * lambda)};
  }
  template <class T>
  OPT_FN static void moments(const Step<real_t<T>>& k, T dx, T& m, T& v, T& s) {
    m = k.beta1 * m + k.rest1 * dx;
    v = k.beta2 * v + k.rest2 * (dx * dx);
    s = k.beta3 * s + k.rest3 * dx;
  }
  template <class T>
  OPT_FN static Sums<2> terms(const Step<real_t<T>>& k, T x, T dx, T m, T v, T s, T x0) {
    moments<T>(k, dx, m, v, s);
    return {{double(k.back) * (double(dx) * (double(x0) - double(x))), double(magnitude(s))}};
  }
  template <class R>
  OPT_FN void finish(Clock& c, Step<R>& k, const Sums<2>& found, double /*elements*/) const {
    if (found.of[1] == 0) {
      k.scale = k.decay = 0;
      return;
    }
    const double d = c.d == 0 ? d0 : c.d;
    c.t += 1;
    c.numerator = root(beta.second) * c.numerator + found.of[0];
    c.d = maximum(d, coefficient * c.numerator / found.of[1]);
    k.epsilon = root_epsilon<R>(c.d * epsilon);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx, T& m, T& v, T& s, T& /*x0*/) {
    moments<T>(k, dx, m, v, s);
    dx = k.scale * m / (root(v) + k.epsilon) + k.decay * x;
  }
};

}  // namespace optimisers::inline OPT_ABI
