// muon.hpp: Muon, momentum made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon)
// A matrix rule: the momentum of a leaf is transformed whole by a polynomial of few steps (Newton-Schulz).
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct Muon {
  enum class Scaling : std::uint8_t { original, match_rms, spectral };
  enum class Coefficients : std::uint8_t { keller, polar_express };

  double eta = 0.02;
  double rho = 0.95;
  double lambda = 0;
  bool nesterov = true;
  Scaling scaling = Scaling::original;
  Layout layout = Layout::out_in;
  bool batched = false;
  Coefficients coefficients = Coefficients::keller;
  std::int64_t steps = 5;

  static constexpr Text text{
      .name = "Muon",
      .summary = "Momentum made orthogonal, for weight matrices: hidden layers, not embeddings, heads or biases.",
      .update =
          "m ← ρ m + (1−ρ) dx;  u ← (1−ρ) dx + ρ m if nesterov, else m\n"
          "o ← u/‖u‖ made orthogonal in `steps` steps X ← a X + b (XXᵀ) X + c (XXᵀ)² X\n"
          "dx ← η (s o + λ x),  s: original √max(1, out/in), match_rms 0.2 √max(out, in), spectral √(out/in)",
      .notes =
          "A leaf is the matrix [out, all other axes] (torch's layout), or [all other axes, out] with "
          "layout=\"in_out\" (JAX's and Flax's kernels); with batched=True the first axis counts matrices. Leaves with "
          "fewer axes are an error: give those another rule. The products are in the type the leaf is computed in, "
          "float32 for 16-bit leaves, where the authors' code takes bfloat16. Convolutions are scaled by their "
          "matrix, where that code takes the kernel's sides. coefficients=\"polar_express\" are those computed for 5 "
          "steps, with their safety of 1.02; the fifth is repeated. torch.optim.Muon has λ = 0.1, η = 1e-3. Missing "
          "gradients leave a leaf alone. An infinity or NaN is an error, and nothing is written.",
      .reference = "Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982; Amsel et al. 2025, arXiv:2505.16932"};
  static constexpr std::tuple fields{
      Field{"eta", &Muon::eta, Range::nonnegative, "learning rate"},
      Field{"rho", &Muon::rho, Range::unit, "decay of the momentum"},
      Field{"lambda", &Muon::lambda, Range::nonnegative, "decoupled weight decay, times the learning rate"},
      Field{"nesterov", &Muon::nesterov, Range::choice, "look ahead by one gradient"},
      Field{"scaling", &Muon::scaling, Range::choice, "how the step depends on the matrix's sides"},
      Field{"layout", &Muon::layout, Range::choice, "which axis is the output's"},
      Field{"batched", &Muon::batched, Range::choice, "the first axis counts matrices"},
      Field{"coefficients", &Muon::coefficients, Range::choice, "of the polynomials"},
      Field{"steps", &Muon::steps, Range::count, "polynomials applied"}};
  static constexpr std::array slots{Slot<Muon>{"m"}};
  static constexpr std::array sums{"squares of the momentum"};
  static constexpr const char* refuses_complex = "its matrices are real; view the leaf as real numbers";
  friend bool operator==(const Muon&, const Muon&) = default;

  Matrices matrices() const { return {layout, batched}; }
  Polynomial polynomial() const {
    static constexpr std::array<double, 3> one[] = {{3.4445, -4.7750, 2.0315}};
    static constexpr std::array<double, 3> five[] = {{8.156554524902461, -22.48329292557795, 15.878769915207462},
                                                     {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                                                     {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                                                     {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                                                     {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};
    return coefficients == Coefficients::keller ? Polynomial{steps, one, 1, 1, 1e-7}
                                                : Polynomial{steps, five, 5, 1.02, 1e-6};
  }

  template <class R>
  struct Step {
    R rho, rest, take_dx, take_m, scale, decay;
  };
  template <class R>
  OPT_FN Step<R> tick(NoClock&) const {
    return {R(rho), R(1 - rho), R(nesterov ? 1 - rho : 0), R(nesterov ? rho : 1), R(eta), R(eta * lambda)};
  }
  template <class T>
  OPT_FN static T entry(const Step<real_t<T>>& k, T /*x*/, T dx, T m) {
    return k.take_dx * dx + k.take_m * (k.rho * m + k.rest * dx);
  }
  template <class T>
  OPT_FN static Sums<1> terms(const Step<real_t<T>>& k, T x, T dx, T m) {
    return {{wide_abs2(entry<T>(k, x, dx, m))}};
  }
  template <class R>
  OPT_FN void finish(NoClock&, Step<R>& /*k*/, const Sums<1>& /*sums*/, double /*elements*/) const {}
  template <class R>
  void shaped(Step<R>& k, double out, double in) const {
    const double scale = scaling == Scaling::original    ? root(maximum(1.0, out / in))
                         : scaling == Scaling::match_rms ? 0.2 * root(maximum(out, in))
                                                         : root(out / in);
    k.scale = R(eta * scale);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T x, T o, T& dx, T& m) {
    m = k.rho * m + k.rest * dx;
    dx = k.scale * o + k.decay * x;
  }
};
template <>
inline constexpr std::array words_of<Muon::Scaling>{"original", "match_rms", "spectral"};
template <>
inline constexpr std::array words_of<Muon::Coefficients>{"keller", "polar_express"};

}  // namespace optimisers::inline OPT_ABI
