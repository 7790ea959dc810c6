// test_sweeps.cpp: norms and moving averages over lists of arrays.
#include "optimisers/sweeps.hpp"

#include <cmath>

#include "optimisers/error.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

TEST(Norm, OfSeveralArraysTogether) {
  Vector<float> a(9, 1.f);
  Vector<double> b(16, -1.0), none(0, 0.0);
  const std::vector<ArrayView> all{a.view(), b.view(), none.view()};
  EXPECT_DOUBLE_EQ(norm(all), 5);
  EXPECT_DOUBLE_EQ(norm(all, 1), 25);
  EXPECT_DOUBLE_EQ(norm(all, INFINITY), 1);
  EXPECT_DOUBLE_EQ(norm(all, -INFINITY), 1);
  EXPECT_NEAR(norm(all, 3.5), std::pow(25, 1 / 3.5), 1e-14);
  EXPECT_EQ(norm(std::vector{none.view()}, -INFINITY), 0);
  EXPECT_THROW(norm(all, 0), Error);
}

TEST(Norm, NeitherOverflowsNorUnderflows) {
  for (double size : {1e200, 1e-200, 1e-320}) {
    Vector<double> a(100, size);
    EXPECT_NEAR(norm(std::vector{a.view()}) / (10 * size), 1, 1e-3);  // 1e-320 has few digits
    EXPECT_NEAR(norm(std::vector{a.view()}, 3) / (std::cbrt(100.0) * size), 1, 1e-3);
  }
  Vector<double> big(4, 1e200), small(4, 1.0);
  EXPECT_NEAR(norm(std::vector{small.view(), big.view()}) / 2e200, 1, 1e-15);
  Vector<double> bad(4, 1.0);
  bad.values[2] = NAN;
  EXPECT_TRUE(std::isnan(norm(std::vector{big.view(), bad.view()})));
}

TEST(Norm, SameBitsForAnyNumberOfThreads) {
  Vector<float> a(400'003, 0.f);
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] = float(std::sin(double(i)));
  std::vector<double> results;
  for (int threads : {1, 2, 7}) {
    set_num_threads(threads);
    results.push_back(norm(std::vector{a.view()}));
  }
  set_num_threads(2);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Lerp, MovesTheTargetTowardsTheSource) {
  Vector<float> target(1000, 1.f);
  Vector<double> source(1000, 3.0);
  const NameOf names = named({"w"});
  lerp(std::vector{target.view()}, std::vector{source.view()}, 0.25, names);
  EXPECT_FLOAT_EQ(target.values[999], 1.5f);
  lerp(std::vector{target.view()}, std::vector{source.view()}, 1, names);
  EXPECT_EQ(target.values[0], 3.f);
}

TEST(Lerp, RefusesBeforeItWrites) {
  Vector<float> a(10, 1.f), b(10, 2.f), source(10, 5.f), shorter(9, 5.f);
  const NameOf names = named({"a", "b"});
  EXPECT_THROW(lerp(std::vector{a.view(), b.view()}, std::vector{source.view(), shorter.view()}, 0.5, names), Error);
  EXPECT_THROW(lerp(std::vector{a.view(), b.view()}, std::vector{b.view(), source.view()}, 0.5, names),
               Error);  // b is written
  EXPECT_THROW(lerp(std::vector{a.view()}, std::vector{source.view()}, 1.5, names), Error);
  EXPECT_EQ(a.values, std::vector<float>(10, 1.f));
  lerp(std::vector{a.view()}, std::vector{a.view()}, 0.5, names);  // its own source: unchanged
  EXPECT_EQ(a.values, std::vector<float>(10, 1.f));
}

}  // namespace
}  // namespace optimisers::test
