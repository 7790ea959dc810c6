// main.cpp: Eigen's vectors, maps, blocks and matrices of both orders are trained in place.
#include <cstdio>
#include <optimisers/eigen.hpp>
#include <optimisers/optimisers.hpp>
#include <vector>

namespace opt = optimisers;
using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class X>
concept Updates = requires(opt::State& s, X& x, const Eigen::VectorXd& g) { s.update(x, g); };
static_assert(Updates<Eigen::VectorXd> && !Updates<const Eigen::VectorXd>);
static_assert(Updates<Eigen::Map<Eigen::VectorXd>> && !Updates<Eigen::Map<const Eigen::VectorXd>>);

static int failed = 0;
static void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "eigen: %s\n", what);
  failed = 1;
}

int main() {
  const opt::Descent one{.eta = 1};
  Eigen::VectorXd x = Eigen::VectorXd::LinSpaced(5, 1, 5);
  opt::State state = opt::setup(one, x);
  state.update(x, x);
  check(x.isZero(), "a vector");

  std::vector<float> memory(12, 1.f);
  Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<3>> every_third(memory.data(), 4);
  opt::State third = opt::setup(one, every_third);
  third.update(every_third, Eigen::VectorXf(Eigen::VectorXf::Ones(4)));
  check(memory[0] == 0 && memory[1] == 1 && memory[9] == 0, "a map with a stride");

  // A parameter stored by columns, its gradient by rows: element (i, j) belongs to element (i, j).
  Eigen::MatrixXd w = Eigen::MatrixXd::Zero(3, 2), columns = w;
  RowMajor g(3, 2), rows = RowMajor::Zero(3, 2);
  g << 1, 2, 3, 4, 5, 6;
  opt::State named = opt::setup(one, {{"w", w}, {"rows", rows}});
  named.update({{"rows", rows}, {"w", w}}, {{"w", g}, {"rows", Eigen::MatrixXd(g)}});
  check(w == -g && rows == -g, "matrices of both orders");

  Eigen::MatrixXd large = Eigen::MatrixXd::Ones(6, 6);
  auto block = large.block(1, 2, 3, 2);
  opt::State part = opt::setup(one, block);
  part.update(block, g);
  check(large(1, 2) == 0 && large(3, 3) == -5 && large(0, 2) == 1 && large(4, 2) == 1, "a block");
  check(large.sum() == 36 - 21, "what is around it");
  check(opt::norm(g) == opt::norm(Eigen::MatrixXd(g)), "a norm");
  return failed;
}
