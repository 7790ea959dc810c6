// test_chain.cpp: chains fused at compile time, put together at run time or read from text give the same bits.
#include <gtest/gtest.h>

#include <optimisers/optimisers.hpp>
#include <vector>

#include "plan/group.hpp"

namespace optimisers::test {
namespace {

// A rule of one's own: 15 lines, no line of the library knows it.
struct SignMomentum {
  double eta = 1e-3, rho = 0.9;
  static constexpr Text text{.name = "SignMomentum"};
  static constexpr std::tuple fields{Field{"eta", &SignMomentum::eta, Range::nonnegative, "learning rate"},
                                     Field{"rho", &SignMomentum::rho, Range::unit, "decay"}};
  static constexpr std::array slots{Slot<SignMomentum>{"m"}};
  friend bool operator==(const SignMomentum&, const SignMomentum&) = default;
  template <class R>
  struct Step {
    R eta, rho;
  };
  template <class R>
  Step<R> tick(NoClock&) const {
    return {R(eta), R(rho)};
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& m) {
    m = k.rho * m + dx;
    dx = k.eta * sign(m);
  }
};

template <class T>
std::vector<T> noise(std::size_t n, unsigned seed) {
  std::vector<T> v(n);
  for (T& a : v) {
    seed = seed * 1664525u + 1013904223u;
    const auto r = real_t<T>(int(seed >> 8) % 20001 - 10000) / real_t<T>(3000);
    a = from_real<T>(r);
    if constexpr (is_complex<T>) a.im = real_t<T>(0.5) - r;
  }
  return v;
}

// Several steps of a program over two leaves, one frozen for a while, one without a gradient once.
template <class T, class R>
std::vector<T> train(const R& rule) {
  auto x = noise<T>(70'001, 1), y = noise<T>(33, 2);
  const auto gx = noise<T>(70'001, 3), gy = noise<T>(33, 4);
  State state = setup(rule, {{"x", x}, {"y", y}});
  for (int i = 0; i < 6; ++i) {
    if (i == 2) state["x"].freeze();
    if (i == 3) state.thaw();
    if (i == 4) state.adjust(0.125);
    state.update({x, y}, {gx, i == 1 ? AnySpan{} : AnySpan(gy)});
  }
  return pack<T>({x, y});
}

template <class... R>
void expect_same(const Fused<R...>& chain) {
  Program stagewise = program_of(chain);
  ASSERT_FALSE(stagewise.fused.empty());
  EXPECT_NE(Group(stagewise, DType::float32).passes.size(), stagewise.stages.size()) << "not fused";
  stagewise.fused.clear();
  EXPECT_TRUE(train<float>(chain) == train<float>(stagewise));
  EXPECT_TRUE(train<double>(chain) == train<double>(stagewise));
  if constexpr (!(RefusesComplex<R> || ...))
    EXPECT_TRUE(train<Complex<float>>(chain) == train<Complex<float>>(stagewise));
}

TEST(Chain, FusedEqualsStageByStage) {
  expect_same(Fused{ClipNorm{.omega = 1.0}, AdamW{.eta = 1e-2, .lambda = 0.1}});
  expect_same(Fused{WeightDecay{}, ClipGrad{.delta = 0.5}, Momentum{}});
  expect_same(Fused{SignDecay{}, SignMomentum{}});
  expect_same(Fused{ClipGrad{.delta = 1}, Rprop{}});
}

// Only what is asked for is compiled into this file: everything else has the library's kernels.
TEST(Chain, RunsInTheLibrarysKernels) {
  const Program chain = program_of(Chain{ClipNorm{}, Chain{WeightDecay{}, AdamW{}}});
  EXPECT_TRUE(chain.fused.empty());
  const Group group(chain, DType::float32),
      same(program_of(RuntimeChain{ClipNorm{}, WeightDecay{}, AdamW{}}), DType::float32);
  ASSERT_EQ(group.passes.size(), same.passes.size());
  for (std::size_t i = 0; i < group.passes.size(); ++i)
    EXPECT_EQ(group.passes[i].kernels.last, same.passes[i].kernels.last);
  const Program mixed = program_of(MixedPrecision{Chain{Momentum{}, Fused{SignDecay{}, SignMomentum{}}}});
  ASSERT_EQ(mixed.fused.size(), 1u);
  EXPECT_EQ(mixed.fused[0].first, 1);
  EXPECT_EQ(Group(mixed, DType::float16).passes.size(), 2u);
  EXPECT_TRUE(train<float>(mixed) == train<float>(program_of(RuntimeChain{Momentum{}, SignDecay{}, SignMomentum{}})));
}

TEST(Chain, ReducingAndGatingStagesInsideWork) {
  expect_same(Fused{Momentum{}, ClipNorm{.omega = 0.1, .scope = Scope::global}, WeightDecay{}, ClipNorm{.omega = 2}});
  expect_same(Fused{ClipNorm{.omega = 5}, AccumGrad{.n = 2}, Adam{.eta = 1e-2}});
}

TEST(Chain, ConditionalSlotsChooseTheKernel) {
  expect_same(Fused{ClipGrad{}, RMSProp{.centred = true}});
  expect_same(Fused{ClipGrad{}, RMSProp{.centred = false}});
}

TEST(Chain, RunsARuleWithOtherSlotsAsWhatItIs) {
  const auto apart = [](RMSProp first) { return RuntimeChain{first, ClipGrad{1e30}, Momentum{}}; };
  EXPECT_TRUE(train<float>(Chain{RMSProp{.centred = true}, Momentum{}}) == train<float>(apart({.centred = true})));
  Program changed = program_of(Fused{RMSProp{}, Momentum{}});
  changed.stages[0] = AnyRule(RMSProp{.centred = true});  // what was fused is another chain
  EXPECT_TRUE(train<float>(changed) == train<float>(apart({.centred = true})));
  changed.stages = {AnyRule(Momentum{}), AnyRule(Lion{})};
  EXPECT_TRUE(train<double>(changed) == train<double>(RuntimeChain{Momentum{}, Lion{}}));
  changed.stages.pop_back();
  EXPECT_TRUE(train<double>(changed) == train<double>(Momentum{}));
}

TEST(Chain, RunTimeAndTextEqualCompileTime) {
  const auto fused = train<float>(Chain{ClipNorm{.omega = 1.0}, Chain{SignDecay{}, NAdam{.eta = 1e-2}}});
  RuntimeChain chain;
  chain.push_back(ClipNorm{.omega = 1.0});
  chain.push_back(AnyRule("SignDecay"));
  chain.push_back(AnyRule("NAdam").with("eta", 1e-2));
  EXPECT_TRUE(train<float>(chain) == fused);
  EXPECT_TRUE(train<float>(parse_program("OptimiserChain(ClipNorm(1.0), Chain(SignDecay(), NAdam(eta=1e-2)))")) ==
              fused);
}

TEST(Chain, OwnRuleRunsInItsOwnKernelAndOnThreads) {
  const auto one = [] {
    set_num_threads(1);
    return train<float>(SignMomentum{});
  }();
  set_num_threads(5);
  EXPECT_TRUE(train<float>(SignMomentum{}) == one);
  set_num_threads(2);
  std::vector<float> x{1.f, 1.f}, g{2.f, -3.f};
  State state = setup(SignMomentum{.eta = 0.25}, x);
  state.update(x, g);
  EXPECT_EQ(x, (std::vector<float>{0.75f, 1.25f}));
  EXPECT_EQ(state.leaf(0).slot<float>("m")[1], -3.f);
}

TEST(Chain, OfAnyLengthRunsAllItsStages) {
  for (const std::size_t length : {16u, 17u, 60u}) {  // each stage hands on what it got
    std::vector<float> x(1500, 3.f), g(1500, 1.f);
    State state = setup(RuntimeChain(length, Momentum{.eta = 1, .rho = 0}), x);
    state.update(x, g);
    EXPECT_EQ(x, std::vector<float>(1500, 2.f)) << length;
    EXPECT_EQ(state.leaf(0).slot<float>("v", int(length) - 1)[1499], 1.f);
  }
}

TEST(Chain, EmptyChainIsDescentOfOne) {
  std::vector<float> x{3.f}, g{1.f};
  State state = setup(Chain{}, x);
  state.update(x, g);
  EXPECT_EQ(x[0], 2.f);
}

TEST(Parse, ReadsWhatPythonPrints) {
  const auto one = [](const char* text) { return parse_program(text).stages.at(0); };
  EXPECT_TRUE(one("Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)") == AnyRule(Adam{}));
  EXPECT_TRUE(one("Adam") == AnyRule(Adam{}));
  EXPECT_TRUE(one(" AdamW ( 1e-2 , lambda_ = .5 , couple=False ) ") ==
              AnyRule(AdamW{.eta = 1e-2, .lambda = 0.5, .couple = false}));
  EXPECT_TRUE(one("ClipNorm(omega=1.0, p=-inf, throw=False, scope=\"global\")") ==
              AnyRule(ClipNorm{.omega = 1, .p = -INFINITY, .throw_ = false, .scope = Scope::global}));
  EXPECT_TRUE(one("AccumGrad(4)") == AnyRule(AccumGrad{.n = 4}));
  EXPECT_EQ(parse_program("MixedPrecision(Adam(), dtype='float64')").master, DType::float64);
  EXPECT_EQ(parse_program("MixedPrecision(OptimiserChain(Adam(), Lion()))").stages.size(), 2u);
  EXPECT_TRUE(parse_program("OptimiserChain()").stages.empty());
  EXPECT_EQ(parse_fields("eta=1e-3, beta=(0.9, 0.99)").size(), 2u);
}

TEST(Parse, ReadsWhatItWrites) {
  for (const char* text :
       {"Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)", "OptimiserChain()", "AccumGrad(n=12)",
        "MixedPrecision(OptimiserChain(ClipNorm(omega=100000.0, p=inf, throw=False, scope=\"global\"), "
        "WeightDecay(lambda=1e+16)), dtype=\"float64\")",
        "Rprop(eta=0.1, ell=(0.30000000000000004, 1.2), gamma=(0.0001, 50.0))"})
    EXPECT_EQ(to_text(parse_program(text)), text);
  for (const RuleInfo& info : rule_registry()) {
    RuleValue rule(info);
    if (const FieldInfo* n = info.field("n")) rule.set(*n, 3.0);
    for (const double eta : {0.0, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789012345.6})
      if (const FieldInfo* f = info.field("eta")) {
        rule.set(*f, eta);
        EXPECT_TRUE(parse_program(to_text(rule)).stages.at(0) == rule) << to_text(rule);
      }
    EXPECT_TRUE(parse_program(to_text(rule)).stages.at(0) == rule) << to_text(rule);
  }
  EXPECT_EQ(to_text(AnyRule(SignMomentum{})), "SignMomentum(eta=0.001, rho=0.9)");
}

TEST(Parse, SaysWhatItExpected) {
  for (const char* text :
       {"", "Adm()", "Adam(", "Adam(eta)", "Adam(eta=)", "Adam(eta=1,2)", "Adam(-1)", "Adam(beta=0.9)",
        "Adam(betta=0.9)", "Adam() Adam()", "AccumGrad()", "Chain(MixedPrecision(Adam()))", "Adam(1,(0,0),1,1)",
        "MixedPrecision(Adam(), dtype=\"float16\")", "ClipNorm(scope=\"all\")", "Adam(eta=1e999)", "Adam(eta=nan)"})
    EXPECT_THROW((void)parse_program(text), Error) << text;
  for (const char* text : {"Adam(eta=1, eta=2)", "Adam(1, eta=2)", "AdamW(lambda=1, lambda_=2)"})
    EXPECT_THROW((void)parse_program(text), Error) << text;
  EXPECT_THROW((void)parse_fields("eta=1, rho=0, eta=1"), Error);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "Chain(";
  EXPECT_THROW((void)parse_program(deep), Error);
  try {
    (void)parse_program("Adam(1,  eta=2)");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rule \"Adam(1,  eta=2)\", character 10: expected eta once only");
  }
  try {
    (void)parse_program("Chain(Adam(eta=x))");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rule \"Chain(Adam(eta=x))\", character 16: expected a number");
  }
}

}  // namespace
}  // namespace optimisers::test
