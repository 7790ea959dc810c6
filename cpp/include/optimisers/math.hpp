// math.hpp: the vocabulary rules are written in, the same on host and device, for real and complex elements.
// minimum, maximum, clamp and sign propagate NaN; sign(0) = 0. Nothing here depends on the instruction set.
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

struct Pair {
  double first, second;
  friend constexpr bool operator==(const Pair&, const Pair&) = default;
};

// std::complex multiplies with a NaN-recovery branch that blocks vectorisation; moments need only these.
template <class R>
struct Complex {
  R re, im;
  OPT_FN friend constexpr Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
  OPT_FN friend constexpr Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
  OPT_FN friend constexpr Complex operator*(R k, Complex a) { return {k * a.re, k * a.im}; }
  OPT_FN friend constexpr Complex operator/(Complex a, R k) { return {a.re / k, a.im / k}; }
  friend constexpr bool operator==(const Complex&, const Complex&) = default;
};

template <class T>
struct RealOf {
  using type = T;
};
template <class R>
struct RealOf<Complex<R>> {
  using type = R;
};
template <class T>
using real_t = typename RealOf<T>::type;
template <class T>
inline constexpr bool is_complex = !std::is_same_v<T, real_t<T>>;

// A real number as an element: complex elements start with imaginary part 0.
template <class T>
OPT_FN constexpr T from_real(real_t<T> r) {
  if constexpr (is_complex<T>) return {r, 0};
  else return r;
}

template <class R>
OPT_FN constexpr R maximum(R a, R b) {
  return ((a > b) | (a != a)) ? a : b;
}

template <class R>
OPT_FN constexpr R minimum(R a, R b) {
  return ((a < b) | (a != a)) ? a : b;
}

template <class R>
OPT_FN R root(R a) {
  return std::sqrt(a);
}

// On a device a function of its own, whose last bit is that library's (tools/check_kernels.py).
OPT_CALL double logarithm(double a) { return std::log(a); }

// ε of a denominator as a scalar of type R, never so small that 0/0 were not 0: beside a root about the least root of a
// number that is not 0, so that a root whose square has vanished is not much too small; under a root with squares,
// less.
template <class R>
OPT_FN constexpr R root_epsilon(double epsilon) {
  return maximum(R(epsilon), R(sizeof(R) == sizeof(float) ? 0x1p-75 : 0x1p-537));
}
template <class R>
OPT_FN constexpr R square_epsilon(double epsilon) {
  return maximum(R(epsilon), std::numeric_limits<R>::min());
}

template <class T>
OPT_FN real_t<T> abs2(T a) {
  if constexpr (is_complex<T>) return a.re * a.re + a.im * a.im;
  else return a * a;
}

// In double, where squares of floats are exact.
template <class T>
OPT_FN double wide_abs2(T a) {
  if constexpr (is_complex<T>) return double(a.re) * double(a.re) + double(a.im) * double(a.im);
  else return double(a) * double(a);
}

// Re(conj(a) b): of what sign b is along a.
template <class T>
OPT_FN real_t<T> along(T a, T b) {
  if constexpr (is_complex<T>) return a.re * b.re + a.im * b.im;
  else return a * b;
}

template <class T>
OPT_FN real_t<T> magnitude(T a) {
  if constexpr (is_complex<T>) return root(abs2(a));
  else return a < 0 ? -a : a;
}

// Each component into [-bound, bound].
template <class T>
OPT_FN constexpr T clamp(T a, real_t<T> bound) {
  if constexpr (is_complex<T>) return {clamp(a.re, bound), clamp(a.im, bound)};
  else {  // in this form x86 has an instruction for each line; they give their second operand where one is NaN
    const T below = bound < a ? bound : a;
    return -bound > below ? -bound : below;
  }
}

// sign(z) = z / abs(z); 0 and NaN come back as they are.
template <class T>
OPT_FN T sign(T a) {
  if constexpr (is_complex<T>) {
    const real_t<T> r = magnitude(a);
    return a / (r == 0 ? real_t<T>(1) : r);
  } else {
    return a > 0 ? T(1) : a < 0 ? T(-1) : a;
  }
}

}  // namespace optimisers::inline OPT_ABI
