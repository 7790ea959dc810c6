// checksum.cpp: CRC-32 by tables, eight bytes at a time; where the processor multiplies without carries, 64 at a time.
#include "files/checksum.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define OPT_CARRYLESS 1
#endif

namespace optimisers::inline OPT_ABI {
namespace {

constexpr std::uint32_t polynomial = 0xedb88320;  // bits reversed, as are all values here

constexpr auto tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> all{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? polynomial : 0);
    all[0][byte] = rest;
  }
  for (std::size_t behind = 1; behind < all.size(); ++behind)  // the same byte with zeros behind it
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t rest = all[behind - 1][byte];
      all[behind][byte] = (rest >> 8) ^ all[0][rest & 0xff];
    }
  return all;
}();

// Of the remainder without the inversions at both ends.
std::uint32_t by_tables(const unsigned char* p, std::size_t n, std::uint32_t rest) {
  for (; n >= 8; n -= 8, p += 8) {
    const std::uint32_t low =
        rest ^ (p[0] | std::uint32_t(p[1]) << 8 | std::uint32_t(p[2]) << 16 | std::uint32_t(p[3]) << 24);
    rest = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^ tables[4][low >> 24] ^
           tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
  }
  for (; n > 0; --n, ++p) rest = (rest >> 8) ^ tables[0][(rest ^ *p) & 0xff];
  return rest;
}

#if OPT_CARRYLESS
// What lies `distance` bits ahead of x, modulo the polynomial: `powers` are those of x^(distance ± 32) (Gopal et al.,
// "Fast CRC computation for generic polynomials using PCLMULQDQ", 2009).
__attribute__((target("pclmul,sse4.1"))) inline __m128i folded(__m128i x, __m128i powers, __m128i onto) {
  const __m128i low = _mm_clmulepi64_si128(x, powers, 0x00), high = _mm_clmulepi64_si128(x, powers, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

// Of at least 64 bytes.
__attribute__((target("pclmul,sse4.1"))) std::uint32_t by_products(const unsigned char* p, std::size_t n,
                                                                   std::uint32_t rest) {
  const auto at = [](const unsigned char* from) __attribute__((target("pclmul,sse4.1"))) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  };
  const __m128i by_512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), by_128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
  __m128i a = _mm_xor_si128(at(p), _mm_cvtsi32_si128(int(rest))), b = at(p + 16), c = at(p + 32), d = at(p + 48);
  for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
    a = folded(a, by_512, at(p));
    b = folded(b, by_512, at(p + 16));
    c = folded(c, by_512, at(p + 32));
    d = folded(d, by_512, at(p + 48));
  }
  d = folded(folded(folded(a, by_128, b), by_128, c), by_128, d);
  unsigned char last[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(last), d);
  return by_tables(p, n, by_tables(last, sizeof last, 0));
}
#endif

}  // namespace

std::uint32_t crc32(const void* data, std::size_t size, std::uint32_t before) {
  const auto* p = static_cast<const unsigned char*>(data);
#if OPT_CARRYLESS
  static const bool multiplies = __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.1") != 0;
  if (multiplies && size >= 64) return ~by_products(p, size, ~before);
#endif
  return ~by_tables(p, size, ~before);
}

}  // namespace optimisers::inline OPT_ABI
