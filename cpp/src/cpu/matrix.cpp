// matrix.cpp: products of matrices in blocks that stay in the caches, and the polynomials made of them.
// Each element of a product is added up by one thread, over blocks of `depth` in order: its bits depend on nothing
// else. Where both sides of a product are one matrix, half of it is computed.
#include "cpu/matrix.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "cpu/kernels.hpp"
#include "optimisers/threads.hpp"
#include "plan/norm_terms.hpp"

namespace optimisers::inline OPT_ABI::cpu {
namespace products {
namespace {

using Size = std::int64_t;
constexpr Size depth = 256, most_rows = 384, most_cols = 1024;  // of a block; multiples of all tiles' sides
constexpr Size worth_a_thread = 1 << 20;                        // products of numbers
constexpr std::size_t line = 64;

constexpr std::size_t whole_lines(std::size_t bytes) { return (bytes + line - 1) / line * line; }
constexpr Size up_to(Size n, Size unit) { return (n + unit - 1) / unit * unit; }

template <class T>
struct Matrix {  // element (i, j) at data[i * down + j * right]
  T* data;
  Size down, right;
};

// What one thread packs blocks into.
template <class T>
constexpr std::size_t packed_bytes() {
  return whole_lines(std::size_t((most_rows + most_cols) * depth) * sizeof(T));
}

// `count` rows of a (or, with the arguments turned, columns of b) side by side in panels of `width`, zeros behind.
template <class T>
void pack(T* to, const T* from, Size stride, Size along, Size count, Size k, Size width) {
  for (Size p = 0; p < count; p += width, to += width * k) {
    const Size here = std::min(width, count - p);
    const T* first = from + p * stride;
    if (stride == 1 && here == width) {
      for (Size d = 0; d < k; ++d) std::memcpy(to + d * width, first + d * along, std::size_t(width) * sizeof(T));
      continue;
    }
    for (Size i = 0; i < here; ++i)
      for (Size d = 0; d < k; ++d) to[d * width + i] = first[i * stride + d * along];
    for (Size i = here; i < width; ++i)
      for (Size d = 0; d < k; ++d) to[d * width + i] = 0;
  }
}

// c = alpha a b + beta d. Symmetric: a b is, and only its lower half is computed, then copied up.
template <class T>
struct Product {
  Size m, n, k;
  Matrix<const T> a, b;
  T* c;  // rows of n
  T alpha, beta;
  const T* d;
  bool symmetric;
  const Tile& tile;

  // The block from (i0, j0) on, by one thread.
  void block(Size i0, Size rows, Size j0, Size cols, T* packed) const {
    T *const pa = packed, *const pb = packed + most_rows * depth;
    for (Size k0 = 0; k0 < k; k0 += depth) {
      const Size deep = std::min(depth, k - k0);
      pack(pa, a.data + i0 * a.down + k0 * a.right, a.down, a.right, rows, deep, Size(tile.rows));
      pack(pb, b.data + k0 * b.down + j0 * b.right, b.right, b.down, cols, deep, Size(tile.cols));
      for (Size j = 0; j < cols; j += tile.cols)
        for (Size i = 0; i < rows; i += tile.rows) {
          if (symmetric && i0 + i + tile.rows <= j0 + j) continue;
          alignas(line) T out[12 * 32];
          tile.multiply(deep, pa + i * deep, pb + j * deep, out);
          add(i0 + i, std::min<Size>(tile.rows, rows - i), j0 + j, std::min<Size>(tile.cols, cols - j), out, k0 == 0,
              k0 + deep == k);
        }
    }
  }

 private:
  void add(Size i0, Size rows, Size j0, Size cols, const T* out, bool first, bool last) const {
    for (Size i = 0; i < rows; ++i, out += tile.cols) {
      T* to = c + (i0 + i) * n + j0;
      if (first) std::copy_n(out, cols, to);
      else
        for (Size j = 0; j < cols; ++j) to[j] += out[j];
      if (!last) continue;
      const T* more = d == nullptr ? nullptr : d + (i0 + i) * n + j0;
      for (Size j = 0; j < cols; ++j) to[j] = more == nullptr ? alpha * to[j] : alpha * to[j] + beta * more[j];
    }
  }
};

int threads_for(double products) {
  const double wanted = products / double(worth_a_thread);
  return wanted < 2 ? 1 : int(std::min<double>(wanted, get_num_threads()));
}

template <class T>
void multiply(const Product<T>& p, std::byte* packed) {
  const int threads = threads_for(double(p.m) * double(p.n) * double(p.k));
  const Size rows = std::clamp(up_to((p.m + threads - 1) / threads, Size(p.tile.rows)), Size(p.tile.rows), most_rows);
  const Size cols = std::min(up_to(p.n, Size(p.tile.cols)), most_cols);
  const Size down = (p.m + rows - 1) / rows, across = (p.n + cols - 1) / cols;
  std::atomic<Size> next{0};
  const auto work = [&](int thread) {
    T* const memory = reinterpret_cast<T*>(packed + std::size_t(thread) * packed_bytes<T>());
    for (Size at = next++; at < down * across; at = next++) {
      const Size i = at % down * rows, j = at / down * cols;
      if (p.symmetric && i + rows <= j) continue;
      p.block(i, std::min(rows, p.m - i), j, std::min(cols, p.n - j), memory);
    }
  };
  if (threads == 1) work(0);
  else parallel(threads, work, Deal::fixed);
  if (!p.symmetric) return;
  for (Size i = 0; i < p.m; ++i)
    for (Size j = i + 1; j < p.n; ++j) p.c[i * p.n + j] = p.c[j * p.n + i];
}

// to[j][i] = scale from[i][j], in squares that stay in the cache.
template <class T>
void copy_transposed(T* to, const T* from, Size rows, Size cols, T scale) {
  constexpr Size side = 32;
  for (Size i0 = 0; i0 < rows; i0 += side)
    for (Size j0 = 0; j0 < cols; j0 += side)
      for (Size i = i0; i < std::min(i0 + side, rows); ++i)
        for (Size j = j0; j < std::min(j0 + side, cols); ++j) to[j * rows + i] = scale * from[i * cols + j];
}

template <class T>
double norm(const T* a, Size n) {
  double lane[norms::lanes] = {};
  Size i = 0;
  for (; i + norms::lanes <= n; i += norms::lanes)
    for (int l = 0; l < norms::lanes; ++l) lane[l] += double(a[i + l]) * double(a[i + l]);
  for (int l = 0; i + l < n; ++l) lane[l] += double(a[i + l]) * double(a[i + l]);
  return std::sqrt(norms::fold(norms::Measure::sum_abs, lane, norms::lanes));
}

// The matrices a step needs: X and the next one, XXᵀ, and the polynomial in it.
template <class T>
struct Workspace {
  T *x, *next, *square, *sum;
  std::byte* packed;
  Workspace(std::byte* memory, Size rows, Size cols) {
    const auto take = [&](Size count) {
      T* const begin = reinterpret_cast<T*>(memory);
      memory += whole_lines(std::size_t(count) * sizeof(T));
      return begin;
    };
    x = take(rows * cols);
    next = take(rows * cols);
    square = take(rows * rows);
    sum = take(rows * rows);
    packed = memory;
  }
};

template <class T>
void orthogonalise_one(T* matrix, Size rows, Size cols, const Polynomial& p, std::byte* memory) {
  const bool turned = rows > cols;
  const Size m = turned ? cols : rows, n = turned ? rows : cols;
  Workspace<T> w(memory, m, n);
  const Tile& tile = kernels().tile[sizeof(T) == 8];
  const T scale = T(1 / (p.margin * norm(matrix, m * n) + p.floor));
  if (turned) copy_transposed(w.x, matrix, rows, cols, scale);
  else
    for (Size i = 0; i < m * n; ++i) w.x[i] = scale * matrix[i];
  for (Size step = 0; step < p.steps; ++step) {
    const auto& [a, b, c] = p.table[std::min(step, Size(p.entries - 1))];
    multiply<T>({m, m, n, {w.x, n, 1}, {w.x, 1, n}, w.square, 1, 0, nullptr, true, tile}, w.packed);
    multiply<T>({m, m, m, {w.square, m, 1}, {w.square, m, 1}, w.sum, T(c), T(b), w.square, true, tile}, w.packed);
    multiply<T>({m, n, m, {w.sum, m, 1}, {w.x, n, 1}, w.next, 1, T(a), w.x, false, tile}, w.packed);
    std::swap(w.x, w.next);
  }
  if (turned) copy_transposed(matrix, w.x, m, n, T(1));
  else std::copy_n(w.x, m * n, matrix);
}

template <class T>
std::size_t bytes_for(const MatrixShape& s) {
  const Size m = std::min(s.rows, s.cols), n = std::max(s.rows, s.cols);
  const int threads = threads_for(double(m) * double(m) * double(n));
  return 2 * whole_lines(std::size_t(m * n) * sizeof(T)) + 2 * whole_lines(std::size_t(m * m) * sizeof(T)) +
         std::size_t(threads) * packed_bytes<T>();
}

}  // namespace
}  // namespace products

bool matrix_shape(std::span<const std::int64_t> shape, const Matrices& how, MatrixShape& to) {
  to = {};
  if (shape.size() < (how.batched ? 3u : 2u)) return false;
  if (how.batched) to.count = shape.front();
  const auto axes = shape.subspan(how.batched ? 1 : 0);
  to.transposed = how.layout == Layout::in_out;
  const std::size_t leading = to.transposed ? axes.size() - 1 : 1;
  const auto product = [](std::span<const std::int64_t> of) {
    std::int64_t n = 1;
    for (const std::int64_t a : of) n *= a;
    return n;
  };
  to.rows = product(axes.first(leading));
  to.cols = product(axes.subspan(leading));
  return true;
}

std::size_t matrix_workspace(const MatrixShape& shape, DType compute) {
  return compute == DType::float64 ? products::bytes_for<double>(shape) : products::bytes_for<float>(shape);
}

void orthogonalise(std::byte* matrices, const MatrixShape& shape, const Polynomial& polynomial, DType compute,
                   std::byte* workspace) {
  const std::int64_t each = shape.rows * shape.cols;
  if (each == 0) return;
  for (std::int64_t i = 0; i < shape.count; ++i) {
    if (compute == DType::float64)
      products::orthogonalise_one(reinterpret_cast<double*>(matrices) + i * each, shape.rows, shape.cols, polynomial,
                                  workspace);
    else
      products::orthogonalise_one(reinterpret_cast<float*>(matrices) + i * each, shape.rows, shape.cols, polynomial,
                                  workspace);
  }
}

}  // namespace optimisers::inline OPT_ABI::cpu
