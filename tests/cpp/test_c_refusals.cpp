// test_c_refusals.cpp: what the C interface says no to, each time with its own name in front: wrong counts and memory,
// calls in the middle of another, numbers in any locale.
#include <gtest/gtest.h>

#include <optimisers/optimisers.h>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

namespace optimisers::test {
namespace {

using Floats = std::vector<float>;

class CRefusals : public testing::Test {
 protected:
  ~CRefusals() override { optimisers_destroy(state); }
  void create(const char* rule) {
    ASSERT_EQ(optimisers_create(rule, &x, 1, nullptr, &state), OPTIMISERS_OK) << optimisers_last_error();
  }
  optimisers_status update(const optimisers_update_options* options = nullptr) {
    return optimisers_update_with(state, &x, 1, &dx, 1, options);
  }
  std::string text() {
    std::string read(500, '?');
    std::size_t needed = 0;
    EXPECT_EQ(optimisers_get_rule(state, 0, read.data(), read.size(), &needed), OPTIMISERS_OK);
    return read.substr(0, needed - 1);
  }

  Floats w = Floats(3, 1.f), g = Floats(3, 1.f);
  optimisers_array x{w.data(), 3, OPTIMISERS_FLOAT32, 0, nullptr, "w"};
  optimisers_array dx{g.data(), 3, OPTIMISERS_FLOAT32, 0, nullptr, nullptr};
  optimisers_state* state = nullptr;
};

// The message and the name it begins with.
void expect_refused(optimisers_status status, const std::string& message) {
  EXPECT_EQ(status, OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_last_error(), message);
}

TEST_F(CRefusals, EachBeginsWithTheCall) {
  create("Adam");
  double value = 0;
  optimisers_leaf leaf{};
  leaf.struct_size = sizeof leaf;
  expect_refused(optimisers_create("Adam(", &x, 1, nullptr, &state),
                 "optimisers_create: rule \"Adam(\", character 6: expected a number");
  expect_refused(optimisers_update(state, nullptr, 1, &dx, 1), "optimisers_update: arrays is NULL");
  expect_refused(optimisers_get_leaf(state, 1, &leaf), "optimisers_get_leaf: leaf: there are 1 leaves, got index 1");
  expect_refused(optimisers_get_clock(state, 0, 0, 3, nullptr, &value),
                 "optimisers_get_clock: clock: there are 3, got index 3");
  expect_refused(optimisers_set_clock(state, 0, 0, 0, NAN), "optimisers_set_clock: expected a finite number");
  expect_refused(optimisers_adjust_text(state, OPTIMISERS_ALL, "eta"),
                 "optimisers_adjust_text: rule \"eta\", character 4: expected '='");
  EXPECT_EQ(optimisers_load(state, "/no/such/file", nullptr, 0, nullptr), OPTIMISERS_FILE);
  EXPECT_EQ(std::string(optimisers_last_error()).rfind("optimisers_load: cannot open \"/no/such/file\": ", 0), 0u);
}

TEST_F(CRefusals, TextsAreQuotedInPart) {
  const std::string deep = "Adam(beta=" + std::string(2'000'000, '('), unknown(2'000'000, 'A');
  EXPECT_EQ(optimisers_create(deep.c_str(), &x, 1, nullptr, &state), OPTIMISERS_VALUE);
  EXPECT_LT(std::string(optimisers_last_error()).size(), 400u);
  EXPECT_EQ(optimisers_create(unknown.c_str(), &x, 1, nullptr, &state), OPTIMISERS_VALUE);
  EXPECT_LT(std::string(optimisers_last_error()).size(), 1500u);
}

TEST_F(CRefusals, CountsThatNoMemoryHas) {
  expect_refused(optimisers_create("Adam", &x, SIZE_MAX, nullptr, &state),
                 "optimisers_create: arrays: a count of " + std::to_string(SIZE_MAX) + " is out of range");
}

TEST_F(CRefusals, MemoryThatIsNotAligned) {
  static int blocks = 0;
  const optimisers_memory memory{[](void*, size_t bytes, size_t alignment) -> void* {
                                   ++blocks;
                                   return static_cast<char*>(std::malloc(bytes + alignment)) + 1;
                                 },
                                 [](void*, void* block, size_t, size_t) {
                                   --blocks;
                                   std::free(static_cast<char*>(block) - 1);
                                 },
                                 nullptr};
  EXPECT_EQ(optimisers_create("Adam", &x, 1, &memory, &state), OPTIMISERS_VALUE);
  EXPECT_NE(std::string(optimisers_last_error()).find("is not aligned to the "), std::string::npos);
  EXPECT_EQ(state, nullptr);
  EXPECT_EQ(blocks, 0);
}

TEST_F(CRefusals, AScaleIsPrintedShortly) {
  create("Descent");
  const optimisers_update_options options{sizeof options, 1e300, nullptr, nullptr, 0};
  expect_refused(update(&options), "optimisers_update_with: scale must be a finite number in float32, got 1e+300");
}

TEST_F(CRefusals, ANormBelowZero) {
  create("ClipNorm");
  const optimisers_update_options options{sizeof options, 1, [](void*, double, double, const char*) { return -1.0; },
                                          nullptr, 0};
  expect_refused(update(&options), "optimisers_update_with: reduce_norm gave -1, expected a norm, 0 or more");
  EXPECT_STREQ(optimisers_last_error_leaf(), "w");
  EXPECT_EQ(w, Floats(3, 1.f));
}

// A program that reads a state in a callback, or on another thread, meanwhile may get anything.
TEST_F(CRefusals, ReadsInTheMiddleOfACall) {
  create("OptimiserChain(ClipNorm(1.0), Adam())");
  ASSERT_EQ(update(), OPTIMISERS_OK);
  static int busy, calls;
  busy = calls = 0;
  const auto meddle = [](void* self, double norm, double, const char*) {
    auto* s = static_cast<optimisers_state*>(self);
    const auto count = [](optimisers_status status) { ++calls, busy += status == OPTIMISERS_BUSY; };
    double values[2];
    std::int32_t n = 0;
    optimisers_slot slot{};
    slot.struct_size = sizeof slot;
    optimisers_leaf leaf{};
    leaf.struct_size = sizeof leaf;
    count(optimisers_get_clock(s, 0, 1, 0, nullptr, values));
    count(optimisers_set_clock(s, 0, 1, 0, 0.5));
    count(optimisers_get_field(s, 0, 1, "eta", values, &n));
    count(optimisers_get_slot(s, 0, 1, 0, &slot));
    count(optimisers_get_master(s, 0, &slot));
    count(optimisers_get_leaf(s, 0, &leaf));
    count(optimisers_get_rule(s, 0, nullptr, 0, nullptr));
    return norm;
  };
  const optimisers_update_options options{sizeof options, 1, meddle, state, 0};
  ASSERT_EQ(update(&options), OPTIMISERS_OK);
  EXPECT_EQ(busy, calls);
  EXPECT_EQ(calls, 7);
  double clock = 0;
  ASSERT_EQ(optimisers_get_clock(state, 0, 1, 0, nullptr, &clock), OPTIMISERS_OK);
  EXPECT_DOUBLE_EQ(clock, 0.81);
}

// OptimiserChain() would be read as Descent(1).
TEST_F(CRefusals, ALeafLeftAloneHasNoRuleToBeRead) {
  const char* none = nullptr;
  ASSERT_EQ(optimisers_create_each(&none, &x, 1, nullptr, &state), OPTIMISERS_OK);
  EXPECT_EQ(text(), "");
  optimisers_destroy(state);
  create("OptimiserChain()");
  EXPECT_EQ(text(), "OptimiserChain()");
}

TEST_F(CRefusals, NumbersHaveAPointInEveryLocale) {
  const std::string before = std::setlocale(LC_NUMERIC, nullptr);
  const char* comma = nullptr;
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8", "de_DE", "fr_FR"})
    if (comma == nullptr && std::setlocale(LC_NUMERIC, name) != nullptr && *std::localeconv()->decimal_point == ',')
      comma = name;
  if (comma == nullptr) GTEST_SKIP() << "no locale with a decimal comma is installed (Debian: locales, de_DE.UTF-8)";
  create("Adam(eta=1.5e-7, beta=(0.5, 0.999))");
  const std::string rule = text();
  const optimisers_status refused = optimisers_adjust(state, 0, "eta", -0.5);
  const std::string message = optimisers_last_error();
  std::setlocale(LC_NUMERIC, before.c_str());
  EXPECT_EQ(rule, "Adam(eta=1.5e-07, beta=(0.5, 0.999), epsilon=1e-08)");
  EXPECT_EQ(refused, OPTIMISERS_VALUE);
  EXPECT_NE(message.find("got -0.5"), std::string::npos) << message;
}

}  // namespace
}  // namespace optimisers::test
