// Trains on a GPU where there is one, and says why not where there is none.
#include <cmath>
#include <cstdio>
#include <optimisers/cuda.hpp>
#include <optimisers/optimisers.hpp>
#include <vector>

namespace opt = optimisers;

int main() {
  opt::cuda::use(opt::cuda::driver());
  const std::string why = opt::cuda::why_no_devices();
  if (!why.empty()) {
    std::printf("no GPU: %s\n", why.c_str());
    return 0;
  }
  constexpr std::size_t n = 1000;
  std::vector<float> here(n, 1.f), there(n);
  auto* x = reinterpret_cast<float*>(opt::cuda::allocate(0, n * sizeof(float)));
  const auto bytes = [](auto* p) { return reinterpret_cast<std::byte*>(p); };
  opt::cuda::copy(bytes(x), 0, bytes(here.data()), -1, n * sizeof(float));
  opt::State on_host = opt::setup(opt::Adam{}, here);
  opt::State on_gpu = opt::setup(opt::Adam{}, opt::cuda::span(x, n));
  for (int step = 0; step < 10; ++step) {  // the gradient of x²/2
    on_host.update(here, here);
    on_gpu.update(opt::cuda::span(x, n), opt::cuda::span(x, n));
  }
  opt::cuda::copy(bytes(there.data()), -1, bytes(x), 0, n * sizeof(float));
  opt::cuda::release(0, bytes(x));
  const bool equal = here == there;
  std::printf("on %s: %s\n", opt::cuda::devices()[0].name.c_str(), equal ? "the host's bits" : "other bits");
  return equal ? 0 : 1;
}
