// convert.hpp: conversions between element types, by integer arithmetic where no portable instruction exists,
// so that every instruction set gives the same bits. All round to nearest, ties to even.
#pragma once
#include <bit>
#include <cstdint>

#include "optimisers/dtype.hpp"

namespace optimisers::inline OPT_ABI::cpu {

template <class T>
inline constexpr bool is_narrow = std::is_same_v<T, Half> || std::is_same_v<T, BHalf>;

OPT_FN float half_to_float(std::uint16_t h) {
  constexpr std::uint32_t rebias = 112u << 23;  // exponent bias 127 - 15
  const std::uint32_t magnitude = h & 0x7fffu, sign = std::uint32_t(h & 0x8000u) << 16;
  const std::uint32_t special = magnitude >= 0x7c00u ? rebias : 0;  // infinity and NaN: exponent 31 becomes 255
  const std::uint32_t normal = (magnitude << 13) + rebias + special;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(float(std::int32_t(magnitude)) * 0x1p-24f);
  return std::bit_cast<float>((magnitude < 0x400u ? subnormal : normal) | sign);
}

OPT_FN std::uint16_t float_to_half(float f) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(f), a = bits & 0x7fffffffu;
  const std::uint32_t rebased = a - (112u << 23);
  const std::uint32_t rounded = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  const std::uint32_t normal = rounded < 0x7c00u ? rounded : 0x7c00u;
  // Below 2^-14 the half is an integer multiple of 2^-24; adding 2^23 rounds to that integer.
  const float shifted = std::bit_cast<float>(a < 0x38800000u ? a : 0u) * 0x1p24f + 0x1p23f;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(shifted) - 0x4b000000u;
  const std::uint32_t finite = a < 0x38800000u ? subnormal : normal;
  return std::uint16_t((a > 0x7f800000u ? 0x7e00u : finite) | (bits >> 16 & 0x8000u));
}

OPT_FN float bhalf_to_float(std::uint16_t h) { return std::bit_cast<float>(std::uint32_t(h) << 16); }

OPT_FN std::uint16_t float_to_bhalf(float f) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return std::uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

// Rounds to odd, so that a second rounding to 16 bits gives what one rounding from double would have given.
OPT_FN float double_to_float_odd(double d) {
  const float f = float(d);
  const double back = f;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  const bool inexact = back != d && d == d && (bits & 1u) == 0;
  const bool short_of_it = (back < 0 ? -back : back) < (d < 0 ? -d : d);
  bits += inexact ? (short_of_it ? 1u : ~0u) : 0u;
  return std::bit_cast<float>(bits);
}

// Likewise of integers: 64 bits do not fit a double, and this one rounds on to float or less as the integer would.
template <class I>
OPT_FN double integer_to_double_odd(I a) {
  if constexpr (sizeof(I) == 8) {
    constexpr I exact = I(1) << 53, lost = (1 << 11) - 1;
    if (a > exact || (std::is_signed_v<I> && a < I(0) - exact)) a = I(a >> 11 | I((a & lost) != 0)) << 11;
  }
  return double(a);
}

template <class To, class From>
OPT_FN To convert(From a) {
  if constexpr (std::is_same_v<To, From>) return a;
  else if constexpr (is_complex<To> && is_complex<From>) return {convert<real_t<To>>(a.re), convert<real_t<To>>(a.im)};
  else if constexpr (is_complex<To>) return {convert<real_t<To>>(a), 0};
  else if constexpr (is_narrow<To> && std::is_integral_v<From>) return convert<To>(integer_to_double_odd(a));
  else if constexpr (is_narrow<To> && is_narrow<From>) return convert<To>(convert<float>(a));
  else if constexpr (std::is_same_v<From, Half>) return To(half_to_float(a.bits));
  else if constexpr (std::is_same_v<From, BHalf>) return To(bhalf_to_float(a.bits));
  else if constexpr (std::is_same_v<To, Half> && std::is_same_v<From, double>)
    return {float_to_half(double_to_float_odd(a))};
  else if constexpr (std::is_same_v<To, Half>) return {float_to_half(a)};
  else if constexpr (std::is_same_v<To, BHalf> && std::is_same_v<From, double>)
    return {float_to_bhalf(double_to_float_odd(a))};
  else if constexpr (std::is_same_v<To, BHalf>) return {float_to_bhalf(a)};
  else return static_cast<To>(a);
}

// The bits of a real element, to compare without NaN and signed zero in the way.
OPT_FN std::uint16_t bits_of(Half a) { return a.bits; }
OPT_FN std::uint16_t bits_of(BHalf a) { return a.bits; }
OPT_FN std::uint32_t bits_of(float a) { return std::bit_cast<std::uint32_t>(a); }
OPT_FN std::uint64_t bits_of(double a) { return std::bit_cast<std::uint64_t>(a); }

}  // namespace optimisers::inline OPT_ABI::cpu
