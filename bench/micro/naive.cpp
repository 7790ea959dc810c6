// naive.cpp: Adam as one writes it into a program that needs nothing else, compiled for this very machine.
#include <cmath>
#include <cstddef>

namespace bench {

template <class T>
void naive_adam(T* x, const T* dx, T* m, T* v, std::size_t n, long t) {
  const T b1 = T(0.9), b2 = T(0.999), eta = T(1e-3), epsilon = T(1e-8);
  const T c1 = 1 / (1 - std::pow(b1, T(t))), c2 = 1 / (1 - std::pow(b2, T(t)));
  for (std::size_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + (1 - b1) * dx[i];
    v[i] = b2 * v[i] + (1 - b2) * dx[i] * dx[i];
    x[i] -= eta * (m[i] * c1) / (std::sqrt(v[i] * c2) + epsilon);
  }
}
template void naive_adam(float*, const float*, float*, float*, std::size_t, long);
template void naive_adam(double*, const double*, double*, double*, std::size_t, long);

}  // namespace bench
