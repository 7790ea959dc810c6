// main.cpp: a program that fits a line with a rule of its own, a fused chain and a run-time chain.
#include <cmath>
#include <cstdio>
#include <optimisers/optimisers.hpp>
#include <vector>

namespace {

// Heavy ball with a sign: what another program might add to the library's rules.
struct SignMomentum {
  double eta = 1e-3, rho = 0.9;
  static constexpr optimisers::Text text{.name = "SignMomentum"};
  static constexpr std::tuple fields{
      optimisers::Field{"eta", &SignMomentum::eta, optimisers::Range::nonnegative, "learning rate"},
      optimisers::Field{"rho", &SignMomentum::rho, optimisers::Range::unit, "decay"}};
  static constexpr std::array slots{optimisers::Slot<SignMomentum>{"m"}};
  friend bool operator==(const SignMomentum&, const SignMomentum&) = default;
  template <class R>
  struct Step {
    R eta, rho;
  };
  template <class R>
  Step<R> tick(optimisers::NoClock&) const {
    return {R(eta), R(rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<optimisers::real_t<T>>& k, T /*x*/, T& dx, T& m) {
    m = k.rho * m + dx;
    dx = k.eta * optimisers::sign(m);
  }
};

// y = 2 t + 1 at 20 places; returns how far from the truth the fit ends.
template <class Rule>
double fit(const Rule& rule) {
  std::vector<double> line{0, 0}, gradient(2);
  optimisers::State state = optimisers::setup(rule, {{"line", line}});
  for (int i = 0; i < 4000; ++i) {
    gradient = {0, 0};
    for (int k = 0; k < 20; ++k) {
      const double t = 0.1 * k, error = line[0] * t + line[1] - (2 * t + 1);
      gradient[0] += error * t / 10;
      gradient[1] += error / 10;
    }
    if (i == 3000) state.adjust("eta", 1e-4);
    state.update(line, gradient);
  }
  return std::abs(line[0] - 2) + std::abs(line[1] - 1);
}

}  // namespace

int try_without_exceptions();

int main() {
  using optimisers::Chain;
  const double own = fit(SignMomentum{});
  const double fused = fit(Chain{optimisers::ClipNorm{.omega = 1.0}, optimisers::Adam{.eta = 1e-2}});
  const double text = fit(optimisers::parse_program("OptimiserChain(ClipNorm(1.0), Adam(eta=1e-2))"));
  std::printf("optimisers %s: own rule %.4f, fused chain %.4f\n", optimisers::version, own, fused);
  return own < 0.02 && fused < 0.02 && fused == text ? try_without_exceptions() : 1;
}
