// plugin.cpp: a plugin that trains with the library inside it.
#include <optimisers/optimisers.hpp>
#include <vector>

#include "optimisers/threads.hpp"

extern "C" double plugin_train(int threads) {
  optimisers::set_num_threads(threads);
  std::vector<float> x(400'000, 1.f), g(x.size(), 1.f);
  optimisers::State state = optimisers::setup(optimisers::Descent{0.25}, x);
  for (int i = 0; i < 2; ++i) state.update(x, g);
  return x.front() + x.back();
}
