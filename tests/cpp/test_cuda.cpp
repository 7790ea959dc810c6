// test_cuda.cpp: leaves on a device give the host's bits. The device is emulated: its kernels run as loops.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "optimisers/cuda.hpp"
#include "optimisers/error.hpp"
#include "optimisers/optimisers.hpp"
#include "optimisers/sweeps.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

constexpr int device = 0;

class Cuda : public testing::Test {
 protected:
  static void SetUpTestSuite() { cuda::use(cuda::driver()); }
};

// An array on the host and its copy on the device, of any strides and alignment.
class Twin {
 public:
  Twin(DType dtype, std::vector<std::int64_t> shape, std::vector<std::int64_t> strides, int seed, int misalign = 0)
      : shape_(std::move(shape)), strides_(std::move(strides)), dtype_(dtype), misalign_(misalign) {
    std::int64_t elements = 1;
    for (std::size_t i = 0; i < shape_.size(); ++i)
      elements = strides_.empty() ? elements * shape_[i] : elements + (shape_[i] - 1) * strides_[i];
    for (auto& s : strides_) s *= size_of(dtype);
    host_.resize(std::size_t(elements * size_of(dtype) + misalign));
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<double> normal(0, 2);
    for (std::int64_t i = 0; i < elements; ++i) put(i, normal(random), normal(random));
    on_device_ = cuda::allocate(device, host_.size());
    cuda::copy(on_device_, device, host_.data(), on_host, host_.size());
  }
  ~Twin() { cuda::release(device, on_device_); }
  Twin(const Twin&) = delete;

  ArrayView view(bool there) {
    return {.data = (there ? on_device_ : host_.data()) + misalign_,
            .shape = shape_.data(),
            .strides = strides_.empty() ? nullptr : strides_.data(),
            .ndim = std::int32_t(shape_.size()),
            .dtype = dtype_,
            .present = true,
            .device = there ? std::int8_t(device) : on_host};
  }
  void expect_equal(const std::string& what) const {
    std::vector<std::byte> there(host_.size());
    cuda::copy(there.data(), on_host, on_device_, device, there.size());
    ASSERT_TRUE(std::equal(there.begin(), there.end(), host_.begin())) << what;
  }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

 private:
  void put(std::int64_t i, double re, double im) {
    std::byte* to = host_.data() + misalign_ + i * size_of(dtype_);
    const auto write = [&](auto a) { std::memcpy(to, &a, sizeof a); };
    const auto bits = [](double v) {
      const float f = float(v);
      std::uint32_t b;
      std::memcpy(&b, &f, 4);
      return b;
    };
    switch (dtype_) {
      case DType::float32:
        return write(float(re));
      case DType::float64:
        return write(re);
      case DType::complex64:
        return write(Complex<float>{float(re), float(im)});
      case DType::complex128:
        return write(Complex<double>{re, im});
      case DType::bfloat16:
        return write(std::uint16_t(bits(re) >> 16));
      case DType::float16:  // of the same sign, between 1 and 2
        return write(std::uint16_t((bits(re) >> 16 & 0x8000u) | 0x3c00u | (bits(re) >> 13 & 0x3ffu)));
      case DType::int32:
        return write(std::int32_t(re * 3));
      default:
        FAIL();
    }
  }

  std::vector<std::int64_t> shape_, strides_;
  DType dtype_;
  int misalign_;
  std::vector<std::byte> host_;
  std::byte* on_device_;
};

// The same leaves on the host and on the device, through the same calls.
class Pair {
 public:
  void add(const std::string& name, std::unique_ptr<Twin> x, std::unique_ptr<Twin> dx, Program program) {
    names_.push_back(name);
    programs_.push_back(std::move(program));
    x_.push_back(std::move(x));
    dx_.push_back(std::move(dx));
  }
  void set_up() {
    for (const bool there : {false, true}) {
      std::vector<LeafSpec> specs;
      std::vector<ArrayView> x;
      for (std::size_t i = 0; i < x_.size(); ++i) {
        x.push_back(x_[i]->view(there));
        specs.push_back({names_[i], x_[i]->shape(), x_[i]->dtype(), programs_[i], x.back().device});
      }
      (there ? device_ : host_) = std::make_unique<Optimiser>(std::move(specs), x);
    }
  }
  // Leaves in `missing` get no gradient; with `further`, leaf 0 gets its gradient twice.
  void step(std::vector<std::size_t> missing = {}, bool further = false) {
    for (const bool there : {false, true}) {
      std::vector<LeafUpdate> u;
      std::vector<FurtherGradient> more;
      for (std::size_t i = 0; i < x_.size(); ++i) {
        const bool gone = std::find(missing.begin(), missing.end(), i) != missing.end();
        u.push_back(
            {.leaf = std::uint32_t(i), .x = x_[i]->view(there), .dx = gone ? ArrayView{} : dx_[i]->view(there)});
      }
      if (further) {
        u[0].more = 0;
        more.push_back({.dx = dx_[0]->view(there)});
      }
      of(there).update(u, more);
    }
  }
  void expect_equal(const std::string& what) {
    for (std::size_t i = 0; i < x_.size(); ++i) {
      x_[i]->expect_equal(what + ": x of " + names_[i]);
      const auto leaf = std::uint32_t(i);
      for (int s = 0; s < int(programs_[i].stages.size()); ++s) {
        const auto a = host_->slots(leaf, s), b = device_->slots(leaf, s);
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t k = 0; k < a.size(); ++k) expect_memory(i, a[k], b[k], what + ": slot " + a[k].name);
        const auto here = host_->clock(leaf, s), there = device_->clock(leaf, s);
        for (std::size_t c = 0; c < here.size(); ++c)
          ASSERT_EQ(here[c], there[c]) << what << ": clock of " << names_[i];
      }
      if (const auto a = host_->master(leaf)) expect_memory(i, *a, *device_->master(leaf), what + ": master");
    }
  }
  Optimiser& of(bool there) { return there ? *device_ : *host_; }
  Twin& x(std::size_t i) { return *x_[i]; }
  Twin& dx(std::size_t i) { return *dx_[i]; }

 private:
  void expect_memory(std::size_t leaf, const SlotView& a, const SlotView& b, const std::string& what) {
    std::int64_t n = 1;
    for (auto s : x_[leaf]->shape()) n *= s;
    std::vector<std::byte> there(std::size_t(n * size_of(a.dtype)));
    if (there.empty()) return;
    EXPECT_EQ(b.device, device);
    cuda::copy(there.data(), on_host, b.data, device, there.size());
    ASSERT_TRUE(std::equal(there.begin(), there.end(), a.data)) << what << " of " << names_[leaf];
  }
  std::vector<std::string> names_;
  std::vector<Program> programs_;
  std::vector<std::unique_ptr<Twin>> x_, dx_;
  std::unique_ptr<Optimiser> host_, device_;
};

std::unique_ptr<Twin> twin(DType dtype, std::vector<std::int64_t> shape, int seed,
                           std::vector<std::int64_t> strides = {}, int misalign = 0) {
  return std::make_unique<Twin>(dtype, std::move(shape), std::move(strides), seed, misalign);
}

RuleValue some(const RuleInfo& info) {
  RuleValue value(info);
  if (std::string(info.text.name) == "AccumGrad") value.set(*info.field("n"), 2.0);
  if (std::string(info.text.name) == "ClipNorm") value.set(*info.field("omega"), 1.0);
  return value;
}

constexpr DType leaf_dtypes[] = {DType::float16, DType::bfloat16,  DType::float32,
                                 DType::float64, DType::complex64, DType::complex128};

TEST_F(Cuda, EveryRuleGivesTheHostsBits) {
  for (const RuleInfo& info : rule_registry()) {
    for (const DType dtype : leaf_dtypes) {
      if (is_complex_dtype(dtype) && info.refuses_complex) continue;
      Pair pair;
      int seed = 0;
      for (const std::int64_t size : {0, 1, 5, 4099, 70'003}) {
        pair.add("n" + std::to_string(size), twin(dtype, {size}, ++seed), twin(dtype, {size}, ++seed),
                 {{some(info)}, {}, {}});
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
      for (const std::int64_t size : {3, 1000, 40'000, 0, 300'000})
        pair.add("n" + std::to_string(size), twin(dtype, {size}, ++seed), twin(dtype, {size}, ++seed),
                 {chains[c], {}, {}});
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
    const double clock[] = {0.5, 0.25};
    pair.of(there).set_clock(0, 0, clock);
  }
  const Optimiser copy(pair.of(true));
  pair.step({0});
  pair.expect_equal("adjusted");
  EXPECT_EQ(const_cast<Optimiser&>(copy).clock(0, 0)[0], 0.5);
  EXPECT_NE(const_cast<Optimiser&>(copy).clock(1, 0)[0], pair.of(true).clock(1, 0)[0]);
}

TEST_F(Cuda, ANormThatIsRefusedWritesNothingAndIsReportedOnce) {
  Pair pair;
  for (int i = 0; i < 3; ++i)
    pair.add("x" + std::to_string(i), twin(DType::float32, {100}, i), twin(DType::float32, {100}, i + 10),
             {{rule("ClipNorm", {{"scope", std::string(i < 2 ? "global" : "leaf")}}), rule("Adam")}, {}, {}});
  pair.add("other", twin(DType::float32, {10}, 20), twin(DType::float32, {10}, 21), {{rule("Adam")}, {}, {}});
  pair.set_up();
  pair.step();
  const float nan = NAN;
  const ArrayView dx = pair.dx(1).view(true);
  cuda::copy(dx.data + 40, device, reinterpret_cast<const std::byte*>(&nan), on_host, 4);
  std::vector<LeafUpdate> u;
  for (std::uint32_t i = 0; i < 4; ++i)
    u.push_back({.leaf = i, .x = pair.x(i).view(true), .dx = pair.dx(i).view(true)});
  Optimiser& opt = pair.of(true);
  opt.update(u);  // enqueued; nothing is known yet
  pair.expect_equal("nothing was written");
  try {
    opt.wait();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::non_finite);
    EXPECT_STREQ(e.leaf(), "x1");
  }
  opt.wait();
  opt.update(u);
  EXPECT_THROW(opt.update(u), Error);  // the next call says it, before it does anything
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

TEST_F(Cuda, ArraysOnAnotherDeviceAreRefusedByName) {
  Twin x(DType::float32, {10}, {}, 1), dx(DType::float32, {10}, {}, 2);
  Optimiser opt({{"layer.w", {10}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
  const auto message = [&](const ArrayView& a, const ArrayView& g) -> std::string {
    const LeafUpdate u{.leaf = 0, .x = a, .dx = g};
    try {
      opt.update({&u, 1});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message(x.view(true), dx.view(false)).find("gradient at \"layer.w\" is on the host"), std::string::npos);
  EXPECT_NE(message(x.view(false), dx.view(true)).find("parameter at \"layer.w\" is on the host"), std::string::npos);
  EXPECT_EQ(message(x.view(true), dx.view(true)), "");
}

TEST_F(Cuda, AFailureInTheMiddleMakesTheStateUnusable) {
  Twin x(DType::float32, {10}, {}, 1), dx(DType::float32, {10}, {}, 2);
  Optimiser opt({{"w", {10}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
  const LeafUpdate u{.leaf = 0, .x = x.view(true), .dx = dx.view(true)};
  const auto message = [&]() -> std::string {
    try {
      opt.update({&u, 1});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::device);
      return e.what();
    }
    return "";
  };
  setenv("OPTIMISERS_EMULATED_FAILURE", "1", 1);
  EXPECT_NE(message().find("emulated failure; the device cannot be used"), std::string::npos);
  unsetenv("OPTIMISERS_EMULATED_FAILURE");
  EXPECT_NE(message().find("failed in an earlier update of this state"), std::string::npos);
}

TEST_F(Cuda, MemoryThatRunsOutChangesNothing) {
  setenv("OPTIMISERS_EMULATED_MEMORY", "70000", 1);
  Twin x(DType::float32, {8000}, {}, 1);
  try {
    Optimiser opt({{"w", {8000}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory);
    EXPECT_NE(std::string(e.what()).find("32000 bytes asked for"), std::string::npos) << e.what();
  }
  unsetenv("OPTIMISERS_EMULATED_MEMORY");
}

}  // namespace
}  // namespace optimisers::test
