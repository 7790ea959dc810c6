// test_cuda_orders.cpp: blocks and threads may run in any order, many blocks at once. Results are the same, because
// phases end at barriers, and what one block writes for others is written by the last that comes.
#include <cstdlib>

#include "cuda_support.hpp"
#include "optimisers/sweeps.hpp"

namespace optimisers::test {
namespace {

class CudaOrders : public Cuda {
 protected:
  void TearDown() override { unsetenv("OPTIMISERS_EMULATED_ORDER"); }
  static void order(int number) { setenv("OPTIMISERS_EMULATED_ORDER", std::to_string(number).c_str(), 1); }
};
constexpr int orders = 8;

TEST_F(CudaOrders, StepsGiveTheHostsBits) {
  const auto clip = rule("ClipNorm", {{"omega", 0.5}});
  const auto global = rule("ClipNorm", {{"omega", 2.0}, {"scope", std::string("global")}});
  const std::vector<std::vector<RuleValue>> chains{
      {rule("Adam")},  // whose clock each block reads, and the last one writes
      {clip, rule("AdamW")},
      {rule("Momentum"), global, rule("AccumGrad", {{"n", 2.0}}), clip, rule("NAdam")}};
  for (int number = 1; number <= orders; ++number) {
    order(number);
    for (std::size_t c = 0; c < chains.size(); ++c) {
      for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
        Pair pair;
        int seed = 0;
        for (const std::int64_t size : {0, 3, 20'000, 70'000}) {  // of 1, 1, 5 and 18 blocks
          pair.add("n" + std::to_string(size), twin(dtype, {size}, seed + 1), twin(dtype, {size}, seed + 2),
                   {chains[c], {}, {}});
          seed += 2;
        }
        pair.add("strided", twin(dtype, {100, 80}, 20, {1, 100}), twin(dtype, {100, 80}, 21), {chains[c], {}, {}});
        pair.set_up();
        for (int step = 0; step < 4; ++step)
          pair.step(step == 2 ? std::vector<std::size_t>{3} : std::vector<std::size_t>{});
        pair.expect_equal("order " + std::to_string(number) + ", chain " + std::to_string(c) + ", " +
                          std::string(name_of(dtype)));
      }
    }
  }
}

// A second measurement of leaves whose sums left the range of double, beside others that did not.
TEST_F(CudaOrders, RescuedNormsDo) {
  std::vector<std::vector<double>> values;
  for (const double scale : {1e200, 1.0, 1e-200, 0.0}) {
    auto& v = values.emplace_back();
    for (int i = 0; i < 90'000; ++i) v.push_back(scale * (i % 7 - 3));
  }
  std::vector<Vector<double>> arrays;
  for (const auto& v : values) arrays.emplace_back(v);
  std::vector<ArrayView> here, there;
  for (std::size_t i = 0; i < values.size(); ++i) {
    here.push_back(arrays[i].view());
    ArrayView& on_device = there.emplace_back(here.back());
    on_device.data = cuda::allocate(device, values[i].size() * sizeof(double));
    on_device.device = device;
    cuda::copy(on_device.data, device, reinterpret_cast<const std::byte*>(values[i].data()), on_host,
               values[i].size() * sizeof(double));
  }
  for (int number = 1; number <= orders; ++number) {
    order(number);
    for (const double p : {1.0, 2.0, 3.0}) EXPECT_EQ(norm(here, p), norm(there, p)) << number << ", p " << p;
  }
  for (const ArrayView& a : there) cuda::release(device, a.data);
}

}  // namespace
}  // namespace optimisers::test
