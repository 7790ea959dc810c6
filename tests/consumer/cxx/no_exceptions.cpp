// no_exceptions.cpp: a part of a program that is compiled without exceptions.
#include <cstdio>
#include <optimisers/optimisers.hpp>

int try_without_exceptions();

int try_without_exceptions() {
  std::vector<float> x(3, 1.f), g(3, 1.f);
  auto state = optimisers::try_setup(optimisers::Adam{.eta = 0.5}, {{"w", x}});
  if (!state || !state->try_update(x, g)) return 1;
  const auto failed = state->try_update(x, std::vector<float>(2));
  if (failed || failed.error().leaf != "w") return 1;
  if (optimisers::try_setup(optimisers::Adam{.eta = -1}, x)) return 1;
  std::printf("without exceptions: %s\n", failed.error().message.c_str());
  return 0;
}
