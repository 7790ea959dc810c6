// test_flat_parts.cpp: strided arrays of any type to a flat array and back, whatever the number of threads.
#include "flat/flat_parts.hpp"

#include <numeric>

#include "cpu/convert.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

template <class T>
std::byte* bytes(std::vector<T>& a) {
  return reinterpret_cast<std::byte*>(a.data());
}

using Shape = std::array<std::int64_t, 2>;

template <class T>
ArrayView matrix(std::vector<T>& a, DType dtype, const Shape& shape, const Shape* strides = nullptr) {
  return {.data = bytes(a),
          .shape = shape.data(),
          .strides = strides ? strides->data() : nullptr,
          .ndim = 2,
          .dtype = dtype,
          .present = true};
}

class FlatParts : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_threads(GetParam()); }
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = get_num_threads();
};
INSTANTIATE_TEST_SUITE_P(Threads, FlatParts, testing::Values(1, 3));

TEST_P(FlatParts, TransposedArraysGoThereAndBack) {
  const Shape shape{411, 503}, transposed{8, 411 * 8}, small{1, 3};
  std::vector<double> a(411 * 503), b{1, 2, 3}, back(a.size());
  std::iota(a.begin(), a.end(), 0.0);
  const std::int64_t size = std::int64_t(a.size());
  const FlatPart before{matrix(b, DType::float64, small), 0, 3, {}}, none{{}, 3 + size, 5, {}};
  std::vector<float> flat(a.size() + 8, -1.f);
  const FlatPart packed[] = {before, {matrix(a, DType::float64, shape, &transposed), 3, size, {}}, none};
  pack_parts(packed, bytes(flat), DType::float32);
  for (std::size_t r = 0; r < 411; ++r)
    for (std::size_t c = 0; c < 503; ++c) ASSERT_EQ(flat[3 + r * 503 + c], float(r + c * 411));
  EXPECT_EQ(std::vector<float>(flat.begin(), flat.begin() + 3), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(std::vector<float>(flat.end() - 5, flat.end()), std::vector<float>(5, 0.f));

  b = {0, 0, 0};
  const FlatPart unpacked[] = {before, {matrix(back, DType::float64, shape, &transposed), 3, size, {}}, none};
  unpack_parts(bytes(flat), DType::float32, unpacked);
  EXPECT_EQ(back, a);
  EXPECT_EQ(b, (std::vector<double>{1, 2, 3}));
}

// 2048 + 1 + 1 is 2048 if a half is made of each sum, and 2050 is a half.
TEST_P(FlatParts, SumsOfHalvesAreRoundedOnce) {
  const Shape shape{300, 401}, transposed{2, 300 * 2};
  constexpr std::size_t n = 300 * 401;
  std::vector<Half> large(n, cpu::convert<Half>(2048.f)), ones(n, cpu::convert<Half>(1.f)), flat(n);
  std::vector<std::int32_t> integers(n, 1);
  integers[1] = 5;
  const FlatPart s[] = {{matrix(large, DType::float16, shape),
                         0,
                         std::int64_t(n),
                         {matrix(ones, DType::float16, shape, &transposed), matrix(integers, DType::int32, shape)}}};
  pack_parts(s, bytes(flat), DType::float16);
  for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(cpu::convert<float>(flat[i]), i == 1 ? 2054.f : 2050.f) << i;
}

TEST_P(FlatParts, IntegersAreRoundedOnce) {
  const Shape shape{2, 3};
  const std::int64_t tie = (std::int64_t(1) << 62) + (std::int64_t(1) << 54);  // halfway between two bfloat16
  std::vector<std::int64_t> a{tie, tie + 1, tie - 1, -tie, -tie - 1, -tie + 1};
  std::vector<BHalf> flat(6);
  const FlatPart s[] = {{matrix(a, DType::int64, shape), 0, 6, {}}};
  pack_parts(s, bytes(flat), DType::bfloat16);
  const float down = 0x1p62f, up = 0x1p62f + 0x1p55f, expected[] = {down, up, down, -down, -up, -down};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(cpu::convert<float>(flat[i]), expected[i]) << i;
}

TEST_P(FlatParts, ComplexLeavesItsRealPart) {
  const Shape shape{2, 1};
  std::vector<Complex<float>> flat{{1, 2}, {3, 4}};
  std::vector<float> a(2);
  const FlatPart s[] = {{matrix(a, DType::float32, shape), 0, 2, {}}};
  unpack_parts(bytes(flat), DType::complex64, s);
  EXPECT_EQ(a, (std::vector<float>{1, 3}));
}

}  // namespace
}  // namespace optimisers::test
