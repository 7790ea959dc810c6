// test_hooks.cpp: the host's threads run the parts, the host's memory holds the slots, one call at a time on a state.
#include <gtest/gtest.h>

#include <atomic>
#include <memory_resource>
#include <optimisers/optimisers.hpp>
#include <thread>
#include <vector>

namespace optimisers::test {
namespace {

struct Host {
  std::atomic<int> calls{0}, parts{0};
  static void run(void* self, int parts, void (*part)(void*, int), void* context) {
    auto& host = *static_cast<Host*>(self);
    ++host.calls;
    host.parts += parts;
    std::vector<std::thread> threads;
    for (int i = 0; i < parts; ++i) threads.emplace_back(part, context, i);
    for (auto& t : threads) t.join();
  }
};

std::vector<float> train() {
  std::vector<float> x(400'000, 1.f), g(400'000);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = float(i % 1000) / 500.f - 1.f;
  State state = setup(Chain{ClipNorm{.omega = 1}, Adam{}}, x);
  for (int i = 0; i < 3; ++i) state.update(x, g);
  return x;
}

TEST(Hooks, ExecutorRunsThePartsWithTheSameBits) {
  const auto expected = train();
  Host host;
  set_executor({Host::run, &host, 6});
  EXPECT_EQ(get_num_threads(), 6);
  const auto x = train();
  set_executor({});
  EXPECT_TRUE(x == expected);
  EXPECT_EQ(host.calls, 6);  // three norms, three sweeps
  EXPECT_EQ(host.parts, 36);
  EXPECT_THROW(set_executor({Host::run, &host, 0}), Error);
}

struct Counting : std::pmr::memory_resource {
  std::size_t bytes = 0, blocks = 0;
  void* do_allocate(std::size_t n, std::size_t alignment) override {
    bytes += n;
    ++blocks;
    return std::pmr::new_delete_resource()->allocate(n, alignment);
  }
  void do_deallocate(void* p, std::size_t n, std::size_t alignment) override {
    bytes -= n;
    std::pmr::new_delete_resource()->deallocate(p, n, alignment);
  }
  bool do_is_equal(const memory_resource& o) const noexcept override { return this == &o; }
};

TEST(Hooks, MemoryHoldsEverySlotAndMaster) {
  Counting memory;
  {
    std::vector<Half> x(1000, Half{0x3c00});
    std::vector<float> g(1000, 1.f);
    State state = setup(MixedPrecision{Adam{}}, x, {.memory = &memory});
    EXPECT_EQ(memory.blocks, 3u);
    EXPECT_GE(memory.bytes, 3u * 4000u);
    const State copy = state;
    EXPECT_EQ(memory.blocks, 6u);
    state.update(x, g);
    EXPECT_NE(x[0].bits, 0x3c00);
  }
  EXPECT_EQ(memory.bytes, 0u);
}

TEST(Hooks, NoMemoryIsAFailureNotACrash) {
  struct Empty : Counting {
    void* do_allocate(std::size_t, std::size_t) override { throw std::bad_alloc(); }
  } memory;
  std::vector<float> x(10);
  const auto made = try_setup(Adam{}, x, {.memory = &memory});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().kind, ErrorKind::memory);
  EXPECT_THROW(setup(Adam{}, x, {.memory = &memory}), std::bad_alloc);
}

// An executor that calls back into the state it runs for, and reads it.
struct Meddler {
  State* state;
  std::vector<float>*x, *g;
  ErrorKind kind = ErrorKind::value;
  int reads = 0, busy = 0;
  template <class F>
  void read(F&& f) {
    ++reads;
    try {
      f();
    } catch (const Error& e) {
      busy += e.kind() == ErrorKind::busy ? 1 : 0;
    }
  }
  static void run(void* self, int parts, void (*part)(void*, int), void* context) {
    auto& m = *static_cast<Meddler*>(self);
    m.kind = m.state->try_update(*m.x, *m.g).error().kind;
    Leaf leaf = m.state->leaf(0);
    m.read([&] { (void)leaf.rule(); });
    m.read([&] { (void)leaf.frozen(); });
    m.read([&] { (void)leaf.slots(); });
    m.read([&] { (void)leaf.slot<float>("m"); });
    m.read([&] { (void)leaf.clock("beta1_t"); });
    m.read([&] { leaf.set_clock("beta1_t", 0.5); });
    m.read([&] { (void)State(*m.state); });
    for (int i = 0; i < parts; ++i) part(context, i);
  }
};

TEST(Hooks, ASecondCallOnAStateInUseIsBusy) {
  std::vector<float> x(200'000, 1.f), g(200'000, 1.f);
  State state = setup(Adam{.eta = 1}, x);
  Meddler meddler{&state, &x, &g};
  set_executor({Meddler::run, &meddler, 4});
  state.update(x, g);
  set_executor({});
  EXPECT_EQ(meddler.kind, ErrorKind::busy);
  EXPECT_EQ(meddler.busy, meddler.reads);
  EXPECT_EQ(meddler.reads, 7);
  EXPECT_EQ(state.leaf(0).clock("beta1_t"), 0.9);
  EXPECT_NEAR(x[7], 0, 1e-6);
}

TEST(Hooks, DifferentStatesRunInParallel) {
  const auto expected = train();
  std::vector<std::vector<float>> results(4);
  std::vector<std::thread> threads;
  for (auto& r : results) threads.emplace_back([&r] { r = train(); });
  for (auto& t : threads) t.join();
  for (const auto& r : results) EXPECT_TRUE(r == expected);
}

}  // namespace
}  // namespace optimisers::test
