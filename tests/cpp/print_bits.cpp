// print_bits.cpp: trains by several rules, in C++ and through the C interface, and prints checksums of every parameter
// and slot; ends with 1 where the two differ. tests/python/rules/test_one_with_cpp.py does the same in Python and
// compares.
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "optimisers/optimisers.h"
#include "optimisers/optimisers.hpp"

namespace {

namespace opt = optimisers;

constexpr std::array<std::int64_t, 3> sizes{1, 513, 150'001};  // one element, a block and one, several threads
constexpr int steps = 6;

// Eighths from -11/8 to 11/8: exact in every type, so that no conversion is part of the comparison.
template <class T>
std::vector<T> numbers(std::int64_t n, std::int64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) values[std::size_t(i)] = float((7 * i + 5 * seed) % 23 - 11) / 8;
  std::vector<T> typed(values.size());
  opt::unpack(values, typed);
  return typed;
}

// Of real numbers, each from its lowest byte on, wherever the machine has that.
std::uint32_t crc32(const void* data, std::size_t count, std::int64_t item) {
  const std::size_t size = std::size_t(item), last = std::endian::native == std::endian::big ? size - 1 : 0;
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < count * size; ++i) {
    crc ^= static_cast<const unsigned char*>(data)[i / size * size + ((i % size) ^ last)];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

void check(optimisers_status status) {
  if (status == OPTIMISERS_OK) return;
  std::fprintf(stderr, "print_bits: %s\n", optimisers_last_error());
  std::exit(2);
}

template <class T>
struct Model {
  std::array<std::vector<T>, 3> x;
  std::array<std::vector<T>, 3> dx;

  Model() {
    for (std::size_t i = 0; i < 3; ++i) x[i] = numbers<T>(sizes[i], std::int64_t(i));
  }
  // The gradient of the second leaf is missing in one step.
  void differentiate(int step) {
    for (std::size_t i = 0; i < 3; ++i) dx[i] = numbers<T>(sizes[i], 3 * step + std::int64_t(i) + 100);
    if (step == 3) dx[1].clear();
  }
  static std::array<optimisers_array, 3> borrowed(std::array<std::vector<T>, 3>& from) {
    std::array<optimisers_array, 3> to{};
    for (std::size_t i = 0; i < 3; ++i)
      to[i] = {
          from[i].empty() ? nullptr : from[i].data(), sizes[i], std::int32_t(opt::dtype_of<T>), 0, nullptr, nullptr};
    return to;
  }
};

template <class T>
std::vector<std::uint32_t> by_cxx(const auto& rule) {
  Model<T> m;
  opt::State state = opt::setup(rule, {m.x[0], m.x[1], m.x[2]});
  for (int step = 0; step < steps; ++step) {
    m.differentiate(step);
    if (step == 4) state.adjust(0.25);
    const opt::AnySpan second = m.dx[1].empty() ? opt::AnySpan() : opt::AnySpan(m.dx[1]);
    state.update({m.x[0], m.x[1], m.x[2]}, {m.dx[0], second, m.dx[2]});
  }
  std::vector<std::uint32_t> sums;
  for (std::size_t i = 0; i < 3; ++i) {
    opt::Leaf leaf = state.leaf(i);
    sums.push_back(crc32(m.x[i].data(), m.x[i].size(), sizeof(T)));
    if constexpr (requires { rule.dtype; }) sums.push_back(crc32(leaf.master<float>().data(), m.x[i].size(), 4));
    for (int stage = 0; stage < leaf.stages(); ++stage)
      for (const opt::SlotView& slot : leaf.slots(stage))
        sums.push_back(crc32(slot.data, std::size_t(leaf.size()), opt::size_of(slot.dtype)));
  }
  return sums;
}

template <class T>
std::vector<std::uint32_t> by_c(const char* rule) {
  Model<T> m;
  const auto x = Model<T>::borrowed(m.x);
  optimisers_state* state = nullptr;
  check(optimisers_create(rule, x.data(), 3, nullptr, &state));
  for (int step = 0; step < steps; ++step) {
    m.differentiate(step);
    if (step == 4) check(optimisers_adjust(state, OPTIMISERS_ALL, "eta", 0.25));
    const auto dx = Model<T>::borrowed(m.dx);
    check(optimisers_update(state, x.data(), 3, dx.data(), 3));
  }
  std::vector<std::uint32_t> sums;
  for (std::int64_t i = 0; i < 3; ++i) {
    optimisers_leaf leaf{};
    leaf.struct_size = sizeof leaf;
    optimisers_stage stage{};
    stage.struct_size = sizeof stage;
    optimisers_slot slot{};
    slot.struct_size = sizeof slot;
    check(optimisers_get_leaf(state, i, &leaf));
    const auto add = [&] {
      sums.push_back(crc32(slot.data, std::size_t(slot.size), opt::size_of(opt::DType(slot.dtype))));
    };
    sums.push_back(crc32(m.x[std::size_t(i)].data(), std::size_t(sizes[std::size_t(i)]), sizeof(T)));
    if (leaf.has_master) {
      check(optimisers_get_master(state, i, &slot));
      add();
    }
    for (std::int32_t s = 0; s < leaf.stages; ++s) {
      check(optimisers_get_stage(state, i, s, &stage));
      for (std::int32_t k = 0; k < stage.slots; ++k) {
        check(optimisers_get_slot(state, i, s, k, &slot));
        add();
      }
    }
  }
  optimisers_destroy(state);
  return sums;
}

bool all_agree = true;

template <class T>
void compare(const char* text, const char* dtype, const auto& rule) {
  const auto sums = by_cxx<T>(rule);
  if (sums != by_c<T>(text)) {
    std::fprintf(stderr, "print_bits: C++ and C differ: %s, %s\n", text, dtype);
    all_agree = false;
  }
  std::printf("%s\t%s\t", text, dtype);
  for (const std::uint32_t sum : sums) std::printf(" %08x", static_cast<unsigned>(sum));
  std::printf("\n");
}

template <class... T>
void compare_each(const char* text, const auto& rule) {
  static constexpr const char* names[] = {"float16", "bfloat16", "float32", "float64", "complex64", "complex128"};
  (compare<T>(text, names[int(opt::dtype_of<T>)], rule), ...);
}

}  // namespace

int main() {
  using opt::BHalf, opt::Fused, opt::Half;
  // The text is the rule in Python as well.
  compare_each<BHalf, float, double>("Adam(eta=0.01)", opt::Adam{.eta = 0.01});
  compare_each<Half, float, double>("Rprop()", opt::Rprop{});
  compare_each<BHalf, float, double>(
      "OptimiserChain(ClipNorm(0.5, scope='global'), AdamW(eta=0.01, lambda_=0.1))",
      Fused{opt::ClipNorm{.omega = 0.5, .scope = opt::Scope::global}, opt::AdamW{.eta = 0.01, .lambda = 0.1}});
  compare_each<BHalf, float, double>(
      "OptimiserChain(WeightDecay(0.01), ClipNorm(2.0, p=3.5), Momentum(eta=0.1))",
      Fused{opt::WeightDecay{.lambda = 0.01}, opt::ClipNorm{.omega = 2, .p = 3.5}, opt::Momentum{.eta = 0.1}});
  compare_each<BHalf, float, double>("OptimiserChain(AccumGrad(2), RMSProp(centred=True), SignDecay())",
                                     Fused{opt::AccumGrad{.n = 2}, opt::RMSProp{.centred = true}, opt::SignDecay{}});
  compare_each<BHalf, Half>("MixedPrecision(OptimiserChain(ClipGrad(0.75), NAdam(eta=0.01)))",
                            opt::MixedPrecision{Fused{opt::ClipGrad{.delta = 0.75}, opt::NAdam{.eta = 0.01}}});
  return all_agree ? 0 : 1;
}
