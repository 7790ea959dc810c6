// test_array.cpp: ties, overlaps and 64-bit positions of arrays in memory.
#include "optimisers/array.hpp"

#include "memory/overlap.hpp"
#include "optimisers/error.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

struct Strided {
  std::vector<std::int64_t> shape, strides;
  ArrayView view(float* data) const {
    return {.data = reinterpret_cast<std::byte*>(data),
            .shape = shape.data(),
            .strides = strides.data(),
            .stride_unit = 4,
            .ndim = int(shape.size()),
            .present = true};
  }
};

std::vector<float> memory(100);

TEST(Aliases, TransposedViewIsTiedWithItsAxes) {
  const Strided a{{3, 5}, {5, 1}}, t{{5, 3}, {1, 5}};
  const auto aliases =
      find_aliases(std::vector{a.view(memory.data()), t.view(memory.data())}, named({"a", "t"}), "setup");
  EXPECT_EQ(aliases[1].first, 0u);
  EXPECT_EQ(aliases[1].axes, (std::vector<int>{1, 0}));
}

TEST(Aliases, ColumnBlocksOfOneArrayAreApart) {
  const Strided block{{4, 5}, {10, 1}};
  const auto aliases =
      find_aliases(std::vector{block.view(memory.data()), block.view(memory.data() + 5)}, named({"l", "r"}), "setup");
  EXPECT_EQ(aliases[1].first, 1u);
}

TEST(Aliases, ReshapeReversalAndPartialOverlapAreErrorsThatNameBoth) {
  const Strided a{{3, 5}, {5, 1}}, reshaped{{15}, {1}}, reversed{{3, 5}, {5, -1}}, shifted{{3, 5}, {5, 1}};
  const ArrayView other[] = {reshaped.view(memory.data()), reversed.view(memory.data() + 4),
                             shifted.view(memory.data() + 3)};
  for (const ArrayView& b : other) try {
      find_aliases(std::vector{a.view(memory.data()), b}, named({"one", "two"}), "setup");
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("\"one\" and \"two\""), std::string::npos);
    }
}

TEST(Aliases, AnArrayThatOverlapsItselfIsAnError) {
  const Strided windows{{8, 3}, {1, 1}}, broadcast{{4, 5}, {0, 1}};
  for (const auto& a : {windows, broadcast})
    EXPECT_THROW(find_aliases(std::vector{a.view(memory.data())}, named({"w"}), "setup"), Error);
}

TEST(Runs, PositionsBeyond32BitsAreReached) {
  // Index arithmetic only: nothing is read.
  const std::int64_t rows = 3, columns = std::int64_t(1) << 31;
  const std::int64_t shape[] = {rows, columns}, strides[] = {columns * 2, 2};  // every other row of a wider array
  ArrayView a{.data = nullptr, .shape = shape, .strides = strides, .stride_unit = 4, .ndim = 2};
  const std::int64_t begin = columns + (columns - 3);
  std::vector<std::pair<std::int64_t, std::int64_t>> runs;
  for_each_run(a, begin, 6, [&](std::byte* p, std::int64_t stride, std::int64_t n) {
    runs.emplace_back(p - static_cast<std::byte*>(nullptr), n);
    EXPECT_EQ(stride, 8);
  });
  std::int64_t reached = 0;
  for (auto [offset, n] : runs) {
    EXPECT_EQ(offset, (begin + reached) * 8);
    reached += n;
  }
  EXPECT_EQ(reached, 6);
}

}  // namespace
}  // namespace optimisers::test
