// plugin.cpp: one of two plugins of a process that each carry the static library. Compiled without -fvisibility.
#include <optimisers/optimisers.h>

#include <optimisers/optimisers.hpp>
#include <vector>

namespace opt = optimisers;

namespace {

// A rule of the plugin's own, of one name in both and with another arithmetic in each.
struct Own {
  double eta = 1;
  static constexpr opt::Text text{.name = "Own"};
  static constexpr std::tuple fields{opt::Field{"eta", &Own::eta, opt::Range::nonnegative, "learning rate"}};
  static constexpr std::array<opt::Slot<Own>, 0> slots{};
  friend bool operator==(const Own&, const Own&) = default;
  template <class R>
  struct Step {
    R eta;
  };
  template <class R>
  Step<R> tick(opt::NoClock&) const {
    return {R(eta)};
  }
  template <class T>
  OPT_FN static void apply(const Step<opt::real_t<T>>& k, T /*x*/, T& dx) {
    dx = (k.eta * opt::real_t<T>(FACTOR)) * dx;
  }
};

opt::Program program;

}  // namespace

// A program of this plugin, for the other one to train by.
extern "C" const void* program_of_plugin() {
  program = opt::program_of(opt::Chain{opt::WeightDecay{.lambda = 0}, opt::Adam{.eta = 0.1}});
  return &program;
}

// Trains by a program that comes from anywhere and changes it by value and by name; then by rules of its own and
// through the C interface. Returns 0 if all went as it should, or the number of what did not.
extern "C" int train(const void* given) {
  std::vector<float> x(3, 1.f), dx(3, 1.f);
  opt::State state = opt::setup(*static_cast<const opt::Program*>(given), x);
  if (!state.try_update(x, dx)) return 1;
  try {
    state.adjust(opt::Adam{.eta = 0.5});
    state.leaf(0).adjust("eta", 0.25);
  } catch (const opt::Error&) {
    return 2;
  }
  if (!(state.leaf(0).rule(1) == opt::AnyRule(opt::Adam{.eta = 0.25}))) return 3;

  std::vector<float> y(2, 0.f), dy(2, 1.f);
  opt::State own = opt::setup(opt::Chain{Own{}, opt::ClipGrad{.delta = 100}}, y);
  own.update(y, dy);
  if (y[0] != -float(FACTOR)) return 4;

  optimisers_array a = {y.data(), 2, OPTIMISERS_FLOAT32, 0, nullptr, nullptr};
  optimisers_state* c = nullptr;
  if (optimisers_create("Adam", &a, 1, nullptr, &c) != OPTIMISERS_OK) return 5;
  optimisers_destroy(c);
  return 0;
}
