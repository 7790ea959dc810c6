// test_environment.cpp: whatever floating-point environment the caller has, bits are the same, no signal is raised, and
// the caller finds it as it was; a stack that is too small is an error.
#include <gtest/gtest.h>
#include <pthread.h>

#include <cfenv>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optimisers/optimisers.hpp>
#include <string>
#include <thread>
#include <vector>

#include "optimisers/optimisers.h"
#include "optimisers/pack.hpp"
#include "optimisers/parse.hpp"
#include "optimisers/sweeps.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
#include <xmmintrin.h>
#endif

namespace optimisers::test {
namespace {

using Bytes = std::string;

template <class T>
void append(Bytes& to, const std::vector<T>& values) {
  to.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Large enough for all threads, and near both ends of the range of float.
std::vector<float> numbers(std::size_t n, float scale) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = scale * (1.f + float(i % 1013) / 7.f) * (i % 2 != 0 ? 1.f : -1.f);
  return values;
}

constexpr std::size_t many = 300'000;
// Made before any environment is odd.
const std::vector<float> parameters = numbers(many, 1e-3f), tiny = numbers(many, 1e-39f), small = numbers(many, 1e-20f),
                         thirds = numbers(many, 1.f / 3);

Bytes trained() {
  Bytes all;
  std::vector<float> x = parameters, g = tiny;
  State state = setup(std::vector<AnyRule>{AnyRule(ClipNorm{.omega = 0.1}), AnyRule(AMSGrad{.epsilon = 0.1})}, x);
  append(all, std::vector<float>(state.leaf(0).slot<float>("w").begin(), state.leaf(0).slot<float>("w").end()));
  for (int i = 0; i < 2; ++i) state.update(x, g);
  append(all, x);
  append(all, std::vector<float>(state.leaf(0).slot<float>("m").begin(), state.leaf(0).slot<float>("m").end()));
  std::vector<float> y{1.f / 3};
  State own = setup(Chain{WeightDecay{.lambda = 1. / 3}, Momentum{.eta = 1. / 3}}, y);
  for (int i = 0; i < 3; ++i) own.update(y, std::vector<float>{1.f / 7});
  append(all, y);
  return all;
}

Bytes swept() {
  Bytes all;
  Vector<float> a(small), b(thirds);
  const ArrayView views[] = {a.view(), b.view()};
  append(all, std::vector<double>{norm(views), norm(views, 1), norm(views, 3.5)});
  lerp({views, 1}, {views + 1, 1}, 1. / 3, named({"a"}));
  append(all, a.values);
  std::vector<BHalf> half(many);
  pack(std::span(b.values), std::span(half));
  append(all, half);
  std::vector<float> back(many);
  unpack(std::span(half), std::span(back));
  append(all, back);
  return all;
}

Bytes read_and_printed() {
  const Program program = parse_program("Adam(0.1, (0.95, 0.999), 1e-310)");
  const RuleValue& rule = program.stages.at(0);
  Bytes all(static_cast<const char*>(rule.data()), std::size_t(rule.info().size));
  try {
    (void)parse_program("Adam(-0.1234567890123456)");
  } catch (const Error& error) {
    all += error.what();
  }
  return all;
}

Bytes scaled() {
  Vector<float> x(10, 1.f);
  const ArrayView views[] = {x.view()};
  Optimiser optimiser({leaf("x", x, {rule("Adam", {{"eta", 0.3}})})}, views);
  const Optimiser::Leaf leaves[] = {0};
  const Adjustment adjustments[] = {{.field = "eta", .value = 1. / 3, .scales = true}};
  optimiser.change(leaves, adjustments);
  Bytes all;
  append(all, std::vector<double>{std::get<double>(optimiser.rule(0, 0).get(*find_rule("Adam")->field("eta")))});
  return all;
}

Bytes from_c() {
  std::vector<double> x(3, 1. / 3), g(3, 1. / 7);
  const optimisers_array arrays[] = {{x.data(), 3, OPTIMISERS_FLOAT64, 0, nullptr, nullptr}};
  const optimisers_array gradients[] = {{g.data(), 3, OPTIMISERS_FLOAT64, 0, nullptr, nullptr}};
  optimisers_state* state = nullptr;
  EXPECT_EQ(optimisers_create("OptimiserChain(ClipNorm(0.1), Adam(0.1))", arrays, 1, nullptr, &state), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_update(state, arrays, 1, gradients, 1), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_adjust_text(state, OPTIMISERS_ALL, "eta = 0.3"), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_update(state, arrays, 1, gradients, 1), OPTIMISERS_OK);
  optimisers_destroy(state);
  Bytes all;
  append(all, x);
  return all;
}

struct Odd {
  const char* name;
  std::function<void()> make;
};

std::vector<Odd> odd_environments() {
  std::vector<Odd> all = {{"as programs start", [] {}}};
  for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO})
    all.push_back({"rounding", [=] { std::fesetround(mode); }});
  all.push_back({"flags", [] { std::feraiseexcept(FE_DIVBYZERO | FE_INVALID); }});
#if defined(__x86_64__)
  all.push_back({"flushed to zero", [] { _mm_setcsr(_mm_getcsr() | 0x8040); }});
#endif
#if defined(__GLIBC__) && defined(__x86_64__)
  all.push_back({"traps", [] { feenableexcept(FE_ALL_EXCEPT); }});
  all.push_back({"some traps", [] { feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW); }});
#endif
  return all;
}

// All of it but where x87's last instruction lies: no promise is about that, the C library's own code moves it, and on
// AMD's processors it is lost whenever the system lets another thread run.
Bytes environment() {
  std::fenv_t all;
  std::memset(&all, 0, sizeof all);
  std::fegetenv(&all);
  Bytes bytes(reinterpret_cast<const char*>(&all), sizeof all);
#if defined(__linux__) && (defined(__x86_64__) || defined(__i386__))
  constexpr std::size_t control_status_and_tags = 12, up_to_places = 28;
  bytes.replace(control_status_and_tags, up_to_places - control_status_and_tags, up_to_places - control_status_and_tags,
                0);
#endif
#if defined(__i386__) && defined(__SSE__)
  append(bytes, std::vector<unsigned>{_mm_getcsr()});
#endif
  return bytes;
}

// Exact, so that it raises nothing.
void move_the_last_x87_instruction() {
  volatile long double one = 1;
  one = one + one;
}

// Where `work` is done in an odd environment, with a pool that was made there.
void expect_the_same(const std::function<Bytes()>& work) {
  const int before = get_num_threads();
  set_num_threads(3);
  const Bytes expected = work();
  for (const Odd& odd : odd_environments()) {
    shutdown_threads();
    std::fenv_t usual;
    std::fegetenv(&usual);
    std::fesetenv(FE_DFL_ENV);  // no flag of what was done before: it would hide one that is raised now
    odd.make();
    const Bytes set = environment();
    const Bytes got = work();
    move_the_last_x87_instruction();
    const Bytes left = environment();
    std::fesetenv(&usual);
    ASSERT_FALSE(got.empty());
    EXPECT_TRUE(got == expected) << odd.name;
    EXPECT_TRUE(set == left) << odd.name;
  }
  set_num_threads(before);
}

TEST(Environment, UpdatesHaveTheSameBits) { expect_the_same(trained); }
TEST(Environment, SweepsHaveTheSameBits) { expect_the_same(swept); }
TEST(Environment, RulesAreReadAndPrintedTheSame) { expect_the_same(read_and_printed); }
TEST(Environment, LearningRatesAreScaledTheSame) { expect_the_same(scaled); }
TEST(Environment, TheCInterfaceHasTheSameBits) { expect_the_same(from_c); }

TEST(Environment, ThreadsOfTheHostMayHaveAnyEnvironment) {
  struct Host {
    static void run(void*, int parts, void (*part)(void*, int), void* context) {
      for (int i = 0; i < parts; ++i)
        std::thread([=] {
          std::fesetround(FE_UPWARD);
          part(context, i);
        }).join();
    }
  };
  const Bytes expected = trained();
  set_executor({.run = Host::run, .threads = 3});
  const Bytes got = trained();
  set_executor({});
  EXPECT_TRUE(got == expected);
}

// ---- stack

template <class F>
void on_stack_of(std::size_t bytes, F&& f) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, bytes), 0);
  pthread_t thread;
  const auto run = [](void* work) -> void* {
    (*static_cast<std::remove_reference_t<F>*>(work))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &f), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(Stack, TooSmallAStackIsAnErrorThatChangesNothing) {
  std::vector<float> x(1000, 1.f), g(1000, 1.f);
  State state = setup(Adam{}, x);
  Result<> done;
  on_stack_of(48 << 10, [&] { done = state.try_update(x, g); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().kind, ErrorKind::memory);
  EXPECT_NE(done.error().message.find("96 KiB"), std::string::npos) << done.error().message;
  EXPECT_EQ(x, std::vector<float>(1000, 1.f));
  EXPECT_EQ(state.leaf(0).clock("beta1_t"), 1.0);
}

TEST(Stack, WhatIsSaidToBeNeededIsEnough) {
  std::vector<BHalf> x(many);
  std::vector<float> g = thirds;
  State state = setup(MixedPrecision{std::vector<AnyRule>{AnyRule(ClipNorm{.p = 3.5}), AnyRule(WeightDecay{}),
                                                          AnyRule(AccumGrad{.n = 2}), AnyRule(Adam{})}},
                      x);
  Result<> done;
  on_stack_of((96 << 10) + (8 << 10), [&] {  // thread-local memory of the libraries is taken from it, too
    for (int i = 0; i < 2; ++i) done = state.try_update(x, g);
  });
  EXPECT_TRUE(done) << done.error().message;
}
#endif

}  // namespace
}  // namespace optimisers::test
