// main.cpp: trains by a rule of its own, by a fused chain and by the library's kernels, and prints the bits. With
// LIBRARY_ONLY nothing but the last. Ends with 1 where the chain's bits differ, with 2 where a call refuses to run.
#include <bit>
#include <cstdio>
#include <cstring>
#include <optimisers/optimisers.hpp>
#include <vector>

namespace opt = optimisers;

namespace {

// Products and sums wherever a compiler could join them.
struct Own {
  double eta = 0.01, rho = 0.9;
  static constexpr opt::Text text{.name = "Own"};
  static constexpr std::tuple fields{opt::Field{"eta", &Own::eta, opt::Range::nonnegative, "learning rate"},
                                     opt::Field{"rho", &Own::rho, opt::Range::unit, "decay"}};
  static constexpr std::array slots{opt::Slot<Own>{"m"}};
  friend bool operator==(const Own&, const Own&) = default;
  template <class R>
  struct Step {
    R eta, rho;
  };
  template <class R>
  Step<R> tick(opt::NoClock&) const {
    return {R(eta * rho + 0.001), R(rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<opt::real_t<T>>& k, T x, T& dx, T& m) {
    m = k.rho * m + dx;
    dx = k.eta * m + opt::real_t<T>(0.001) * x;
  }
};

unsigned long hash(const void* data, std::size_t bytes) {
  unsigned long h = 5381;
  for (std::size_t i = 0; i < bytes; ++i) h = h * 33 + static_cast<const unsigned char*>(data)[i];
  return h & 0xffffffff;
}

// The numbers are eighths: no flag has a say in them.
template <class T>
unsigned long train_in(const auto& rule) {
  std::vector<T> x(1000), dx(1000);
  for (int i = 0; i < 1000; ++i) {
    x[std::size_t(i)] = T(i % 37) / 8;
    dx[std::size_t(i)] = T(i % 23 - 11) / 8;
  }
  opt::State state = opt::setup(rule, x);
  for (int step = 0; step < 40; ++step) state.update(x, dx);
  return hash(x.data(), x.size() * sizeof(T));
}
unsigned long train(const auto& rule) { return train_in<float>(rule) ^ train_in<double>(rule) << 1; }

}  // namespace

// What flags of free arithmetic take away from a library that is compiled under them.
bool sees_infinities() {
  std::vector<float> x(3, 1.f), inf(3, std::bit_cast<float>(0x7f800000)), nan(3, std::bit_cast<float>(0x7fc00000));
  opt::State clip = opt::setup(opt::ClipNorm{}, x), lion = opt::setup(opt::Lion{}, x);
  const auto refused = clip.try_update(x, inf);
  if (refused || refused.error().kind != opt::ErrorKind::non_finite) return false;
  lion.update(x, nan);
  return (std::bit_cast<std::uint32_t>(x[0]) & 0x7fffffff) > 0x7f800000;
}

int main() {
  if (!sees_infinities()) {
    std::printf("an infinity or NaN was taken for a number\n");
    return 3;
  }
  const opt::WeightDecay decay{.lambda = 0.01};
  const opt::AdamW adam{.eta = 0.01, .lambda = 0.1};
  const unsigned long library = train(opt::Chain{decay, adam});
#ifdef LIBRARY_ONLY
  std::printf("%lx\n", library);
  return 0;
#else
  const auto own = opt::try_setup(Own{}, std::vector<float>(1));
  if (!own) {
    std::printf("refused: %s\n", own.error().message.c_str());
    return 2;
  }
  const unsigned long fused = train(opt::Fused{decay, adam});
  std::printf("%lx %lx %lx\n", library, fused, train(Own{}));
  return fused == library ? 0 : 1;
#endif
}
