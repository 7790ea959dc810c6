// test_failures.cpp: no memory and no threads: every call, with the n-th allocation failing for each n, does all it was
// asked to or has changed nothing; threads that cannot be started are done without.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory_resource>
#include <new>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

#include "api/state_data.hpp"
#include "failing.hpp"
#include "optimisers/optimisers.h"
#include "optimisers/pack.hpp"
#include "optimisers/parse.hpp"
#include "optimisers/sweeps.hpp"
#include "optimisers/threads.hpp"
#include "support.hpp"

namespace optimisers::test {
namespace {

// A model and its state, with everything that a call may change.
struct Trained {
  std::vector<float> w = std::vector<float>(5000, 1.f), dw = std::vector<float>(5000, 0.5f);
  std::vector<BHalf> b = std::vector<BHalf>(300), db = std::vector<BHalf>(300);
  State state;

  explicit Trained(const char* rule) : state(make(rule)) { state.update(x(), dx()); }
  State make(const char* rule) {
    const Program program = parse_program(rule);
    return {program, Model({{"w", std::span(w)}, {"b", std::span(b)}})};
  }
  using Spans = std::vector<AnySpan>;
  Spans x() { return {std::span(w), std::span(b)}; }
  Spans dx() { return {std::span(dw), std::span(db)}; }

  std::string bytes() {
    std::string all;
    const auto append = [&](const void* data, std::size_t n) { all.append(static_cast<const char*>(data), n); };
    append(w.data(), w.size() * sizeof(float));
    append(b.data(), b.size() * sizeof(BHalf));
    Optimiser& o = State::Data::of(state).optimiser;
    for (std::uint32_t leaf = 0; leaf < o.size(); ++leaf) {
      all += o.frozen(leaf) ? 'f' : '-';
      const int stages = int(o.spec(leaf).program.stages.size());
      for (int s = 0; s < stages; ++s) {
        const RuleValue rule = o.rule(leaf, s);
        append(rule.data(), std::size_t(rule.info().size));
        const auto clock = o.clock(leaf, s);
        append(clock.data(), clock.size_bytes());
        for (const SlotView& slot : o.slots(leaf, s))
          append(slot.data, (leaf == 0 ? w.size() : b.size()) * std::size_t(size_of(slot.dtype)));
      }
    }
    return all;
  }
};

using Act = std::function<void(Trained&)>;
struct Case {
  const char* name;
  const char* rule;
  Act act;
};

const Case cases[] = {
    {"update", "Adam(0.1)", [](Trained& t) { t.state.update(t.x(), t.dx()); }},
    {"update of a chain that measures",
     "OptimiserChain(ClipNorm(0.1), ClipNorm(0.1, p=3.5, scope=\"global\"), Adam(0.1))",
     [](Trained& t) { t.state.update(t.x(), t.dx()); }},
    {"update with a gate", "OptimiserChain(AccumGrad(2), WeightDecay(0.1), Momentum(0.1))",
     [](Trained& t) { t.state.update(t.x(), t.dx()); }},
    {"update of arrays elsewhere", "MixedPrecision(Adam(0.1))",
     [](Trained& t) {
       std::vector<float> w = t.w;
       std::vector<BHalf> b = t.b;
       t.state.update(Trained::Spans{std::span(w), std::span(b)}, t.dx());
       t.w = w, t.b = b;
     }},
    {"adjust by name", "OptimiserChain(WeightDecay(0.1), Adam(0.1))",
     [](Trained& t) { t.state.adjust(Fields{{"eta", 0.3}, {"lambda", 0.2}}); }},
    {"adjust by value", "OptimiserChain(Adam(0.1), Adam(0.2))", [](Trained& t) { t.state.adjust(Adam{.eta = 0.7}); }},
    {"freeze", "Adam(0.1)", [](Trained& t) { t.state.freeze(); }},
    {"thaw", "Adam(0.1)", [](Trained& t) { t.state.thaw(); }},
    {"set_clock", "Adam(0.1)", [](Trained& t) { t.state.leaf(0).set_clock("beta1_t", 0.25); }},
    {"copy", "OptimiserChain(ClipNorm(1), Adam(0.1))", [](Trained& t) { t.state = State(t.state); }},
    {"reading", "OptimiserChain(ClipNorm(1), Adam(0.1))",
     [](Trained& t) {
       (void)t.state["w"].slot<float>("m");
       (void)t.state.leaves("b").at(0).slots(1);
       (void)t.state["b"].clock("beta1_t");
       (void)t.state["b"].rule(1);
     }},
    {"pack", "Adam(0.1)",
     [](Trained& t) {
       std::vector<float> flat(t.w.size() + t.b.size());
       pack(t.x(), std::span(flat));
       for (float& a : flat) a *= 2;
       std::vector<float> w = t.w;
       std::vector<BHalf> b = t.b;
       unpack(std::span(flat), Trained::Spans{std::span(w), std::span(b)});
       t.w = w, t.b = b;
     }},
};

class Failures : public testing::TestWithParam<Case> {};

// The call with the first, second, ... allocation failing, until none of its allocations is the one. A call that failed
// does what it should when it is made again.
TEST_P(Failures, AnAllocationThatFailsChangesNothing) {
  const Case& c = GetParam();
  Trained twin(c.rule);
  const std::string before = twin.bytes();
  c.act(twin);
  const std::string after = twin.bytes();
  bool happened = true;
  int n = 0;
  for (; happened && n < 500; ++n) {
    Trained t(c.rule);
    bool failed = false;
    failing::allocations_until_failure = n;
    try {
      c.act(t);
    } catch (const std::bad_alloc&) {
      failed = true;
    } catch (...) {
      failing::allocations_until_failure = -1;
      FAIL() << c.name << ": another error with allocation " << n << " failing";
    }
    happened = failing::allocations_until_failure < 0;
    failing::allocations_until_failure = -1;
    if (failed) {
      ASSERT_TRUE(t.bytes() == before) << c.name << ": changed with allocation " << n << " failing";
      c.act(t);
    }
    ASSERT_TRUE(t.bytes() == after) << c.name << ": not done with allocation " << n << " failing";
  }
  EXPECT_LT(n, 500);
}

INSTANTIATE_TEST_SUITE_P(Calls, Failures, testing::ValuesIn(cases), [](const auto& info) {
  std::string name = info.param.name;
  for (char& letter : name)
    if (letter == ' ') letter = '_';
  return name;
});

TEST(Failures, SetupWithoutMemoryIsAnErrorAndLeavesNothingBehind) {
  std::vector<float> w(5000, 1.f);
  const Program program = parse_program("OptimiserChain(ClipNorm(1), AMSGrad(0.1))");
  const Model model{std::span(w)};
  int n = 0;
  for (bool failed = true; failed; ++n) {
    ASSERT_LT(n, 500);
    failing::allocations_until_failure = n;
    const Result<State> state = try_setup(program, model, {});
    failing::allocations_until_failure = -1;
    failed = !state;
    if (failed) EXPECT_EQ(state.error().kind, ErrorKind::memory);
  }
  EXPECT_GT(n, 5);
}

TEST(Failures, TheCInterfaceReportsMemoryAndChangesNothing) {
  std::vector<float> x(100, 1.f), g(100, 1.f);
  const optimisers_array arrays[] = {{x.data(), 100, OPTIMISERS_FLOAT32, 0, nullptr, nullptr}};
  const optimisers_array gradients[] = {{g.data(), 100, OPTIMISERS_FLOAT32, 0, nullptr, nullptr}};
  optimisers_state* state = nullptr;
  ASSERT_EQ(optimisers_create("Descent(0.5)", arrays, 1, nullptr, &state), OPTIMISERS_OK);
  optimisers_status status = OPTIMISERS_MEMORY;
  int n = 0;
  for (; status != OPTIMISERS_OK; ++n) {
    ASSERT_LT(n, 500);
    failing::allocations_until_failure = n;
    status = optimisers_update(state, arrays, 1, gradients, 1);
    failing::allocations_until_failure = -1;
    if (status == OPTIMISERS_OK) break;
    EXPECT_EQ(status, OPTIMISERS_MEMORY) << optimisers_last_error();
    EXPECT_EQ(x, std::vector<float>(100, 1.f));
  }
  EXPECT_GT(n, 0);
  EXPECT_EQ(x, std::vector<float>(100, 0.5f));
  optimisers_destroy(state);
}

// A memory resource that has none.
struct Nothing : std::pmr::memory_resource {
  void* do_allocate(std::size_t, std::size_t) override { throw std::bad_alloc(); }
  void do_deallocate(void*, std::size_t, std::size_t) override {}
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};
TEST(Failures, NoMemoryForSlotsIsAnError) {
  Nothing nothing;
  std::vector<float> x(100, 1.f);
  const auto state = try_setup(Adam{}, Model(std::span(x)), {.memory = &nothing});
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().kind, ErrorKind::memory);
}

// ---- threads

class NoThreads : public testing::Test {
 protected:
  void SetUp() override {
    if (!failing::can_refuse_threads()) GTEST_SKIP() << "pthread_create cannot be replaced here";
    shutdown_threads();
  }
  void TearDown() override {
    failing::threads_until_failure = -1;
    set_num_threads(before_);
    shutdown_threads();
  }
  const int before_ = get_num_threads();
};

std::vector<float> trained(double& clock) {
  std::vector<float> x(400'000, 1.f), g(x.size());
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = float(i % 1000) / 500.f - 1.f;
  State state = setup(std::vector<AnyRule>{AnyRule(ClipNorm{.omega = 1}), AnyRule(Adam{})}, x);
  for (int i = 0; i < 3; ++i) state.update(x, g);
  clock = state.leaf(0).clock("beta1_t");
  return x;
}

TEST_F(NoThreads, TheWorkIsDoneByThoseThereAre) {
  double clock = 0, clock_now = 0;
  const auto expected = trained(clock);
  for (const int allowed : {0, 1, 3}) {
    shutdown_threads();
    set_num_threads(6);
    failing::threads_until_failure = allowed;
    EXPECT_TRUE(trained(clock_now) == expected) << allowed;
    EXPECT_EQ(clock_now, clock) << allowed;
    EXPECT_EQ(failing::threads_until_failure, 0) << "more threads were allowed than asked for";
    EXPECT_EQ(get_num_threads(), 6);
    std::vector<int> runs(40);
    for (int round = 0; round < 100; ++round)
      for (const Deal deal : {Deal::taken, Deal::fixed})
        parallel(40, [&](int part) { ++runs[std::size_t(part)]; }, deal);
    EXPECT_EQ(runs, std::vector<int>(40, 200));
    failing::threads_until_failure = -1;
  }
}

TEST_F(NoThreads, NoMemoryForAPoolIsNoFailureEither) {
  double clock = 0;
  const auto expected = trained(clock);
  set_num_threads(5);
  std::vector<int> runs(40);
  for (int n = 0; n < 4; ++n) {
    shutdown_threads();
    failing::allocations_until_failure = n;
    parallel(40, [&](int part) { ++runs[std::size_t(part)]; });
    failing::allocations_until_failure = -1;
  }
  EXPECT_EQ(runs, std::vector<int>(40, 4));
}

TEST_F(NoThreads, TheyAreTriedAgainLater) {
  set_num_threads(2);
  failing::threads_until_failure = 0;
  parallel(4, [](int) {});
  failing::threads_until_failure = -1;
  const int before = failing::threads_started;
  for (int round = 0; round < 2000; ++round) parallel(4, [](int) {});
  EXPECT_EQ(failing::threads_started, before + 1);
}

TEST_F(NoThreads, ShutdownEndsThemAndTheNextCallStartsNewOnes) {
  set_num_threads(3);
  const int before = failing::threads_started;
  parallel(8, [](int) {});
  EXPECT_EQ(failing::threads_started, before + 2);
  parallel(8, [](int) {});
  EXPECT_EQ(failing::threads_started, before + 2);
  optimisers_shutdown_threads();
  shutdown_threads();
  EXPECT_EQ(get_num_threads(), 3);
  std::atomic<int> runs{0};
  parallel(8, [&](int) { ++runs; });
  EXPECT_EQ(runs, 8);
  EXPECT_EQ(failing::threads_started, before + 4);
}

}  // namespace
}  // namespace optimisers::test
