// steps.cpp: step_bench_O0, _O2, _O3 [--only TEXT] [--rounds N] [--calls N]
// What a step costs a program that is compiled at that level: over ten elements beside a naive loop, and over 10^5
// floats of a chain written as Chain{...} and as Fused{...} beside the same as a RuntimeChain. Prints a line of JSON
// for each. With --calls, makes so many of each that is named and times nothing, for counters of instructions.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optimisers/optimisers.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "timing.hpp"

namespace bench {

template <class T>
void naive_adam(T* x, const T* dx, T* m, T* v, std::size_t n, long t);

namespace {

namespace opt = optimisers;

struct Step {
  std::string name;
  std::function<void()> run;
  double elements;
};
using Group = std::vector<Step>;  // the first is what the others are compared with

template <class T>
struct Arrays {
  std::vector<T> x, dx, m, v;
  long t = 0;
  explicit Arrays(std::size_t n) : x(n, T(1)), dx(n, T(0.01)), m(n), v(n) {}
};

template <class T>
Group small(const char* type) {
  constexpr std::size_t n = 10;
  auto by_hand = std::make_shared<Arrays<T>>(n), ours = std::make_shared<Arrays<T>>(n);
  auto state = std::make_shared<opt::State>(opt::setup(opt::Adam{}, ours->x));
  const std::string name = std::string("n=10/") + type + "/";
  return {{name + "naive",
           [=] {
             Arrays<T>& a = *by_hand;
             naive_adam(a.x.data(), a.dx.data(), a.m.data(), a.v.data(), n, ++a.t);
           },
           n},
          {name + "update", [=] { state->update(ours->x, ours->dx); }, n}};
}

template <class Rule>
Step chain(const char* name, const Rule& rule) {
  constexpr std::size_t n = 100'000;
  auto x = std::make_shared<std::vector<float>>(n, 1.f), dx = std::make_shared<std::vector<float>>(n, 0.01f);
  auto state = std::make_shared<opt::State>(opt::setup(rule, *x));
  return {std::string("n=100000/") + name, [=] { state->update(*x, *dx); }, double(n)};
}

Group chains() {
  const opt::WeightDecay decay{.lambda = 1e-3};
  const opt::AdamW adam{.eta = 1e-3, .lambda = 0.01};
  const opt::ClipGrad clip{.delta = 0.5};
  return {chain("RuntimeChain", opt::RuntimeChain{clip, decay, adam}), chain("Chain", opt::Chain{clip, decay, adam}),
          chain("Fused", opt::Fused{clip, decay, adam})};
}

void print(const Group& group, const std::vector<Quartiles>& results) {
  for (std::size_t i = 0; i < group.size(); ++i)
    std::printf(R"({"level": "%s", "step": "%s", "ns": %.1f, "least": %.1f, "more_than_first": %.1f, )"
                R"("times_first": %.3f})"
                "\n",
                BENCH_LEVEL, group[i].name.c_str(), results[i].median * 1e9, results[i].least * 1e9,
                (results[i].least - results[0].least) * 1e9, results[i].least / results[0].least);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  using namespace bench;
  std::string only;
  long calls = 0;
  Settings settings{.rounds = 201};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view key = argv[i];
    if (key == "--only") only = argv[i + 1];
    else if (key == "--rounds") settings.rounds = std::max(1, std::atoi(argv[i + 1]));
    else if (key == "--calls") calls = std::atol(argv[i + 1]);
    else return std::fprintf(stderr, "step_bench: unknown argument %s\n", argv[i]), 2;
  }
  optimisers::set_num_threads(1);
  for (const Group& group : {small<float>("float"), small<double>("double"), chains()}) {
    std::vector<std::function<void()>> runs;
    for (const Step& step : group) {
      if (calls > 0 && step.name.find(only) != std::string::npos)
        for (long i = 0; i < calls; ++i) step.run();
      runs.push_back(step.run);
    }
    const bool named = group[0].name.find(only) != std::string::npos || only.empty();
    if (calls == 0 && named) print(group, compare(runs, settings));
  }
}
