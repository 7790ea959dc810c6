// test_sums.cpp: rules that sum over a leaf or over all: a rule of one's own, fused, and leaves shared by processes.
#include <gtest/gtest.h>

#include <cmath>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

namespace optimisers::test {
namespace {

// dx over the mean of |x|, of a leaf or of all; counts the steps there were in its clock once sums are known.
struct OverMean {
  Scope scope = Scope::leaf;
  static constexpr Text text{.name = "OverMean"};
  static constexpr std::tuple fields{Field{"scope", &OverMean::scope, Range::choice, "of the mean"}};
  static constexpr std::array slots{Slot<OverMean>{"seen"}};
  static constexpr std::array sums{"sizes of x", "x", "what `seen` will be"};
  OPT_FN Scope sums_over() const { return scope; }
  friend bool operator==(const OverMean&, const OverMean&) = default;
  struct Clock {
    double finished = 0;
  };
  static constexpr std::array clock{"finished"};
  template <class R>
  struct Step {
    R scale;
  };
  template <class R>
  Step<R> tick(Clock&) const {
    return {R(1)};
  }
  template <class T>
  OPT_FN static Sums<3> terms(const Step<real_t<T>>& /*k*/, T x, T dx, T seen) {
    return {{double(magnitude(x)), double(along(x, from_real<T>(1))), double(along(seen + dx, from_real<T>(1)))}};
  }
  template <class R>
  void finish(Clock& c, Step<R>& k, const Sums<3>& found, double elements) const {
    c.finished += found.of[2];
    k.scale = R(elements / found.of[0]);
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& seen) {
    seen = seen + dx;
    dx = k.scale * dx;
  }
};

TEST(Sums, RuleOfOnesOwnSumsOverItsLeaf) {
  std::vector<double> x{1, -3}, y{10};
  State state = setup(OverMean{}, {{"x", x}, {"y", y}});
  state.update({x, y}, {std::vector<double>{2, 4}, std::vector<double>{20}});
  EXPECT_EQ(x, (std::vector<double>{0, -5}));
  EXPECT_EQ(y, (std::vector<double>{8}));
  EXPECT_EQ(state["x"].clock("finished"), 6);
  state.update({x, y}, {std::vector<double>{0, 1}, AnySpan{}});
  EXPECT_EQ(state["x"].clock("finished"), 6 + 7);
}

TEST(Sums, GlobalOnesAreOfAllLeavesInTheCall) {
  std::vector<float> x{1, -3}, y{5};
  State state = setup(Chain{Descent{1}, OverMean{.scope = Scope::global}}, {{"x", x}, {"y", y}});
  state.update({x, y}, {std::vector<float>{3, 3}, std::vector<float>{6}});
  EXPECT_EQ(x, (std::vector<float>{0, -4}));
  EXPECT_EQ(y, (std::vector<float>{3}));
}

template <class T, class R>
std::vector<T> trained(const R& rule) {
  std::vector<T> x, g;
  for (int i = 0; i < 40'001; ++i) {
    x.push_back(from_real<T>(real_t<T>(i % 7) - real_t<T>(2.5)));
    g.push_back(from_real<T>(real_t<T>(i % 11) - real_t<T>(4.5)));
  }
  State state = setup(rule, x);
  for (int i = 0; i < 3; ++i) state.update(x, g);
  return x;
}
template <class T>
void expect_fused_like_stages() {
  const auto fused = trained<T>(Fused{Momentum{}, OverMean{}, WeightDecay{.lambda = 0.1}, TrustRatio{}});
  EXPECT_TRUE(fused == trained<T>(RuntimeChain{Momentum{}, OverMean{}, WeightDecay{.lambda = 0.1}, TrustRatio{}}));
}
TEST(Sums, FusedChainsGiveTheBitsOfTheirStages) {
  expect_fused_like_stages<float>();
  expect_fused_like_stages<double>();
  expect_fused_like_stages<Complex<float>>();
}

TEST(Sums, OfALeafInPartsAreAddedUpAsNormsOfOrderOne) {
  // Two processes with half a leaf each, as one process with all of it.
  std::vector<double> whole{3, 4, 12, 0}, grads{1, 0, 0, 2}, half{3, 4}, half_grads{1, 0};
  setup(Chain{TrustRatio{}, ClipRMS{.omega = 0.1}}, whole).update(whole, grads);
  std::string asked;
  const double there[] = {144, 4, 2, 0, 2};  // what the other half would give; the fourth is made from it below
  int at = 0;
  State state = setup(Chain{TrustRatio{}, ClipRMS{.omega = 0.1}}, half);
  state.update(half, half_grads, {.reduce_norm = [&](double sum, double p, const std::string& leaf) {
                 asked += leaf + std::to_string(int(p)) + " ";
                 return at++ == 3 ? 5 * sum : sum + there[at - 1];
               }});
  EXPECT_EQ(asked, "01 01 01 01 01 ");
  EXPECT_EQ(half[0], whole[0]);
  EXPECT_EQ(half[1], whole[1]);
}

TEST(Sums, NotFiniteRefusesTheCall) {
  std::vector<float> x{1, 2}, y{3, 4};
  State state = setup(Chain{Momentum{}, TrustRatio{}}, {{"x", x}, {"y", y}});
  try {
    state.update({x, y}, {std::vector<float>{1, 1}, std::vector<float>{1, INFINITY}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::non_finite);
    EXPECT_EQ(std::string(error.what()),
              "update: TrustRatio expects finite numbers, got inf as its sum of squares of dx, first at \"y\"; nothing "
              "was written. Skip this step, or use NonFinite::skip");
  }
  EXPECT_EQ(x, (std::vector<float>{1, 2}));
  EXPECT_EQ(y, (std::vector<float>{3, 4}));
}

}  // namespace
}  // namespace optimisers::test
