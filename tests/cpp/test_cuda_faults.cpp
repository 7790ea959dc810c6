// test_cuda_faults.cpp: what a device refuses, and what is left where it fails.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cuda_support.hpp"
#include "optimisers/error.hpp"

namespace optimisers::test {
namespace {

TEST_F(Cuda, ANormThatIsRefusedWritesNothingAndIsReportedOnce) {
  Pair pair;
  for (int i = 0; i < 3; ++i)
    pair.add("x" + std::to_string(i), twin(DType::float32, {100}, i), twin(DType::float32, {100}, i + 10),
             {{rule("ClipNorm", {{"scope", std::string(i < 2 ? "global" : "leaf")}}), rule("Adam")}, {}, {}});
  pair.add("other", twin(DType::float32, {10}, 20), twin(DType::float32, {10}, 21), {{rule("Adam")}, {}, {}});
  pair.set_up();
  pair.step();
  const float nan = NAN;
  const ArrayView dx = pair.dx(1).view(true);
  cuda::copy(dx.data + 40, device, reinterpret_cast<const std::byte*>(&nan), on_host, 4);
  std::vector<LeafUpdate> u;
  for (std::uint32_t i = 0; i < 4; ++i)
    u.push_back({.leaf = i, .x = pair.x(i).view(true), .dx = pair.dx(i).view(true)});
  Optimiser& opt = pair.of(true);
  opt.update(u);  // enqueued; nothing is known yet
  pair.expect_equal("nothing was written");
  try {
    opt.wait();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::non_finite);
    EXPECT_STREQ(e.leaf(), "x1");
  }
  opt.wait();
  opt.update(u);
  opt.speak(Optimiser::Language::cxx);
  try {
    opt.update(u);  // the next call says it, before it does anything
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("or use ClipNorm{.throw_ = false}"), std::string::npos) << e.what();
  }
}

TEST_F(Cuda, ArraysOnAnotherDeviceAreRefusedByName) {
  Twin x(DType::float32, {10}, {}, 1), dx(DType::float32, {10}, {}, 2);
  Optimiser opt({{"layer.w", {10}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
  const auto message = [&](const ArrayView& a, const ArrayView& g) -> std::string {
    const LeafUpdate u{.leaf = 0, .x = a, .dx = g};
    try {
      opt.update({&u, 1});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message(x.view(true), dx.view(false)).find("gradient at \"layer.w\" is on the host"), std::string::npos);
  EXPECT_NE(message(x.view(false), dx.view(true)).find("parameter at \"layer.w\" is on the host"), std::string::npos);
  EXPECT_EQ(message(x.view(true), dx.view(true)), "");
}

TEST_F(Cuda, AFailureInTheMiddleMakesTheStateUnusable) {
  Twin x(DType::float32, {10}, {}, 1), dx(DType::float32, {10}, {}, 2);
  Optimiser opt({{"w", {10}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
  const LeafUpdate u{.leaf = 0, .x = x.view(true), .dx = dx.view(true)};
  const auto message = [&]() -> std::string {
    try {
      opt.update({&u, 1});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::device);
      return e.what();
    }
    return "";
  };
  setenv("OPTIMISERS_EMULATED_FAILURE", "1", 1);
  EXPECT_NE(message().find("emulated failure; the device cannot be used"), std::string::npos);
  unsetenv("OPTIMISERS_EMULATED_FAILURE");
  EXPECT_NE(message().find("failed in an earlier call on this state"), std::string::npos);
}

// What other tests have left for later, too.
std::size_t memory_in_use() {
  std::size_t free = 0, total = 0;
  try {
    cuda::allocate(device, std::size_t(1) << 60);
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_EQ(std::sscanf(text.c_str() + text.find("for, "), "for, %zu free of %zu", &free, &total), 2) << text;
  }
  return total - free;
}

int asked_of = -1;

TEST_F(Cuda, OthersAreAskedToGiveBackMemoryOnceAndThenSayWhatTheyHold) {
  Twin x(DType::float32, {8000}, {}, 1);
  const std::size_t full = memory_in_use();
  const auto set_up = [&] {
    Optimiser opt({{"w", {8000}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
  };
  cuda::set_neighbours({[](int d) {
                          asked_of = d;
                          unsetenv("OPTIMISERS_EMULATED_MEMORY");
                        },
                        [](int) { return std::string("somebody holds much"); }});
  setenv("OPTIMISERS_EMULATED_MEMORY", std::to_string(full).c_str(), 1);
  EXPECT_NO_THROW(set_up());
  EXPECT_EQ(std::exchange(asked_of, -1), int(device));
  cuda::set_neighbours({[](int d) { asked_of = d; }, [](int) { return std::string("somebody holds much"); }});
  setenv("OPTIMISERS_EMULATED_MEMORY", std::to_string(full).c_str(), 1);
  try {
    set_up();
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("; in this process somebody holds much; nothing was changed"),
              std::string::npos)
        << e.what();
  }
  EXPECT_EQ(std::exchange(asked_of, -1), int(device));
  setenv("OPTIMISERS_EMULATED_CAPTURE", "1", 1);  // where memory is not given back
  EXPECT_THROW(cuda::allocate(device, 1000), Error);
  EXPECT_EQ(asked_of, -1);
  cuda::set_neighbours({});
  unsetenv("OPTIMISERS_EMULATED_CAPTURE");
  unsetenv("OPTIMISERS_EMULATED_MEMORY");
}

TEST_F(Cuda, MemoryThatRunsOutChangesNothing) {
  setenv("OPTIMISERS_EMULATED_MEMORY", std::to_string(memory_in_use() + 70'000).c_str(), 1);
  Twin x(DType::float32, {8000}, {}, 1);
  try {
    Optimiser opt({{"w", {8000}, DType::float32, {{rule("Adam")}, {}, {}}, device}}, std::vector{x.view(true)});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory);
    EXPECT_NE(std::string(e.what()).find("32000 bytes asked for"), std::string::npos) << e.what();
  }
  unsetenv("OPTIMISERS_EMULATED_MEMORY");
}

}  // namespace
}  // namespace optimisers::test
