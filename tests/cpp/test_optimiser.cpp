// test_optimiser.cpp: one update through the C++ API: values, threads, failure that changes nothing.
#include <cmath>
#include <limits>

#include "optimisers/error.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

TEST(Optimiser, AdamTakesTheStepOfItsFormula) {
  Vector<double> x(std::vector{1.0, -2.0}), g(std::vector{0.5, -0.25});
  Optimiser opt({leaf("x", x, {rule("Adam")})}, std::vector{x.view()});
  LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
  opt.update({&u, 1});
  for (int i = 0; i < 2; ++i) {  // first step: m̂ = g, v̂ = g²
    const double expected =
        (i == 0 ? 1.0 : -2.0) - 1e-3 * g.values[std::size_t(i)] / (std::abs(g.values[std::size_t(i)]) + 1e-8);
    EXPECT_NEAR(x.values[std::size_t(i)], expected, 1e-15);
  }
  EXPECT_DOUBLE_EQ(opt.clock(0, 0)[0], 0.9);
}

TEST(Optimiser, MissingGradientLeavesEverythingAndDoesNotStopTheNextLeaf) {
  Vector<float> a(10, 1.f), b(10, 1.f), g(10, 1.f);
  Optimiser opt({leaf("a", a, {rule("Adam")}), leaf("b", b, {rule("Adam")})}, std::vector{a.view(), b.view()});
  std::vector<LeafUpdate> u{{.leaf = 0, .x = a.view(), .dx = {}}, {.leaf = 1, .x = b.view(), .dx = g.view()}};
  opt.update(u);
  EXPECT_EQ(a.values[0], 1.f);
  EXPECT_LT(b.values[0], 1.f);
  EXPECT_EQ(opt.clock(0, 0)[0], 1.0);
  EXPECT_EQ(opt.clock(1, 0)[0], 0.9);
}

TEST(Optimiser, SameBitsForAnyNumberOfThreads) {
  const std::size_t n = 300'001;
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 7}) {
    set_num_threads(threads);
    Vector<float> x(n, 1.f), g(n, 0.f);
    for (std::size_t i = 0; i < n; ++i) g.values[i] = float(int(i % 1001) - 500) / 300.f;
    Optimiser opt({leaf("x", x, {rule("ClipNorm", {{"omega", 1.0}}), rule("AdamW", {{"lambda", 0.1}})})},
                  std::vector{x.view()});
    LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
    for (int step = 0; step < 3; ++step) opt.update({&u, 1});
    results.push_back(x.values);
  }
  set_num_threads(2);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Optimiser, ANormThatIsNotFiniteChangesNothing) {
  Vector<float> x(100, 1.f), g(100, 1.f);
  Optimiser opt({leaf("layer.w", x, {rule("Adam"), rule("ClipNorm")})}, std::vector{x.view()});
  LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
  opt.update({&u, 1});
  const auto before = x.values;
  const double clock = opt.clock(0, 0)[0];
  const auto m = reinterpret_cast<float*>(opt.slots(0, 0)[0].data)[7];
  g.values[99] = INFINITY;
  try {
    opt.update({&u, 1});
    FAIL() << "an infinite gradient went through";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::non_finite);
    EXPECT_NE(std::string(e.what()).find("layer.w"), std::string::npos);
  }
  EXPECT_EQ(x.values, before);
  EXPECT_EQ(opt.clock(0, 0)[0], clock);
  EXPECT_EQ(reinterpret_cast<float*>(opt.slots(0, 0)[0].data)[7], m);
}

TEST(Optimiser, GlobalNormIsSharedByTheLeavesOfTheCall) {
  Vector<double> a(9, 1.0), b(16, 1.0), ga(9, 1.0), gb(16, 1.0);
  const auto stages = [] { return std::vector{rule("ClipNorm", {{"omega", 1.0}, {"scope", std::string("global")}})}; };
  Optimiser opt({leaf("a", a, stages()), leaf("b", b, stages())}, std::vector{a.view(), b.view()});
  std::vector<LeafUpdate> u{{.leaf = 0, .x = a.view(), .dx = ga.view()}, {.leaf = 1, .x = b.view(), .dx = gb.view()}};
  opt.update(u);
  EXPECT_DOUBLE_EQ(a.values[3], 1 - 0.2);  // the norm of 25 ones is 5
  EXPECT_DOUBLE_EQ(b.values[3], 1 - 0.2);
}

TEST(Optimiser, AccumGradCollectsAndCountsAMissingGradientAsZero) {
  Vector<double> x(3, 1.0), g(3, 3.0);
  Optimiser opt({leaf("x", x, {rule("AccumGrad", {{"n", 3.0}}), rule("Descent", {{"eta", 1.0}})})},
                std::vector{x.view()});
  LeafUpdate with{.leaf = 0, .x = x.view(), .dx = g.view()}, without{.leaf = 0, .x = x.view(), .dx = {}};
  opt.update({&with, 1});
  opt.update({&without, 1});
  EXPECT_EQ(x.values[0], 1.0);
  opt.update({&without, 1});  // the third call opens the stage although it brings no gradient
  EXPECT_DOUBLE_EQ(x.values[0], 0.0);
  for (int i = 0; i < 3; ++i) opt.update({&without, 1});
  EXPECT_DOUBLE_EQ(x.values[0], 0.0);  // missing in all three: untouched
}

TEST(Optimiser, FlushedWindowIsTheMeanOfWhatThereWas) {
  Vector<double> x(3, 1.0), g(3, 3.0);
  Optimiser opt({leaf("x", x, {rule("AccumGrad", {{"n", 5.0}}), rule("Descent", {{"eta", 1.0}})})},
                std::vector{x.view()});
  LeafUpdate with{.leaf = 0, .x = x.view(), .dx = g.view()}, without{.leaf = 0, .x = x.view(), .dx = {}};
  opt.flush({&without, 1});
  EXPECT_EQ(x.values[0], 1.0);  // it holds nothing
  opt.update({&with, 1});
  opt.update({&without, 1});
  opt.flush({&without, 1});
  EXPECT_DOUBLE_EQ(x.values[0], -0.5);
  opt.flush({&with, 1});  // a window of one call
  EXPECT_DOUBLE_EQ(x.values[0], -3.5);
  EXPECT_EQ(opt.clock(0, 0)[0], 0.0);
}

TEST(Optimiser, StepsThatAreNotFiniteAreSkippedOrRefused) {
  Vector<float> x(3, 1.f), g(3, 1.f);
  Optimiser opt({leaf("x", x, {rule("Momentum")})}, std::vector{x.view()});
  LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
  g.values[1] = std::numeric_limits<float>::quiet_NaN();
  const std::span<const FurtherGradient> none;
  EXPECT_FALSE(opt.update({&u, 1}, none, NonFinite::skip));
  EXPECT_THROW(opt.update({&u, 1}, none, NonFinite::raise), Error);
  EXPECT_EQ(x.values[0], 1.f);
  EXPECT_EQ(opt.seen().skipped, 1);
  EXPECT_EQ(Optimiser(opt).seen().skipped, 1);
  EXPECT_TRUE(opt.update({&u, 1}));
  EXPECT_TRUE(std::isnan(x.values[1]));
}

TEST(Optimiser, SharedNormIsKept) {
  Vector<double> x(2, 1.0), g(2, 3.0);
  Optimiser opt({leaf("x", x, {rule("ClipNorm", {{"omega", 1.0}, {"scope", std::string("global")}})})},
                std::vector{x.view()});
  EXPECT_FALSE(opt.seen().norm.has_value());
  LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
  opt.update({&u, 1});
  EXPECT_DOUBLE_EQ(opt.seen().norm.value_or(0), std::sqrt(18.0));
}

TEST(Optimiser, ChangesAreMadeForAllLeavesOrForNone) {
  Vector<float> a(1, 1.f), b(1, 1.f);
  Optimiser opt({leaf("a", a, {rule("Momentum", {{"eta", 0.5}})}), leaf("b", b, {rule("ClipNorm"), rule("Adam")})},
                std::vector{a.view(), b.view()});
  const std::vector<Optimiser::Leaf> all{0, 1};
  const auto eta = [&](Optimiser::Leaf leaf, int stage) {
    const RuleValue value = opt.rule(leaf, stage);
    return std::get<double>(value.get(*value.info().field("eta")));
  };
  const std::vector<Adjustment> halved{{.field = "eta", .value = 0.5, .scales = true}};
  opt.change(all, halved);
  EXPECT_EQ(eta(0, 0), 0.25);
  EXPECT_EQ(eta(1, 1), 0.5e-3);

  const std::vector<Adjustment> level{{.field = "eta", .value = 0.1, .levels = false}};
  const Adjusted differ = opt.change(all, level);
  EXPECT_EQ(differ.lowest, 0.5e-3);
  EXPECT_EQ(differ.highest, 0.25);
  const std::vector<Adjustment> adam{{.field = "eta", .value = 0.125, .rule = find_rule("Adam")}};
  opt.change(all, adam);
  EXPECT_EQ(eta(0, 0), 0.25) << "what would level them was not done, and what is Adam's is";
  EXPECT_EQ(eta(1, 1), 0.125);

  const std::vector<Adjustment> too_much{{.field = "eta", .value = 1e38, .scales = true},
                                         {.field = "rho", .value = 0.5}};
  EXPECT_NO_THROW(opt.change(all, too_much));
  EXPECT_THROW(opt.change(all, too_much), Error);
  EXPECT_EQ(eta(1, 1), 0.125 * 1e38);
  RuleValue momentum = opt.rule(0, 0), centred = rule("RMSProp");
  momentum.set(*momentum.info().field("eta"), 0.75);
  const std::vector<Optimiser::StageRule> rules{{0, 0, momentum}, {1, 1, centred}};
  EXPECT_THROW(opt.set_rules(rules), Error);
  EXPECT_NE(eta(0, 0), 0.75);
}

TEST(Optimiser, GradientThatOverlapsAnotherParameterIsRefused) {
  Vector<float> x(20, 1.f);
  std::int64_t ten = 10;
  ArrayView low = x.view(), high = x.view(), middle = x.view();
  low.shape = high.shape = middle.shape = &ten;
  high.data += 40;
  middle.data += 20;
  std::vector<LeafSpec> specs{{"low", {10}, DType::float32, {{rule("Descent")}, {}}},
                              {"high", {10}, DType::float32, {{rule("Descent")}, {}}}};
  Optimiser opt(specs, std::vector{low, high});
  std::vector<LeafUpdate> own{{.leaf = 0, .x = low, .dx = low}, {.leaf = 1, .x = high, .dx = high}};
  opt.update(own);  // its own array is as good as a copy
  EXPECT_FLOAT_EQ(x.values[0], 0.9f);
  std::vector<LeafUpdate> bad{{.leaf = 0, .x = low, .dx = middle}, {.leaf = 1, .x = high, .dx = high}};
  EXPECT_THROW(opt.update(bad), Error);
  EXPECT_FLOAT_EQ(x.values[0], 0.9f);
}

TEST(Optimiser, ShapesAreBorrowedForOneCallOnly) {
  Vector<double> x(4, 1.0), g(4, 1.0);
  Optimiser opt({leaf("x", x, {rule("Descent", {{"eta", 0.5}})})}, std::vector{x.view()});
  std::int64_t first = 4, second = 4;
  LeafUpdate u{.leaf = 0, .x = x.view(), .dx = g.view()};
  u.x.shape = &first;
  opt.update({&u, 1});
  first = 99;
  u.x.shape = u.dx.shape = &second;
  u.dx.data = u.x.data;
  opt.update({&u, 1});  // its own gradient: compared with what the first call wrote
  EXPECT_EQ(x.values[0], 0.25);
}

TEST(Optimiser, AdjustNamesTheFieldsThereAre) {
  Vector<float> x(4, 1.f);
  Optimiser opt({leaf("x", x, {rule("Adam")})}, std::vector{x.view()});
  const Optimiser::Leaf all[] = {0};
  const std::vector<std::pair<std::string, Value>> wrong{{"betta", 0.5}}, right{{"eta", 0.5}};
  try {
    opt.adjust(all, wrong);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "adjust: no rule here has a field \"betta\"; fields are beta, epsilon, eta");
  }
  opt.adjust(all, right);
  EXPECT_EQ(std::get<double>(opt.rule(0, 0).get(*find_rule("Adam")->field("eta"))), 0.5);
}

}  // namespace
}  // namespace optimisers::test
