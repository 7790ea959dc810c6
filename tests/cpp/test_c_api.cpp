// test_c_api.cpp: the C interface: the same bits as C++, every failure a status with a message, memory of the host.
#include <gtest/gtest.h>

#include <optimisers/optimisers.h>
#include <cmath>
#include <cstdlib>
#include <optimisers/optimisers.hpp>
#include <string>
#include <vector>

namespace optimisers::test {
namespace {

using Floats = std::vector<float>;

optimisers_array array(Floats& v, const char* name = nullptr) {
  return {v.data(), std::int64_t(v.size()), OPTIMISERS_FLOAT32, 0, nullptr, name};
}
const optimisers_array missing{};

struct Handle {
  optimisers_state* state = nullptr;
  ~Handle() { optimisers_destroy(state); }
  operator optimisers_state*() const { return state; }
};

TEST(CApi, SameBitsAsCxx) {
  Floats a(5000), b(7), ga(5000), gb(7);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = std::sin(float(i)), ga[i] = std::cos(float(i));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = float(i), gb[i] = 1.f / float(i + 1);
  Floats a2 = a, b2 = b;
  State state = setup(Chain{ClipNorm{.omega = 1, .scope = Scope::global}, AdamW{.eta = 3e-4, .lambda = 0.01}},
                      {{"a", a}, {"b", b}});

  const optimisers_array leaves[] = {array(a2, "a"), array(b2, "b")}, grads[] = {array(ga), array(gb)};
  Handle c;
  ASSERT_EQ(optimisers_create("OptimiserChain(ClipNorm(1.0, scope='global'), AdamW(eta=3e-4, lambda=0.01))", leaves, 2,
                              nullptr, &c.state),
            OPTIMISERS_OK)
      << optimisers_last_error();
  for (int i = 0; i < 4; ++i) {
    state.update({a, b}, {ga, gb});
    ASSERT_EQ(optimisers_update(c, leaves, 2, grads, 2), OPTIMISERS_OK) << optimisers_last_error();
    if (i == 1) {
      state.adjust(1e-2);
      state["b"].freeze();
      optimisers_adjust(c, OPTIMISERS_ALL, "eta", 1e-2);
      optimisers_freeze(c, 1, 1);
    }
  }
  EXPECT_EQ(a, a2);
  EXPECT_EQ(b, b2);
}

TEST(CApi, ReadsAndWritesState) {
  Floats x(3, 1.f), g(3, 1.f);
  const optimisers_array leaf = array(x, "layer.w"), grad = array(g);
  Handle c, copy;
  ASSERT_EQ(optimisers_create("Chain(WeightDecay(), Adam)", &leaf, 1, nullptr, &c.state), OPTIMISERS_OK);
  ASSERT_EQ(optimisers_update(c, &leaf, 1, &grad, 1), OPTIMISERS_OK);
  std::int64_t index = -1;
  ASSERT_EQ(optimisers_find_leaf(c, "layer.w", &index), OPTIMISERS_OK);
  optimisers_leaf info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(optimisers_get_leaf(c, index, &info), OPTIMISERS_OK);
  EXPECT_STREQ(info.name, "layer.w");
  EXPECT_EQ(info.stages, 2);
  optimisers_stage stage{};
  stage.struct_size = sizeof stage;
  ASSERT_EQ(optimisers_get_stage(c, 0, 1, &stage), OPTIMISERS_OK);
  EXPECT_STREQ(stage.rule, "Adam");
  EXPECT_EQ(stage.slots * 10 + stage.clocks, 23);
  optimisers_slot m{};
  m.struct_size = sizeof m;
  ASSERT_EQ(optimisers_get_slot(c, 0, 1, 0, &m), OPTIMISERS_OK);
  EXPECT_STREQ(m.name, "m");
  EXPECT_FLOAT_EQ(static_cast<float*>(m.data)[2], 0.1f * (1 + 5e-4f));
  static_cast<float*>(m.data)[2] = 0;
  const char* name = nullptr;
  double clock = 0;
  ASSERT_EQ(optimisers_get_clock(c, 0, 1, 0, &name, &clock), OPTIMISERS_OK);
  EXPECT_STREQ(name, "beta1_t");
  EXPECT_EQ(clock, 0.9);
  ASSERT_EQ(optimisers_set_clock(c, 0, 1, 0, 0.5), OPTIMISERS_OK);
  ASSERT_EQ(optimisers_copy(c, &copy.state), OPTIMISERS_OK);
  ASSERT_EQ(optimisers_get_clock(copy, 0, 1, 0, nullptr, &clock), OPTIMISERS_OK);
  EXPECT_EQ(clock, 0.5);
  double values[2];
  std::int32_t count = 0;
  ASSERT_EQ(optimisers_adjust_text(c, 0, "eta=0.5, beta=(0.25, 0.75)"), OPTIMISERS_OK);
  ASSERT_EQ(optimisers_get_field(c, 0, 1, "beta", values, &count), OPTIMISERS_OK);
  EXPECT_EQ(count, 2);
  EXPECT_EQ(values[1], 0.75);
}

TEST(CApi, EveryFailureHasAStatusAMessageAndTheLeaf) {
  Floats x(3, 1.f), g(3, 1.f), inf(3, INFINITY);
  const optimisers_array leaf = array(x, "w"), grad = array(g), bad = array(inf);
  Handle c;
  EXPECT_EQ(optimisers_create("Adm()", &leaf, 1, nullptr, &c.state), OPTIMISERS_VALUE);
  EXPECT_NE(std::string(optimisers_last_error()).find("no rule is called \"Adm\""), std::string::npos);
  EXPECT_EQ(optimisers_create("Adam(eta=-1)", &leaf, 1, nullptr, &c.state), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_create("Adam(eta='a')", &leaf, 1, nullptr, &c.state), OPTIMISERS_TYPE);
  EXPECT_EQ(optimisers_create(nullptr, &leaf, 1, nullptr, &c.state), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_create("Adam", &leaf, 1, nullptr, nullptr), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_create("Adam", nullptr, 1, nullptr, &c.state), OPTIMISERS_VALUE);
  optimisers_array wrong = leaf;
  wrong.dtype = 17;
  EXPECT_EQ(optimisers_create("Adam", &wrong, 1, nullptr, &c.state), OPTIMISERS_TYPE);
  wrong = leaf;
  wrong.size = -1;
  EXPECT_EQ(optimisers_create("Adam", &wrong, 1, nullptr, &c.state), OPTIMISERS_VALUE);
  EXPECT_EQ(c.state, nullptr);

  ASSERT_EQ(optimisers_create("ClipNorm", &leaf, 1, nullptr, &c.state), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_update(c, &leaf, 1, &bad, 1), OPTIMISERS_NON_FINITE);
  EXPECT_STREQ(optimisers_last_error_leaf(), "w");
  EXPECT_EQ(optimisers_update(nullptr, &leaf, 1, &grad, 1), OPTIMISERS_VALUE);
  EXPECT_STREQ(optimisers_last_error(), "optimisers_update: state is NULL");
  EXPECT_EQ(optimisers_update(c, &leaf, 1, &missing, 1), OPTIMISERS_OK);  // no gradient: untouched
  EXPECT_EQ(optimisers_update(c, &missing, 1, &grad, 1), OPTIMISERS_VALUE);
  EXPECT_EQ(x, Floats(3, 1.f));
  optimisers_slot slot{};
  slot.struct_size = sizeof slot;
  EXPECT_EQ(optimisers_get_slot(c, 0, 1, 0, &slot), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_get_slot(c, 7, 0, 0, &slot), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_get_master(c, 0, &slot), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_adjust(c, -2, "omega", 1), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_adjust(c, 0, "omga", 1), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_adjust(c, 0, "omega", 1e39), OPTIMISERS_VALUE);  // of a float32 leaf
  EXPECT_EQ(optimisers_set_num_threads(0), OPTIMISERS_VALUE);
  optimisers_destroy(nullptr);
}

// Memory of a host that has so many blocks left.
struct Host {
  int left, live = 0;
  optimisers_memory memory{[](void* self, size_t bytes, size_t alignment) -> void* {
                             auto& h = *static_cast<Host*>(self);
                             if (h.left-- == 0) return nullptr;
                             ++h.live;
                             return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
                           },
                           [](void* self, void* block, size_t, size_t) {
                             --static_cast<Host*>(self)->live;
                             std::free(block);
                           },
                           this};
  explicit Host(int left) : left(left) {}
  Host(const Host&) = delete;
};

TEST(CApi, OutputsAreCheckedBeforeAnythingIsMade) {
  Host host(100);
  Floats x(3, 1.f);
  const optimisers_array leaf = array(x, "w");
  Handle c;
  ASSERT_EQ(optimisers_create("Adam", &leaf, 1, &host.memory, &c.state), OPTIMISERS_OK);
  const int live = host.live, left = host.left;
  const auto refused = [&](optimisers_status status, const char* what) {
    EXPECT_EQ(status, OPTIMISERS_VALUE);
    const std::string message = optimisers_last_error();
    EXPECT_EQ(message.substr(message.find(": ") + 2), std::string(what) + " is NULL");
  };
  double values[2] = {7, 7};
  std::int32_t count = 7;
  const char* name = nullptr;
  refused(optimisers_create("Adam", &leaf, 1, &host.memory, nullptr), "out");
  const char* rule = "Adam";
  refused(optimisers_create_each(&rule, &leaf, 1, &host.memory, nullptr), "out");
  refused(optimisers_copy(c, nullptr), "out");
  refused(optimisers_find_leaf(c, "w", nullptr), "leaf");
  refused(optimisers_get_leaf(c, 0, nullptr), "out");
  refused(optimisers_get_stage(c, 0, 0, nullptr), "out");
  refused(optimisers_get_slot(c, 0, 0, 0, nullptr), "out");
  refused(optimisers_get_master(c, 0, nullptr), "out");
  refused(optimisers_get_field(c, 0, 0, "eta", values, nullptr), "count");
  refused(optimisers_get_field(c, 0, 0, "eta", nullptr, &count), "values");
  refused(optimisers_get_clock(c, 0, 0, 0, &name, nullptr), "value");
  EXPECT_EQ(values[0], 7);
  EXPECT_EQ(count, 7);
  EXPECT_EQ(name, nullptr);
  EXPECT_EQ(host.live, live);
  EXPECT_EQ(host.left, left);
}

TEST(CApi, MemoryOfTheHostAndNoneLeft) {
  Host host(2);
  Floats x(100, 1.f);
  const optimisers_array leaf = array(x);
  {
    Handle c, copy;
    ASSERT_EQ(optimisers_create("Adam", &leaf, 1, &host.memory, &c.state), OPTIMISERS_OK);
    EXPECT_EQ(host.live, 2);
    EXPECT_EQ(optimisers_copy(c, &copy.state), OPTIMISERS_MEMORY);
    EXPECT_STREQ(optimisers_last_error(), "optimisers_copy: out of memory");
  }
  EXPECT_EQ(host.live, 0);
}

TEST(CApi, RulesPerLeafAndMasters) {
  std::vector<Half> h(4, Half{0x3c00});
  Floats y(2, 1.f), gh(4, 1.f), gy(2, 1.f);
  const optimisers_array leaves[] = {{h.data(), 4, OPTIMISERS_FLOAT16, 0, nullptr, "h"}, array(y, "y")};
  const optimisers_array grads[] = {array(gh), array(gy)};
  const char* rules[] = {"MixedPrecision(Descent(0.25))", nullptr};
  Handle c;
  ASSERT_EQ(optimisers_create_each(rules, leaves, 2, nullptr, &c.state), OPTIMISERS_OK) << optimisers_last_error();
  ASSERT_EQ(optimisers_update(c, leaves, 2, grads, 2), OPTIMISERS_OK) << optimisers_last_error();
  optimisers_slot master{};
  master.struct_size = sizeof master;
  ASSERT_EQ(optimisers_get_master(c, 0, &master), OPTIMISERS_OK);
  EXPECT_EQ(static_cast<float*>(master.data)[3], 0.75f);
  EXPECT_EQ(h[0].bits, 0x3a00);
  EXPECT_EQ(y[0], 1.f);
  EXPECT_EQ(optimisers_freeze(c, 1, 0), OPTIMISERS_VALUE);  // it has no rule to thaw to
}

TEST(CApi, ListsFieldsAndWritesRules) {
  Floats x(2, 1.f);
  const optimisers_array leaf = array(x, "x");
  Handle c;
  const char* rule = "OptimiserChain(WeightDecay(lambda=0.5), RMSProp(eta=0.25), WeightDecay(lambda=0.125))";
  ASSERT_EQ(optimisers_create(rule, &leaf, 1, nullptr, &c.state), OPTIMISERS_OK);
  optimisers_stage stage{};
  stage.struct_size = sizeof stage;
  ASSERT_EQ(optimisers_get_stage(c, 0, 1, &stage), OPTIMISERS_OK);
  std::string names;
  for (std::int32_t i = 0; i < stage.fields; ++i) {
    optimisers_field field{};
    field.struct_size = sizeof field;
    ASSERT_EQ(optimisers_get_field_info(c, 0, 1, i, &field), OPTIMISERS_OK);
    names += std::string(field.name) + std::to_string(field.kind) + (field.structural ? "! " : " ");
  }
  EXPECT_EQ(names, "eta0 rho0 epsilon0 centred3! ");
  optimisers_field field{};
  EXPECT_EQ(optimisers_get_field_info(c, 0, 1, 0, &field), OPTIMISERS_VALUE);
  EXPECT_STREQ(optimisers_last_error(),
               "optimisers_get_field_info: out: struct_size is 0, set it to sizeof of the structure");
  field.struct_size = sizeof field;
  EXPECT_EQ(optimisers_get_field_info(c, 0, 1, stage.fields, &field), OPTIMISERS_VALUE);

  EXPECT_EQ(optimisers_adjust_stage(c, 0, 2, "lambda=0.25"), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_adjust_stage(c, 0, 3, "lambda=0.25"), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_adjust_stage(c, 0, -1, "lambda=0.25"), OPTIMISERS_VALUE);
  std::size_t needed = 0;
  ASSERT_EQ(optimisers_get_rule(c, 0, nullptr, 0, &needed), OPTIMISERS_OK);
  std::string text(needed, '?');
  EXPECT_EQ(optimisers_get_rule(c, 0, text.data(), needed - 1, nullptr), OPTIMISERS_VALUE);
  ASSERT_EQ(optimisers_get_rule(c, 0, text.data(), needed, nullptr), OPTIMISERS_OK);
  EXPECT_STREQ(text.c_str(),
               "OptimiserChain(WeightDecay(lambda=0.5), RMSProp(eta=0.25, rho=0.9, epsilon=1e-08, centred=False), "
               "WeightDecay(lambda=0.25))");
  Handle again;
  EXPECT_EQ(optimisers_create(text.c_str(), &leaf, 1, nullptr, &again.state), OPTIMISERS_OK);
}

TEST(CApi, UpdateWithScaleAndReducedNorms) {
  Floats x(1, 0.f), dx(1, 6.f);
  const optimisers_array leaf = array(x, "x"), gradient = array(dx);
  Handle c;
  ASSERT_EQ(optimisers_create("OptimiserChain(ClipNorm(1.0), Descent(1.0))", &leaf, 1, nullptr, &c.state),
            OPTIMISERS_OK);
  double seen = 0;
  optimisers_update_options options{sizeof options, 0.5,
                                    [](void* self, double norm, double p, const char* of) {
                                      *static_cast<double*>(self) = norm * p + (std::string(of) == "x" ? 100 : 0);
                                      return norm / 1.5;
                                    },
                                    &seen};
  ASSERT_EQ(optimisers_update_with(c, &leaf, 1, &gradient, 1, &options), OPTIMISERS_OK) << optimisers_last_error();
  EXPECT_EQ(seen, 106);
  EXPECT_EQ(x[0], -1.5f);  // 6 · 0.5, clipped by a norm of 2
  options.struct_size = 8;
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &gradient, 1, &options), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &gradient, 1, nullptr), OPTIMISERS_OK);
  EXPECT_EQ(x[0], -2.5f);
}

TEST(CApi, SkipsOrRefusesWhatIsNotFiniteAndSaysWhatItSaw) {
  Floats x(2, 1.f), dx{3.f, 4.f}, bad{1.f, NAN};
  const optimisers_array leaf = array(x, "x"), gradient = array(dx), infinite = array(bad);
  Handle c;
  ASSERT_EQ(
      optimisers_create("OptimiserChain(ClipNorm(10.0, scope=\"global\"), Momentum(0.5))", &leaf, 1, nullptr, &c.state),
      OPTIMISERS_OK);
  optimisers_seen seen{};
  EXPECT_EQ(optimisers_get_seen(c, &seen), OPTIMISERS_VALUE) << "struct_size is 0";
  seen.struct_size = sizeof seen;
  ASSERT_EQ(optimisers_get_seen(c, &seen), OPTIMISERS_OK);
  EXPECT_EQ(seen.has_norm, 0);
  optimisers_update_options options{sizeof options, 1, nullptr, nullptr, OPTIMISERS_SKIP};
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &infinite, 1, &options), OPTIMISERS_OK);
  EXPECT_EQ(x, Floats(2, 1.f));
  options.non_finite = OPTIMISERS_RAISE;
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &infinite, 1, &options), OPTIMISERS_NON_FINITE);
  EXPECT_STREQ(optimisers_last_error_leaf(), "x");
  options.non_finite = 3;
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &gradient, 1, &options), OPTIMISERS_VALUE);
  options.struct_size = offsetof(optimisers_update_options, non_finite);  // of an earlier header
  EXPECT_EQ(optimisers_update_with(c, &leaf, 1, &gradient, 1, &options), OPTIMISERS_OK);
  EXPECT_EQ(x, (Floats{-0.5f, -1.f}));
  ASSERT_EQ(optimisers_get_seen(c, &seen), OPTIMISERS_OK);
  EXPECT_EQ(seen.skipped, 1);
  EXPECT_EQ(seen.has_norm, 1);
  EXPECT_EQ(seen.norm, 5);
  EXPECT_EQ(seen.struct_size, sizeof seen);
}

TEST(CApi, FlushAppliesWhatAWindowHolds) {
  Floats x(1, 1.f), dx(1, 2.f);
  const optimisers_array leaf = array(x, "x"), gradient = array(dx);
  Handle c;
  ASSERT_EQ(optimisers_create("OptimiserChain(AccumGrad(4), Descent(1.0))", &leaf, 1, nullptr, &c.state),
            OPTIMISERS_OK);
  ASSERT_EQ(optimisers_update(c, &leaf, 1, &gradient, 1), OPTIMISERS_OK);
  EXPECT_EQ(x[0], 1.f);
  ASSERT_EQ(optimisers_flush(c, &leaf, 1), OPTIMISERS_OK);
  EXPECT_EQ(x[0], -1.f);
  ASSERT_EQ(optimisers_flush(c, &leaf, 1), OPTIMISERS_OK);
  EXPECT_EQ(x[0], -1.f);
  EXPECT_EQ(optimisers_flush(nullptr, &leaf, 1), OPTIMISERS_VALUE);
  EXPECT_EQ(optimisers_flush(c, nullptr, 1), OPTIMISERS_VALUE);
}

TEST(CApi, GrowsAtTheEndsOfItsStructures) {
  EXPECT_EQ(optimisers_abi(), OPTIMISERS_ABI);
  struct {  // of a later header
    optimisers_slot slot;
    int added;
  } later{{sizeof later, nullptr, nullptr, 0, 0}, 7};
  Floats x(1, 0.f);
  const optimisers_array leaf = array(x, "x");
  Handle c;
  ASSERT_EQ(optimisers_create("Adam", &leaf, 1, nullptr, &c.state), OPTIMISERS_OK);
  ASSERT_EQ(optimisers_get_slot(c, 0, 0, 1, &later.slot), OPTIMISERS_OK);
  EXPECT_STREQ(later.slot.name, "v");
  EXPECT_EQ(later.slot.struct_size, sizeof later);
  EXPECT_EQ(later.added, 7);
}

TEST(CApi, MessagesNameItsFunctions) {
  Floats x(2, 1.f), bad(1, 1.f), inf(2, INFINITY);
  const optimisers_array leaf = array(x, "x"), short_gradient = array(bad), infinite = array(inf);
  Handle c;
  ASSERT_EQ(optimisers_create("ClipNorm", &leaf, 1, nullptr, &c.state), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_update(c, &leaf, 1, &short_gradient, 1), OPTIMISERS_VALUE);
  EXPECT_STREQ(optimisers_last_error(), "optimisers_update: gradient at \"x\" has 1 elements, expected 2 ((2,))");
  EXPECT_EQ(optimisers_update(c, &leaf, 1, &infinite, 1), OPTIMISERS_NON_FINITE);
  EXPECT_EQ(std::string(optimisers_last_error()).find("ClipNorm{"), std::string::npos);
  EXPECT_EQ(optimisers_adjust(c, 0, "rho", 1), OPTIMISERS_VALUE);
  EXPECT_STREQ(optimisers_last_error(),
               "optimisers_adjust: no rule here has a field \"rho\"; fields are omega, p, scope, throw");
  const optimisers_array twice[] = {leaf, leaf};
  Handle none;
  EXPECT_EQ(optimisers_create("Adam", twice, 2, nullptr, &none.state), OPTIMISERS_VALUE);
  EXPECT_EQ(std::string(optimisers_last_error()).rfind("optimisers_create: ", 0), 0u) << optimisers_last_error();
}

}  // namespace
}  // namespace optimisers::test
