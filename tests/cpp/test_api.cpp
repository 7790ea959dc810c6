// test_api.cpp: the C++ API: setup over spans and segments, update, adjust, freeze, slots, values instead of throws.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

namespace optimisers::test {
namespace {

using Floats = std::vector<float>;

Floats ramp(std::size_t n, float scale) {
  Floats v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = scale * (float(i % 97) - 48.f);
  return v;
}

template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorKind::value, ""};
}

TEST(Api, StepsAreSkippedFlushedAndMeasured) {
  std::vector<float> x{0, 0}, g{3, 4};
  State state = setup(Chain{ClipNorm{.omega = 10, .scope = Scope::global}, AccumGrad{.n = 4}, Descent{.eta = 1}}, x);
  EXPECT_TRUE(state.update(x, g));
  EXPECT_FLOAT_EQ(float(state.norm().value_or(0)), 5.f);
  g[1] = INFINITY;
  EXPECT_FALSE(state.update(x, g, {.non_finite = NonFinite::skip}));
  EXPECT_EQ(state.skipped(), 1);
  const Error error = error_of([&] { state.update(x, g, {.non_finite = NonFinite::raise}); });
  EXPECT_EQ(error.kind(), ErrorKind::non_finite);
  EXPECT_STREQ(error.leaf(), "0");
  EXPECT_EQ(x, (std::vector<float>{0, 0}));
  state.flush(x);
  EXPECT_EQ(x, (std::vector<float>{-3, -4}));
}

TEST(Api, OneSpan) {
  std::vector<double> x{1, 2, 3}, g{1, 1, 1};
  State state = setup(Descent{.eta = 0.5}, x);
  state.update(x, g);
  EXPECT_EQ(x, (std::vector<double>{0.5, 1.5, 2.5}));
  std::array<double, 3> y{1, 2, 3};
  const std::array<double, 3> h{2, 2, 2};
  state.update(std::span(y), h);
  EXPECT_EQ(y[2], 2.0);
}

TEST(Api, ManyNamedSpansOfSeveralTypes) {
  Floats w(6, 1.f);
  std::vector<double> b(2, 1.0);
  std::vector<std::complex<float>> c(2, {1.f, 1.f});
  State state = setup(Descent{.eta = 1}, {{"w", w, {2, 3}}, {"b", b}, {"c", c}});
  const Floats gw(6, 1.f), gb(2, 0.5f);  // a float gradient for a double leaf is converted
  state.update({w, b, c}, {gw, gb, {}});
  EXPECT_EQ(w[5], 0.f);
  EXPECT_EQ(b[1], 0.5);
  EXPECT_EQ(c[0], std::complex<float>(1, 1));  // no gradient: untouched
  EXPECT_EQ(state["w"].shape().size(), 2u);
  EXPECT_EQ(state.elements(), 10);
}

TEST(Api, FlatBufferWithSegmentsEqualsSeparateArrays) {
  const auto chain = Chain{ClipNorm{.omega = 0.5}, Adam{}};  // a norm per leaf
  Floats a = ramp(1000, 0.1f), b = ramp(37, 0.2f), ga = ramp(1000, 0.3f), gb = ramp(37, -0.1f);
  Floats flat = pack<float>({a, b}), gflat = pack<float>({ga, gb});
  State tree = setup(chain, {{"a", a}, {"b", b}});
  State line = setup(chain, Model(flat, {{"a", {10, 100}}, {"b", {37}}}));
  for (int i = 0; i < 3; ++i) {
    tree.update({a, b}, {ga, gb});
    line.update(flat, gflat);
  }
  EXPECT_EQ(flat, pack<float>({a, b}));
  line["a"].freeze();
  line.update(flat, {{}, gb});  // and gradients one a segment
  tree.update({a, b}, {{}, gb});
  EXPECT_EQ(flat, pack<float>({a, b}));
  Floats a2(1000), b2(37);
  unpack(flat, {a2, b2});
  EXPECT_EQ(a2, a);
  EXPECT_EQ(b2, b);
}

TEST(Api, RangesOfVectors) {
  std::vector<Floats> x{Floats(3, 1.f), Floats(2, 1.f)};
  const std::vector<Floats> g{Floats(3, 1.f), Floats(2, 1.f)};
  State state = setup(Descent{.eta = 1}, {x[0], x[1]});
  state.update(x, g);
  EXPECT_EQ(x[1][1], 0.f);
  EXPECT_EQ(state.leaf(1).name(), "1");
}

TEST(Api, AdjustByValueByNameAndOneLeaf) {
  Floats x(2, 1.f), y(2, 1.f);
  State state = setup(Chain{WeightDecay{}, Adam{}}, {{"enc.w", x}, {"dec.w", y}});
  state.adjust(0.25);
  EXPECT_EQ(std::get<double>(state["enc.w"].rule(1).get(*find_rule("Adam")->field("eta"))), 0.25);
  state.adjust("beta", Pair{0.5, 0.75});
  state["dec.w"].adjust(Adam{.eta = 7});
  EXPECT_TRUE(state["dec.w"].rule(1) == AnyRule(Adam{.eta = 7}));
  EXPECT_TRUE(state["enc.w"].rule(1) == AnyRule(Adam{.eta = 0.25, .beta = {0.5, 0.75}}));
  for (Leaf leaf : state.leaves("enc")) leaf.adjust("lambda", 1);
  EXPECT_TRUE(state["enc.w"].rule(0) == AnyRule(WeightDecay{.lambda = 1}));
  EXPECT_TRUE(state["dec.w"].rule(0) == AnyRule(WeightDecay{}));
  EXPECT_STREQ(error_of([&] { state.adjust("betta", 0.5); }).what(),
               "adjust: no rule here has a field \"betta\"; fields are beta, epsilon, eta, lambda");
  EXPECT_EQ(error_of([&] { state.adjust(Momentum{}); }).kind(), ErrorKind::value);
}

TEST(Api, AdjustRefusesWhatDecidesSlots) {
  Floats x(2, 1.f);
  State state = setup(RMSProp{}, {{"w", x}});
  EXPECT_STREQ(error_of([&] { state.adjust(RMSProp{.centred = true}); }).leaf(), "w");
  EXPECT_STREQ(error_of([&] { state.adjust("centred", true); }).leaf(), "w");
}

// By any way in, all or nothing: one leaf that cannot hold the value keeps the others as they are.
TEST(Api, RefusesWhatOverflowsInALeafsType) {
  Floats x(2, 1.f);
  std::vector<double> y(2, 1.0);
  const std::string message =
      "Momentum at \"narrow\" cannot train float32: eta is 1e+39, more than float32 holds (at most 3.4028235e+38); "
      "make it smaller";
  EXPECT_EQ(error_of([&] { setup(Momentum{.eta = 1e39}, {{"wide", y}, {"narrow", x}}); }).what(), "setup: " + message);
  State state = setup(Momentum{}, {{"wide", y}, {"narrow", x}});
  EXPECT_EQ(error_of([&] { state.adjust(1e39); }).what(), "adjust: " + message);
  EXPECT_EQ(error_of([&] { state.adjust(Momentum{.eta = 1e39}); }).what(), "adjust: " + message);
  EXPECT_FALSE(state.try_adjust({{"eta", 1e39}}));
  EXPECT_TRUE(state["wide"].rule() == AnyRule(Momentum{}) && state["narrow"].rule() == AnyRule(Momentum{}));
  state["wide"].adjust(1e39);
  EXPECT_FALSE(try_setup(Chain{WeightDecay{}, Nesterov{.eta = 3e38}}, x));  // a scalar of the step does
  EXPECT_TRUE(try_setup(MixedPrecision{Nesterov{.eta = 3e38}, DType::float64}, x));
}

TEST(Api, SlotsClocksAndMasters) {
  std::vector<Half> x(3, Half{0x3c00});
  Floats g(3, 1.f);
  State state = setup(MixedPrecision{Adam{.eta = 0.5}}, {{"h", x}});
  state.update(x, g);
  Leaf leaf = state["h"];
  EXPECT_FLOAT_EQ(leaf.slot<float>("m")[1], 0.1f);
  EXPECT_FLOAT_EQ(leaf.master<float>()[2], 0.5f);
  EXPECT_EQ(leaf.clock("beta1_t"), 0.9);
  leaf.set_clock("beta1_t", 1);
  EXPECT_EQ(std::string(error_of([&] { leaf.set_clock("beta1_t", NAN); }).what()),
            "set_clock: expected a finite number");
  EXPECT_EQ(state["h"].clock("beta1_t", 0), 1.0);
  EXPECT_EQ(error_of([&] { (void)leaf.slot<double>("m"); }).kind(), ErrorKind::type);
  EXPECT_STREQ(error_of([&] { (void)leaf.slot<float>("q"); }).what(), "slot: \"h\" has no slot \"q\"; slots are m, v");
  EXPECT_EQ(std::string(error_of([&] { (void)leaf.clock("s"); }).what()),
            "clock: \"h\" has no clock \"s\"; clocks are beta1_t, beta2_t, t");
}

TEST(Api, FrozenLeavesAndLeavesWithoutARule) {
  Floats a(2, 1.f), b(2, 1.f);
  const Floats g(2, 1.f);
  State state = setup(
      [](const std::string& name) -> std::optional<AnyRule> {
        if (name == "b") return std::nullopt;
        return AnyRule("Descent").with("eta", 1);
      },
      {{"a", a}, {"b", b}});
  state["a"].freeze();
  state.update({a, b}, {g, g});
  EXPECT_EQ(a[0], 1.f);
  state.thaw();
  state.update({a, b}, {g, g});
  EXPECT_EQ(a[0], 0.f);
  EXPECT_EQ(b[0], 1.f);
  EXPECT_TRUE(state["b"].frozen());
  EXPECT_EQ(error_of([&] { state["b"].thaw(); }).kind(), ErrorKind::value);
}

TEST(Api, ErrorsNameTheLeafAndChangeNothing) {
  Floats a(2, 1.f), b(3, 1.f), g(2, 1.f), bad(3, 1.f);
  State state = setup(Chain{Adam{}, ClipNorm{}}, {{"enc.w", a}, {"enc.b", b}});
  bad[2] = INFINITY;
  const Error e = error_of([&] { state.update({a, b}, {g, bad}); });
  EXPECT_EQ(e.kind(), ErrorKind::non_finite);
  EXPECT_STREQ(e.leaf(), "enc.b");
  const Error size = error_of([&] { state.update({a, b}, {g, g}); });
  EXPECT_STREQ(size.leaf(), "enc.b");
  EXPECT_STREQ(size.what(), "update: gradient at \"enc.b\" has 2 elements, expected 3 ((3,))");
  const Floats constant(2, 1.f);
  EXPECT_STREQ(error_of([&] { state.update({AnySpan(constant), b}, {g, b}); }).leaf(), "enc.w");
  EXPECT_EQ(a, Floats(2, 1.f));
  EXPECT_EQ(state["enc.w"].clock("beta1_t"), 1.0);
  EXPECT_THROW(setup(Adam{}, {{"a", a}, {"b", a}}), Error);    // tied
  EXPECT_THROW(setup(Adam{}, {{"a", a}, {"a", b}}), Error);    // one name twice
  EXPECT_THROW(setup(Adam{.eta = -1}, a), Error);              // out of range
  EXPECT_THROW(setup(Adam{}, Model(a, {{"a", {3}}})), Error);  // segments do not fit
  EXPECT_THROW(state.update(a, g), Error);                     // neither flat nor one a leaf
}

TEST(Api, ValuesInsteadOfThrows) {
  Floats x(3, 1.f), g(3, 1.f);
  auto made = try_setup(Descent{.eta = 1}, {{"w", x}});
  ASSERT_TRUE(made);
  EXPECT_TRUE(made->try_update(x, g));
  EXPECT_EQ(x[0], 0.f);
  const auto failed = made->try_update(x, Floats(2));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind, ErrorKind::value);
  EXPECT_EQ(failed.error().leaf, "w");
  EXPECT_FALSE(try_setup(Descent{.eta = -1}, x));
  EXPECT_FALSE(made->try_adjust({{"rho", 0.1}}));
}

TEST(Api, StatesAreValues) {
  Floats x = ramp(100, 1.f), g = ramp(100, 0.5f);
  State a = setup(Adam{}, x);
  a.update(x, g);
  State b = a;
  Floats y = x;
  a.update(x, g);
  a.update(x, g);
  b.update(y, g);
  State c = std::move(b);
  c.update(y, g);
  EXPECT_EQ(x, y);
  b = c;
  EXPECT_EQ(b.leaf(0).clock("beta2_t"), c.leaf(0).clock("beta2_t"));
}

TEST(Api, PackConvertsAndChecks) {
  Floats a{1, 2};
  std::vector<Half> h{{0x3c00}};  // 1
  const auto flat = pack<double>({a, h});
  EXPECT_EQ(flat, (std::vector<double>{1, 2, 1}));
  std::vector<std::complex<float>> c(3);
  pack({a, h}, c);
  EXPECT_EQ(c[1], std::complex<float>(2, 0));
  Floats back(3);
  unpack(c, back);
  EXPECT_EQ(back, (Floats{1, 2, 1}));
  EXPECT_THROW(pack({a, h}, a), Error);  // length, and shared memory
  EXPECT_THROW(pack<float>(Arrays(c)), Error);
  const std::span<float> whole(back);
  EXPECT_THROW(unpack(Floats(4), {whole.first(2), whole.subspan(1)}), Error);  // they share an element
  const AnySpan like[] = {a, h};
  Floats zeros(3, 9.f);
  pack({{}, h}, zeros, like);
  EXPECT_EQ(zeros, (Floats{0, 0, 1}));
  const std::size_t sizes[] = {2, 1};
  EXPECT_EQ(split(std::span(zeros), sizes)[1][0], 1.f);
}

}  // namespace
}  // namespace optimisers::test
