// test_calls.cpp: what a call of the C++ API may be given: names, constness, strides, numbers, options.
#include <gtest/gtest.h>

#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

#include "failing.hpp"

namespace optimisers::test {
namespace {

using Floats = std::vector<float>;

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

Floats ramp(std::size_t n) {
  Floats v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = float(i % 31) - 15.f;
  return v;
}

TEST(Calls, ArraysByNameInAnyOrder) {
  Floats w(3, 1.f), b(3, 1.f), gw(3, 1.f), gb(3, 2.f);
  State state = setup(Descent{.eta = 1}, {{"w", w}, {"b", b}});
  state.update({{"b", b}, {"w", w}}, {{"w", gw}, {"b", gb}});
  EXPECT_EQ(w[0], 0.f);
  EXPECT_EQ(b[0], -1.f);
  state.update({w, b}, {{"b", gb}});  // w has no gradient
  EXPECT_EQ(w[0], 0.f);
  EXPECT_EQ(b[0], -3.f);
  EXPECT_EQ(message_of([&] { state.update({w, b}, {{"c", gb}}); }), "no leaf is called \"c\"; leaves are w, b");
  EXPECT_EQ(message_of([&] { state.update({w, b}, {{"b", gb}, {"b", gb}}); }),
            "update: two gradients are called \"b\"");
  EXPECT_EQ(message_of([&] { state.update({{"w", w}}, {gw, gb}); }),
            "update: parameter at \"b\" is missing; only gradients may be");
  EXPECT_EQ(b[0], -3.f);
}

template <class X>
concept Updates = requires(State& s, X& x, const Floats& g) { s.update(x, g); };
template <class X>
concept UpdatesList = requires(State& s, X& x, const Floats& g) { s.update({x, x}, {g, g}); };

TEST(Calls, ConstParametersDoNotCompile) {
  static_assert(Updates<Floats> && !Updates<const Floats>);
  static_assert(UpdatesList<Floats> && !UpdatesList<const Floats>);
  static_assert(Updates<std::span<double>> && !Updates<std::span<const double>>);
  static_assert(Updates<double> && !Updates<const double>);
  static_assert(Updates<std::vector<Floats>> && !Updates<const std::vector<Floats>>);
  const Floats x(2, 1.f);
  State state = setup(Descent{}, x);
  EXPECT_EQ(message_of([&] { state.update(AnySpan(x), x); }),
            "update: parameter at \"0\" is const, but is written; pass an array that may be");
}

TEST(Calls, NumbersAndVectorsOfVectorsAreModels) {
  double slope = 1, offset = 2;
  State line = setup(Descent{.eta = 1}, {{"slope", slope}, {"offset", offset}});
  line.update({slope, offset}, {0.5 * slope, offset});
  EXPECT_EQ(slope, 0.5);
  EXPECT_EQ(offset, 0);
  State one = setup(Descent{.eta = 1}, slope);
  one.update(slope, offset);
  std::vector<Floats> x{Floats(3, 1.f), Floats(2, 1.f)};
  State state = setup(Descent{.eta = 1}, x);
  state.update(x, x);
  EXPECT_EQ(x[1][1], 0.f);
  EXPECT_EQ(state.leaf(1).name(), "1");
}

TEST(Calls, StridedArraysAreWrittenInPlace) {
  const auto chain = Chain{ClipNorm{.omega = 1}, Adam{.eta = 0.1}};
  Floats rows = ramp(7 * 600), before = rows, column(600), gradient = ramp(600);
  for (std::size_t i = 0; i < 600; ++i) column[i] = rows[7 * i + 2];
  const AnySpan view = AnySpan::strided(rows.data() + 2, 600, 7);
  State strided = setup(chain, view), plain = setup(chain, column);
  for (int i = 0; i < 3; ++i) {
    strided.update(view, gradient);
    plain.update(column, gradient);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], i % 7 == 2 ? column[i / 7] : before[i]);
  EXPECT_EQ(norm(view), norm(column));
  EXPECT_EQ(pack<float>({view}), column);

  // A matrix column by column, its gradient row by row.
  Floats x(6, 0.f), byrow{1, 2, 3, 4, 5, 6};  // 2 rows, 3 columns
  const AnySpan g = AnySpan::matrix(byrow.data(), 3, 2, 1, 3);
  State state = setup(Descent{.eta = 1}, {{"x", x, {3, 2}}});
  state.update(x, g);
  EXPECT_EQ(x, (Floats{-1, -4, -2, -5, -3, -6}));
  State flat = setup(Descent{.eta = 1}, {{"x", x}});
  EXPECT_EQ(
      message_of([&] { flat.update(x, g); }),
      "update: gradient at \"x\" does not lie in one piece and has shape (3, 2), its leaf has (6,); give the leaf "
      "that shape at setup, or pass a copy");
  EXPECT_THROW(Model(view, {{"a", {600}}}), Error);
}

template <class T>
void expect_scaled() {
  // A power of two: the product is exact, so both must have the same bits.
  std::vector<T> x(2000), y(2000), g(2000), half(2000);
  unpack(ramp(2000), x);
  unpack(ramp(2000), y);
  unpack(ramp(2000), g);
  Floats halves = ramp(2000);
  for (float& a : halves) a *= 0.5f;
  unpack(halves, half);
  const auto rule = Chain{WeightDecay{}, ClipNorm{.omega = 3, .scope = Scope::global}, Momentum{.eta = 0.5}};
  State a = setup(rule, x), b = setup(rule, y);
  for (int i = 0; i < 2; ++i) {
    a.update(x, g, {.scale = 0.5});
    b.update(y, half);
  }
  EXPECT_EQ(pack<double>(x), pack<double>(y));
  a.update(x, g);  // this call's only
  b.update(y, g);
  EXPECT_EQ(pack<double>(x), pack<double>(y));
}

TEST(Calls, ScaleMultipliesGradientsFirst) {
  expect_scaled<float>();
  expect_scaled<double>();
  expect_scaled<Half>();
  expect_scaled<BHalf>();
  std::vector<BHalf> x(64, BHalf{0x3f80}), g = x;  // the kernels on bfloat16 itself
  State state = setup(Descent{.eta = 1}, x);
  state.update(x, g, {.scale = 0.5});
  EXPECT_EQ(x[63].bits, 0x3f00);
  EXPECT_THROW(state.update(x, g, {.scale = INFINITY}), Error);
  EXPECT_THROW(state.update(x, g, {.scale = 1e39}), Error);
  EXPECT_EQ(x[63].bits, 0x3f00);
}

TEST(Calls, NormsOfAnyOrderAreFinite) {
  const Floats x{3.f, -4.1f, 0.7f}, small{1e-30f, 3e-30f};
  for (const double p : {1500.0, 2000.0, 5000.0, 1e6, 1e12}) {
    EXPECT_NEAR(norm({x}, p), 4.1, 1e-5) << p;
    EXPECT_NEAR(norm({small}, p) / 3e-30, 1, 1e-2) << p;
    EXPECT_NEAR(norm({x}, -p), 0.7, 1e-5) << p;
  }
  Floats y(2, 1.f), g{3.f, 0.7f};
  State state = setup(ClipNorm{.omega = 1, .p = 3000}, y);
  state.update(y, g);
  EXPECT_NEAR(y[0], 0, 1e-6);
}

// What comes as it came before is not checked again: each thing that could make a difference is.
TEST(Calls, WhatChangesIsCheckedAgain) {
  Floats w(8, 1.f), b(8, 1.f), g(8, 1.f);
  State state = setup(Descent{.eta = 1}, {{"w", w}, {"b", b}});
  const auto refused = [&](auto&&... arguments) { return !state.try_update(arguments...); };
  const auto step = [&] { return bool(state.try_update({w, b}, {g, g})); };
  ASSERT_TRUE(step() && step());
  EXPECT_TRUE(refused(MutableArrays{w, b}, Arrays{g, Floats(7)}));  // size
  EXPECT_TRUE(refused(MutableArrays{w, b}, Arrays{g, std::span(g).first(7)}));
  EXPECT_TRUE(refused(MutableArrays{w, std::span(b).first(7)}, Arrays{g, g}));
  EXPECT_TRUE(refused(MutableArrays{w, w}, Arrays{g, g}));  // one array twice
  EXPECT_TRUE(refused(MutableArrays{w, AnySpan(std::as_const(b))}, Arrays{g, g}));
  std::vector<double> wide(8, 1);
  EXPECT_TRUE(refused(MutableArrays{wide, b}, Arrays{g, g}));  // type
  EXPECT_TRUE(refused(MutableArrays{w, b}, Arrays{b, g}));     // a gradient that is written
  EXPECT_EQ(w, Floats(8, -1.f));
  ASSERT_TRUE(step());
  state["b"].freeze();
  ASSERT_TRUE(bool(state.try_update({w, b}, {b, g})));  // b is not written now
  ASSERT_TRUE(bool(state.try_update({w, b}, {b, g})));
  state["b"].thaw();
  EXPECT_TRUE(refused(MutableArrays{w, b}, Arrays{b, g}));
  ASSERT_TRUE(bool(state.try_update({w, b}, {g, {}})));
  ASSERT_TRUE(bool(state.try_update({w, b}, {g, {}})));
  const Floats before = b;
  ASSERT_TRUE(step());  // and b has a gradient again
  EXPECT_EQ(b[0], before[0] - 1);
  state.update({w, b}, {g, g}, {.scale = 0.5});
  state.update({w, b}, {g, g});
  EXPECT_EQ(b[0], before[0] - 2.5f);
  const State copy = state;  // has arrays of its own to check
  State other = copy;
  EXPECT_TRUE(bool(other.try_update({w, b}, {g, g})));
  EXPECT_EQ(b[0], before[0] - 3.5f);
  std::vector<double> double_gradient(8, 1);
  ASSERT_TRUE(step());
  ASSERT_TRUE(bool(state.try_update({w, b}, {double_gradient, g})));  // converted
  EXPECT_EQ(b[0], before[0] - 5.5f);
  Floats steps{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(bool(state.try_update({w, b}, {g, std::span(steps).first(8)})));
  EXPECT_EQ(b[1], before[1] - 7.5f);
  ASSERT_TRUE(bool(state.try_update({w, b}, {g, AnySpan::strided(steps.data(), 8, 2)})));  // from the same place
  EXPECT_EQ(b[1], before[1] - 7.5f);
}

TEST(Calls, ReduceNormHasTheLastWord) {
  // Two processes with one leaf each, as one process with both.
  const auto global = [](double omega) { return Chain{ClipNorm{.omega = omega, .scope = Scope::global}}; };
  Floats w{3, 0}, b{0, 4}, gw{3, 0}, gb{0, 4};
  State both = setup(global(1), {{"w", w}, {"b", b}});
  both.update({w, b}, {gw, gb});
  Floats there{3, 0};
  State part = setup(global(1), there);
  std::string asked;
  part.update(there, gw, {.reduce_norm = [&](double norm, double p, const std::string& leaf) {
                asked += "[" + leaf + "] " + std::to_string(int(norm)) + " " + std::to_string(int(p));
                return std::sqrt(norm * norm + 16);
              }});
  EXPECT_EQ(there, w);
  EXPECT_EQ(asked, "[] 3 2");
  State leafwise = setup(ClipNorm{.omega = 1}, {{"w", w}});
  asked.clear();
  leafwise.update(w, gw, {.reduce_norm = [&](double norm, double, const std::string& leaf) {
                    asked += leaf;
                    return norm;
                  }});
  EXPECT_EQ(asked, "w");
  const Floats kept = w;
  EXPECT_THROW(leafwise.update(w, gw, {.reduce_norm = [](double, double, const std::string&) -> double { throw 7; }}),
               int);
  EXPECT_THROW(leafwise.update(w, gw, {.reduce_norm = [](double, double, const std::string&) { return NAN; }}), Error);
  EXPECT_EQ(w, kept);
}

template <class L>
concept Freezes = requires(L leaf) { leaf.freeze(); };

TEST(Calls, ConstStatesAreRead) {
  std::vector<Half> x(3, Half{0x3c00});
  State made = setup(MixedPrecision{Adam{.eta = 0.5}}, {{"enc.h", x}});
  made.update(x, Floats(3, 1.f));
  const State& state = made;
  const ConstLeaf leaf = state["enc.h"];
  const std::span<const float> m = leaf.slot<float>("m");
  EXPECT_FLOAT_EQ(m[1], 0.1f);
  EXPECT_FLOAT_EQ(leaf.master<float>()[2], 0.5f);
  EXPECT_EQ(leaf.clock("beta1_t"), 0.9);
  EXPECT_TRUE(state.leaf(0).rule() == AnyRule(Adam{.eta = 0.5}));
  EXPECT_EQ(state.leaves("enc").size(), 1u);
  static_assert(std::is_same_v<decltype(state["enc.h"]), ConstLeaf> && !Freezes<ConstLeaf> && Freezes<Leaf>);
}

TEST(Calls, OneOfTwoStagesOfARuleIsAdjusted) {
  Floats x(2, 1.f);
  State state = setup(Chain{WeightDecay{}, Momentum{}, WeightDecay{}}, {{"w", x}});
  state["w"].adjust("lambda", 0.5, 2);
  EXPECT_TRUE(state["w"].rule(0) == AnyRule(WeightDecay{}));
  EXPECT_TRUE(state["w"].rule(2) == AnyRule(WeightDecay{.lambda = 0.5}));
  state["w"].adjust(WeightDecay{.lambda = 0.25}, 0);
  EXPECT_TRUE(state["w"].rule(0) == AnyRule(WeightDecay{.lambda = 0.25}));
  EXPECT_TRUE(state["w"].rule(2) == AnyRule(WeightDecay{.lambda = 0.5}));
  EXPECT_THROW(state["w"].adjust("lambda", 0.5, 3), Error);
  EXPECT_THROW(state["w"].adjust("lambda", 0.5, 1), Error);  // Momentum has none
}

TEST(Calls, ASecondStepAllocatesNothing) {
  const ClipNorm alone{.omega = 1}, together{.omega = 1, .scope = Scope::global};
  const std::vector<Program> programs = {
      program_of(Adam{}), program_of(Chain{together, Adam{}}),
      program_of(Chain{AccumGrad{.n = 2}, together, alone, WeightDecay{}, together, Adam{}})};
  for (const Program& program : programs)
    for (const std::size_t n : {std::size_t(10), std::size_t(100'000)}) {
      std::vector<Floats> x(5, Floats(n, 1.f)), dx(5, Floats(n, 0.5f));
      State state = setup(program, x);
      const MutableArrays to(x);
      const Arrays from(dx);
      for (int i = 0; i < 2; ++i) state.update(to, from);
      const int before = failing::allocations;
      for (int i = 0; i < 2; ++i) state.update(to, from);
      EXPECT_EQ(failing::allocations, before) << to_text(program) << " of " << n;
    }
}

TEST(Calls, MessagesSpeakCxx) {
  Floats x(1, 1.f), inf(1, INFINITY);
  State state = setup(ClipNorm{}, {{"w", x}});
  const std::string said = message_of([&] { state.update(x, inf); });
  EXPECT_NE(said.find("ClipNorm{.throw_ = false}"), std::string::npos) << said;
  EXPECT_EQ(said.find("throw=False"), std::string::npos) << said;
}

}  // namespace
}  // namespace optimisers::test
