// test_convert.cpp: the 16-bit floats, exhaustively in one direction and against exact arithmetic in the other.
#include "cpu/convert.hpp"

#include <cmath>
#include <limits>

#include "support.hpp"

namespace optimisers::cpu {
namespace {

double exact_half(std::uint16_t h) {
  const int e = h >> 10 & 31, m = h & 1023;
  const double a = e == 0 ? std::ldexp(m, -24) : e == 31 ? (m ? NAN : INFINITY) : std::ldexp(1024 + m, e - 25);
  return h & 0x8000 ? -a : a;
}

TEST(Convert, EveryHalfHasItsExactValueAndComesBack) {
  for (int h = 0; h < 65536; ++h) {
    const auto bits = std::uint16_t(h);
    const double exact = exact_half(bits);
    if (std::isnan(exact)) {
      EXPECT_TRUE(std::isnan(half_to_float(bits)));
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(half_to_float(bits)))));
      continue;
    }
    ASSERT_EQ(half_to_float(bits), exact) << h;
    ASSERT_EQ(float_to_half(half_to_float(bits)), bits) << h;
    ASSERT_EQ(float_to_bhalf(bhalf_to_float(bits)), std::isnan(bhalf_to_float(bits)) ? (bits | 0x40) : bits);
  }
}

TEST(Convert, RoundsToTheNearestHalfTiesToEven) {
  for (int h = 0; h < 0x7c00; ++h) {  // between every finite half and its successor
    const double lo = exact_half(std::uint16_t(h));
    const double hi = h == 0x7bff ? 65536.0 : exact_half(std::uint16_t(h + 1));
    const double middle = (lo + hi) / 2;
    const auto even = std::uint16_t(h % 2 ? h + 1 : h);
    ASSERT_EQ(float_to_half(float(middle)), even);
    ASSERT_EQ(float_to_half(std::nextafter(float(middle), 0.f)), h);
    ASSERT_EQ(float_to_half(std::nextafter(float(middle), 1e9f)), h + 1);
    // From double in one rounding, where going through float would tie.
    ASSERT_EQ(convert<Half>(middle * (1 + 1e-12)).bits, h + 1);
    ASSERT_EQ(convert<Half>(middle * (1 - 1e-12)).bits, h);
  }
  EXPECT_EQ(float_to_half(1e9f), 0x7c00);
  EXPECT_EQ(float_to_half(-INFINITY), 0xfc00);
}

TEST(Convert, RoundsToTheNearestBfloat16TiesToEven) {
  for (int h = 1; h < 0x7f7f; h += 7) {
    const double lo = bhalf_to_float(std::uint16_t(h)), hi = bhalf_to_float(std::uint16_t(h + 1));
    const auto middle = float((lo + hi) / 2);
    ASSERT_EQ(float_to_bhalf(middle), h % 2 ? h + 1 : h);
    ASSERT_EQ(float_to_bhalf(std::nextafter(middle, 0.f)), h);
    ASSERT_EQ(convert<BHalf>(double(middle) * (1 + 1e-12)).bits, h + 1);
  }
}

}  // namespace
}  // namespace optimisers::cpu
