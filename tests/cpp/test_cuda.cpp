// test_cuda.cpp: leaves on a device give the host's bits. The device is emulated: its kernels run as loops.
#include <cmath>

#include "cuda_support.hpp"
#include "optimisers/optimisers.hpp"
#include "optimisers/sweeps.hpp"

namespace optimisers::test {
namespace {

namespace opt = optimisers;

void as_the_page_says(float* x_pointer, float* dx_pointer, std::size_t n, void* stream) {
#include "gpu_page.inc"
}

constexpr DType leaf_dtypes[] = {DType::float16, DType::bfloat16,  DType::float32,
                                 DType::float64, DType::complex64, DType::complex128};

TEST_F(Cuda, EveryRuleGivesTheHostsBits) {
  for (const RuleInfo& info : rule_registry()) {
    if (info.summing()) continue;  // refused on a device
    for (const DType dtype : leaf_dtypes) {
      if (is_complex_dtype(dtype) && info.refuses_complex) continue;
      Pair pair;
      int seed = 0;
      for (const std::int64_t size : {0, 1, 5, 4099, 70'003}) {
        pair.add("n" + std::to_string(size), twin(dtype, {size}, seed + 1), twin(dtype, {size}, seed + 2),
                 {{some(info)}, {}, {}});
        seed += 2;
      }
      pair.set_up();
      for (int step = 0; step < 4; ++step) pair.step();
      pair.expect_equal(std::string(info.text.name) + " " + std::string(name_of(dtype)));
    }
  }
}

TEST_F(Cuda, ARuleWithItsConditionalSlotsDoes) {
  Pair pair;
  pair.add("a", twin(DType::float32, {777}, 1), twin(DType::float32, {777}, 2),
           {{rule("RMSProp", {{"centred", true}})}, {}, {}});
  pair.set_up();
  for (int step = 0; step < 3; ++step) pair.step();
  pair.expect_equal("centred");
}

TEST_F(Cuda, ChainsFusedAndInterpretedDo) {
  const auto clip = rule("ClipNorm", {{"omega", 0.5}});
  const auto global = rule("ClipNorm", {{"omega", 2.0}, {"scope", std::string("global")}});
  const std::vector<std::vector<RuleValue>> chains{
      {},
      {clip, rule("Adam")},
      {global, rule("AdamW", {{"lambda", 0.1}})},
      {rule("WeightDecay"), rule("Adam")},
      {rule("WeightDecay"), rule("Lion")},
      {rule("Adam"), clip},
      {rule("ClipGrad", {{"delta", 0.3}}), rule("SignDecay"), rule("RMSProp"), rule("Momentum")},
      {global, rule("Momentum"), clip, global, rule("AMSGrad"), global},
      {rule("AccumGrad", {{"n", 3.0}}), global, rule("Adam")},
      {clip, rule("AccumGrad", {{"n", 2.0}}), rule("Rprop"), rule("AccumGrad", {{"n", 2.0}}), clip}};
  for (std::size_t c = 0; c < chains.size(); ++c) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
      Pair pair;
      int seed = 100;
      for (const std::int64_t size : {3, 1000, 40'000, 0, 300'000}) {
        pair.add("n" + std::to_string(size), twin(dtype, {size}, seed + 1), twin(dtype, {size}, seed + 2),
                 {chains[c], {}, {}});
        seed += 2;
      }
      pair.set_up();
      for (int step = 0; step < 7; ++step) {
        if (step == 3) pair.step({1, 2});
        else pair.step();
      }
      pair.expect_equal("chain " + std::to_string(c) + " " + std::string(name_of(dtype)));
    }
  }
}

TEST_F(Cuda, EveryOrderOfTheNormDoes) {
  for (const double p : {1.0, 2.0, double(INFINITY), -double(INFINITY), 3.0, 0.5, -2.0}) {
    for (const DType dtype : {DType::float32, DType::complex64, DType::float64}) {
      Pair pair;
      const auto clip = rule("ClipNorm", {{"omega", 0.5}, {"p", p}, {"scope", std::string("global")}});
      for (int i = 0; i < 300; ++i)  // more leaves than lanes
        pair.add("x" + std::to_string(i), twin(dtype, {i == 7 ? 100'000 : 10}, 2 * i),
                 twin(dtype, {i == 7 ? 100'000 : 10}, 2 * i + 1), {{clip, rule("Descent")}, {}, {}});
      pair.set_up();
      for (int step = 0; step < 2; ++step) pair.step();
      pair.expect_equal("p " + std::to_string(p));
      std::vector<ArrayView> here, there;
      for (std::size_t i = 0; i < 300; ++i) {
        here.push_back(pair.dx(i).view(false));
        there.push_back(pair.dx(i).view(true));
      }
      EXPECT_EQ(norm(here, p), norm(there, p)) << p;
    }
  }
}

TEST_F(Cuda, NormsBeyondTheRangeOfDoubleAreRescued) {
  for (const double scale : {1e200, 1e-200, 1.0, 0.0}) {
    std::vector<double> values;
    for (int i = 0; i < 50'000; ++i) values.push_back(scale * (i % 7 - 3));
    Vector<double> here(values);
    std::byte* memory = cuda::allocate(device, values.size() * 8);
    cuda::copy(memory, device, reinterpret_cast<const std::byte*>(values.data()), on_host, values.size() * 8);
    ArrayView there = here.view();
    there.data = memory;
    there.device = device;
    for (const double p : {2.0, 1.0, 3.0}) EXPECT_EQ(norm({{here.view()}}, p), norm({{there}}, p)) << scale << " " << p;
    cuda::release(device, memory);
  }
}

TEST_F(Cuda, MixedPrecisionDoesAndTakesEdits) {
  for (const DType dtype : {DType::bfloat16, DType::float16, DType::float32, DType::complex64}) {
    for (const DType master : {DType::float32, DType::float64}) {
      Pair pair;
      pair.add("a", twin(dtype, {5000}, 1), twin(dtype, {5000}, 2), {{rule("Adam")}, master, {}});
      pair.add("b", twin(dtype, {40, 30}, 3, {1, 40}), twin(dtype, {40, 30}, 4), {{rule("Momentum")}, master, {}});
      pair.set_up();
      pair.step();
      pair.step();
      Twin edited(dtype, {5000}, {}, 9);
      for (const bool there : {false, true}) lerp({{pair.x(0).view(there)}}, {{edited.view(there)}}, 0.5, named({"a"}));
      pair.step();
      pair.expect_equal(std::string(name_of(dtype)) + " " + std::string(name_of(master)));
    }
  }
}

TEST_F(Cuda, AnyStridesAlignmentAndGradientTypeDo) {
  const Program adam{{rule("Adam")}, {}, {}};
  for (const DType dtype : leaf_dtypes) {
    Pair pair;
    pair.add("transposed", twin(dtype, {30, 40}, 1, {1, 30}), twin(dtype, {30, 40}, 2), adam);
    pair.add("columns", twin(dtype, {30, 10}, 3, {40, 2}), twin(dtype, {30, 10}, 4, {1, 50}), adam);
    pair.add("misaligned", twin(dtype, {999}, 5, {}, 1), twin(dtype, {999}, 6, {}, 3), adam);
    pair.add("off 16", twin(dtype, {999}, 7, {}, size_of(dtype)), twin(dtype, {999}, 8), adam);
    pair.add("broadcast", twin(dtype, {30, 40}, 9), twin(dtype, {30, 40}, 10, {0, 1}), adam);
    pair.add("integers", twin(dtype, {100}, 11), twin(DType::int32, {100}, 12), adam);
    pair.add("wide", twin(dtype, {100}, 13),
             twin(is_complex_dtype(dtype) ? DType::complex128 : DType::float64, {100}, 14), adam);
    pair.set_up();
    for (int step = 0; step < 3; ++step) pair.step({}, step == 1);
    pair.expect_equal(std::string(name_of(dtype)));
  }
}

TEST_F(Cuda, AdjustingFreezingAndCopyingDo) {
  Pair pair;
  for (int i = 0; i < 3; ++i)
    pair.add("x" + std::to_string(i), twin(DType::float32, {100}, i), twin(DType::float32, {100}, i + 10),
             {{rule("Adam")}, {}, {}});
  pair.set_up();
  pair.step();
  const std::uint32_t one = 1, two = 2;
  for (const bool there : {false, true}) {
    pair.of(there).set_frozen({&one, 1}, true);
    pair.of(there).adjust({&two, 1}, {{{"eta", 0.1}}});
  }
  pair.step();
  for (const bool there : {false, true}) {
    pair.of(there).set_frozen({&one, 1}, false);
    const double clock[] = {0.5, 0.25, 3};
    pair.of(there).set_clock(0, 0, clock);
  }
  const Optimiser copy(pair.of(true));
  pair.step({0});
  pair.expect_equal("adjusted");
  EXPECT_EQ(const_cast<Optimiser&>(copy).clock(0, 0)[0], 0.5);
  EXPECT_NE(const_cast<Optimiser&>(copy).clock(1, 0)[0], pair.of(true).clock(1, 0)[0]);
}

TEST_F(Cuda, TheApiInFrontOfItTakesSpansOfDeviceMemory) {
  std::vector<float> here(1000, 1.f), gradient(1000, 0.5f), back(1000);
  const auto bytes = [](auto* p) { return reinterpret_cast<std::byte*>(p); };
  auto* x = reinterpret_cast<float*>(cuda::allocate(device, 4000));
  auto* dx = reinterpret_cast<float*>(cuda::allocate(device, 4000));
  cuda::copy(bytes(x), device, bytes(here.data()), on_host, 4000);
  cuda::copy(bytes(dx), device, bytes(gradient.data()), on_host, 4000);
  State on_the_host = setup(Chain{ClipNorm{1.0}, AdamW{.eta = 0.1}}, here);
  State there = setup(Chain{ClipNorm{1.0}, AdamW{.eta = 0.1}}, cuda::span(x, 1000));
  for (int step = 0; step < 3; ++step) {
    on_the_host.update(here, gradient);
    there.update(cuda::span(x, 1000), cuda::span(dx, 1000));
  }
  there.wait();
  cuda::copy(bytes(back.data()), on_host, bytes(x), device, 4000);
  EXPECT_EQ(back, here);
  EXPECT_EQ(there.leaf(0).clock("beta1_t"), on_the_host.leaf(0).clock("beta1_t"));
  EXPECT_THROW(there.update(here, gradient), Error);
  cuda::release(device, bytes(x));
  cuda::release(device, bytes(dx));
}

TEST_F(Cuda, TheProgramInTheGuideTakesAStep) {
  Twin x(DType::float32, {100}, {}, 1), dx(DType::float32, {100}, {}, 2);
  Vector<float> here(100, 0), there(100, 0), gradient(100, 0);
  const auto floats = [](Twin& twin, bool device_side) {
    return reinterpret_cast<float*>(twin.view(device_side).data);
  };
  std::copy_n(floats(x, false), 100, here.values.begin());
  std::copy_n(floats(dx, false), 100, gradient.values.begin());
  setup(Adam{}, here.values).update(here.values, gradient.values);
  as_the_page_says(floats(x, true), floats(dx, true), 100, nullptr);
  cuda::copy(reinterpret_cast<std::byte*>(there.values.data()), on_host, x.view(true).data, device, 400);
  EXPECT_EQ(there.values, here.values);
}

}  // namespace
}  // namespace optimisers::test
