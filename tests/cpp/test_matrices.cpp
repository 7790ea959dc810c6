// test_matrices.cpp: products of matrices and what is made of them; Muon from values, names and text.
#include <gtest/gtest.h>

#include <cmath>
#include <optimisers/optimisers.hpp>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/matrix.hpp"
#include "optimisers/parse.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

template <class T>
std::vector<T> numbers(std::int64_t n, unsigned seed) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (T& a : v) {
    seed = seed * 1664525u + 1013904223u;
    a = T(int(seed >> 8) % 20001 - 10000) / T(10000);
  }
  return v;
}

// Each element is a sum in order, with one rounding for a product and its sum on every level but the lowest.
template <class T>
void expect_sums_in_order(const cpu::KernelTable& table) {
  const cpu::Tile& tile = table.tile[sizeof(T) == 8];
  const std::int64_t deep = 37;
  const auto a = numbers<T>(deep * tile.rows, 1), b = numbers<T>(deep * tile.cols, 2);
  std::vector<T> out(std::size_t(tile.rows * tile.cols));
  tile.multiply(deep, a.data(), b.data(), out.data());
  bool fused = true, apart = true;
  for (int i = 0; i < tile.rows; ++i)
    for (int j = 0; j < tile.cols; ++j) {
      T once = 0, twice = 0;
      for (std::int64_t k = 0; k < deep; ++k) {
        const T x = a[std::size_t(k * tile.rows + i)], y = b[std::size_t(k * tile.cols + j)];
        const volatile T product = x * y;
        once = std::fma(x, y, once);
        twice = twice + product;
      }
      fused &= out[std::size_t(i * tile.cols + j)] == once;
      apart &= out[std::size_t(i * tile.cols + j)] == twice;
    }
  EXPECT_TRUE(fused || apart) << table.level;
#ifdef NDEBUG  // compilers do not contract where they are to debug, nor beside some sanitizers
  const std::string level = table.level;
  if (level == "v3" || level == "v4") EXPECT_TRUE(fused) << level;
#endif
}

TEST(Matrices, TilesSumInOrder) {
  for (const cpu::KernelTable* table : cpu::runnable_kernels()) {
    expect_sums_in_order<float>(*table);
    expect_sums_in_order<double>(*table);
  }
}

// One step of X ← a X + b (XXᵀ) X + c (XXᵀ)² X, by the book.
std::vector<double> step_of(const std::vector<double>& x, std::int64_t m, std::int64_t n, double a, double b,
                            double c) {
  const auto at = [](const std::vector<double>& v, std::int64_t cols, std::int64_t i, std::int64_t j) {
    return v[std::size_t(i * cols + j)];
  };
  const auto times = [&](const std::vector<double>& l, const std::vector<double>& r, std::int64_t inner,
                         std::int64_t cols) {
    std::vector<double> out(std::size_t(m * cols));
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < cols; ++j)
        for (std::int64_t k = 0; k < inner; ++k)
          out[std::size_t(i * cols + j)] += at(l, inner, i, k) * at(r, cols, k, j);
    return out;
  };
  std::vector<double> turned(x.size());
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) turned[std::size_t(j * m + i)] = at(x, n, i, j);
  const auto square = times(x, turned, n, m), once = times(square, x, m, n), twice = times(square, once, m, n);
  std::vector<double> out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = a * x[i] + b * once[i] + c * twice[i];
  return out;
}

TEST(Matrices, PolynomialsAreThoseOfTheBookWhateverTheShapeAndTheThreads) {
  const std::array<double, 3> table[] = {{3, -2, 0.5}};
  const Polynomial once{1, table, 1, 1, 0};
  const int before = get_num_threads();
  for (const auto& [m, n] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 300}, {13, 13}, {130, 395}, {400, 1100}}) {
    auto x = numbers<double>(m * n, unsigned(m));
    double sum = 0;
    for (const double a : x) sum += a * a;
    auto scaled = x;
    for (double& a : scaled) a /= std::sqrt(sum);
    const auto want = step_of(scaled, m, n, 3, -2, 0.5);
    std::vector<double> first;
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      auto got = x;
      const cpu::MatrixShape shape{1, m, n, false};
      std::vector<double> memory(cpu::matrix_workspace(shape, DType::float64) / 8 + 8);
      auto* const aligned =
          reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
      cpu::orthogonalise(reinterpret_cast<std::byte*>(got.data()), shape, once, DType::float64, aligned);
      if (first.empty()) first = got;
      EXPECT_TRUE(got == first) << m << " x " << n << ", " << threads << " threads";
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-13);
    }
  }
  set_num_threads(before);
}

TEST(Matrices, MuonIsAValueANameAndAText) {
  const AnyRule by_value(Muon{.eta = 0.1, .scaling = Muon::Scaling::match_rms, .layout = Layout::in_out});
  const AnyRule by_name = AnyRule("Muon").with("eta", 0.1).with("scaling", "match_rms").with("layout", Layout::in_out);
  const Program by_text = parse_program("Muon(eta=0.1, scaling=\"match_rms\", layout=\"in_out\")");
  EXPECT_TRUE(by_value == by_name);
  EXPECT_TRUE(by_value == by_text.stages[0]);
  std::vector<float> x(12, 1.0f), g = numbers<float>(12, 3);
  const AnySpan matrix = AnySpan::matrix(x.data(), 3, 4, 4, 1), gradient = AnySpan::matrix(g.data(), 3, 4, 4, 1);
  State state = setup(by_value, {{"w", matrix}});
  state.update({matrix}, {gradient});
  EXPECT_NE(x[0], 1.0f);
  EXPECT_THROW(setup(Muon{}, {{"b", x}}), Error);
  EXPECT_THROW(AnyRule("Muon").with("scaling", "moonlight"), Error);
}

}  // namespace
}  // namespace optimisers::test
