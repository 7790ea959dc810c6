// main.cpp: trains by the rule that was built; others are refused by name.
#include <cstdio>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

int main() {
  std::vector<float> x(100, 1.f), dx(100, 1.f);
  auto state = optimisers::try_setup(optimisers::Chain{optimisers::Descent{.eta = 1}, optimisers::Adam{.eta = 0.5}}, x);
  if (!state || !state->try_update(x, dx) || x[99] < 0.49f || x[99] > 0.51f) return 1;
  const auto lion = optimisers::try_setup(optimisers::Lion{}, x);
  if (lion || lion.error().message.find("Lion was left out") != 0) return 2;
  std::puts(lion.error().message.c_str());
  return 0;
}
