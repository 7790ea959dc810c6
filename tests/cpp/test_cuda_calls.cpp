// test_cuda_calls.cpp: which calls of a device are made, on which stream and in which order: what an emulation that
// runs everything at once can show of streams, captures and failures.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "cuda_support.hpp"
#include "optimisers/error.hpp"
#include "optimisers/sweeps.hpp"

namespace optimisers::test {
namespace {

// Of one optimiser for one leaf, with the calls it makes written down.
class CudaCalls : public Cuda {
 protected:
  void SetUp() override { setenv("OPTIMISERS_EMULATED_CALLS", path_.c_str(), 1); }
  void TearDown() override {
    for (const char* name : {"CALLS", "CAPTURE", "FAILURE"})
      unsetenv((std::string("OPTIMISERS_EMULATED_") + name).c_str());
    std::remove(path_.c_str());
  }
  void step() {
    const LeafUpdate u{.leaf = 0, .x = x.view(true), .dx = dx.view(true)};
    opt.update({&u, 1});
  }
  // Since the last time; those that `only` names, or all.
  std::vector<std::string> calls(const std::string& only = "") {
    std::vector<std::string> lines;
    {
      std::ifstream file(path_);
      for (std::string line; std::getline(file, line);)
        if (only.find(line.substr(0, line.find(' '))) != std::string::npos || only.empty()) lines.push_back(line);
    }
    std::remove(path_.c_str());
    return lines;
  }
  static void capture(bool on) {
    if (on) setenv("OPTIMISERS_EMULATED_CAPTURE", "1", 1);
    else unsetenv("OPTIMISERS_EMULATED_CAPTURE");
  }
  static void fail(const char* how) {
    if (how) setenv("OPTIMISERS_EMULATED_FAILURE", how, 1);
    else unsetenv("OPTIMISERS_EMULATED_FAILURE");
  }
  template <class F>
  static std::string message(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  std::string path_ = testing::TempDir() + "cuda_calls_" + std::to_string(::getpid());
  Twin x{DType::float32, {3000}, {}, 1}, dx{DType::float32, {3000}, {}, 2};
  Optimiser opt{{{"w", {3000}, DType::float32, {{rule("ClipNorm"), rule("Adam")}, {}, {}}, device}},
                std::vector{x.view(true)}};
};
using Lines = std::vector<std::string>;
void* const side = reinterpret_cast<void*>(0x50);

TEST_F(CudaCalls, AStepIsLaunchesOnTheThreadsStreamAndAnEvent) {
  const cuda::Stream on(side, device);
  step();
  calls();
  step();
  EXPECT_EQ(calls(), (Lines{"launch 0 0x50", "launch 0 0x50", "launch 0 0x50", "record 0 0x50"}));
}

TEST_F(CudaCalls, KernelsAreLoadedAtSetupOrBeforeAnythingIsEnqueued) {
  calls();
  Optimiser other(std::vector{opt.spec(0)}, std::vector{x.view(true)});
  EXPECT_GE(calls("load").size(), 4U);
  LeafUpdate u{.leaf = 0, .x = x.view(true), .dx = dx.view(true)};
  other.update({&u, 1});
  EXPECT_TRUE(calls("load").empty());
  Twin strided(DType::float32, {3000}, {2}, 3);
  calls();
  u.dx = strided.view(true);
  other.update({&u, 1});
  const Lines all = calls("load launch");
  const auto is = [](const char* what) { return [what](auto& line) { return line.starts_with(what); }; };
  const auto first = std::find_if(all.begin(), all.end(), is("launch"));
  EXPECT_GE(first - all.begin(), 3);
  EXPECT_TRUE(std::all_of(all.begin(), first, is("load")));
  EXPECT_TRUE(std::none_of(first, all.end(), is("load")));
}

TEST_F(CudaCalls, WhateverReadsAStateFollowsItsLastStep) {
  {
    const cuda::Stream on(side, device);
    step();
  }
  calls();
  opt.clock(0, 1);
  EXPECT_EQ(calls(), (Lines{"await 0 0x0", "copy, wait 0 0x0"}));
  opt.slots(0, 1);
  EXPECT_EQ(calls(), (Lines{"await 0 0x0"}));
  opt.wait();
  EXPECT_EQ(calls(), (Lines{"await 0 0x0", "wait 0 0x0"}));
  const Optimiser copy(opt);
  EXPECT_EQ(calls("await copy").front(), "await 0 0x0");
  opt.set_rule(0, 1, opt.rule(0, 1));
  EXPECT_EQ(calls(), (Lines{"await 0 0x0", "launch 0 0x0", "launch 0 0x0", "record 0 0x0"}));
  step();  // on the stream of the adjustment
  EXPECT_TRUE(calls("await").empty());
}

TEST_F(CudaCalls, NothingInACaptureWaitsOrMarks) {
  step();
  calls();
  const cuda::Stream on(side, device);
  capture(true);
  step();
  EXPECT_EQ(calls("await wait record copy follow load"), Lines{});
  capture(false);
  step();
  EXPECT_EQ(calls("await"), (Lines{"await 0 0x50"}));  // behind the step before the capture
}

TEST_F(CudaCalls, AFirstStepInACaptureOnlyLaunches) {
  calls();
  capture(true);
  step();
  EXPECT_EQ(calls("await wait record copy follow"), Lines{});
}

TEST_F(CudaCalls, WhatWouldWaitIsRefusedInACapture) {
  step();
  capture(true);
  calls();
  const std::string expected = "cannot be part of the CUDA graph";
  EXPECT_NE(message([&] { opt.wait(); }).find(expected), std::string::npos);
  EXPECT_NE(message([&] { opt.clock(0, 1); }).find(expected), std::string::npos);
  EXPECT_NE(message([&] { (void)norm({{x.view(true)}}, 2); }).find(expected), std::string::npos);
  EXPECT_NE(message([&] { const Optimiser copy(opt); }).find(expected), std::string::npos);
  EXPECT_TRUE(calls("wait copy launch").empty());
  capture(false);
  EXPECT_EQ(message([&] { step(); }), "");
}

TEST_F(CudaCalls, AFailureBeforeTheSweepLeavesTheStateAsItWas) {
  step();
  for (const char* how : {"failed", "failed:1"}) {  // the measurement, the norm
    fail(how);
    EXPECT_NE(message([&] { step(); }).find("emulated failure"), std::string::npos);
    fail(nullptr);
    EXPECT_EQ(message([&] { step(); }), "");
  }
}

TEST_F(CudaCalls, AFailureOfTheSweepOrOfTheDeviceIsTheStatesEnd) {
  for (const char* how : {"failed:2", "sticky"}) {
    Optimiser other(opt);
    const LeafUpdate u{.leaf = 0, .x = x.view(true), .dx = dx.view(true)};
    const auto again = [&] { other.update({&u, 1}); };
    again();
    fail(how);
    EXPECT_NE(message(again).find("emulated failure"), std::string::npos);
    fail(nullptr);
    EXPECT_NE(message(again).find("failed in an earlier call on this state"), std::string::npos);
  }
}

TEST_F(CudaCalls, AFailedCaptureIsNotTheStatesEnd) {
  step();
  capture(true);
  fail("failed:2");
  EXPECT_NE(message([&] { step(); }).find("emulated failure"), std::string::npos);
  fail(nullptr);
  capture(false);
  EXPECT_EQ(message([&] { step(); }), "");
}

TEST_F(CudaCalls, MemoryOfTheStreamIsGivenBackWhereAKernelFails) {
  const auto move = [&] { lerp({{x.view(true)}}, {{dx.view(true)}}, 0.5, named({"w"})); };
  capture(true);
  calls();
  fail("failed:1");  // the table is sent, the kernel fails
  EXPECT_NE(message(move).find("emulated failure"), std::string::npos);
  EXPECT_EQ(calls("release"), (Lines{"release 0 0x0"}));
}

TEST_F(CudaCalls, TablesThatComeAgainAreKeptUnlessTheirKernelFails) {
  const cuda::Stream on(reinterpret_cast<void*>(0x5150), device);  // a stream of this test's
  const auto move = [&] { lerp({{x.view(true)}}, {{dx.view(true)}}, 0.5, named({"w"})); };
  calls();
  move();
  EXPECT_EQ(calls("allocate launch"), (Lines{"allocate 0 0x0", "launch 0 0x5150", "launch 0 0x5150"}));
  move();
  EXPECT_EQ(calls(), (Lines{"launch 0 0x5150"}));
  fail("failed");
  EXPECT_NE(message(move).find("emulated failure"), std::string::npos);
  EXPECT_EQ(calls("free"), (Lines{"free 0 0x0"}));
  fail(nullptr);
  move();
  EXPECT_EQ(calls("allocate launch"), (Lines{"allocate 0 0x0", "launch 0 0x5150", "launch 0 0x5150"}));
}

// The emulation refuses a launch in a capture of what nothing in the process has loaded before: ctest gives each test
// one.
TEST_F(Cuda, AFirstLerpInACaptureHasItsKernelsLoaded) {
  Twin x(DType::float32, {3000}, {}, 1), dx(DType::float32, {3000}, {}, 2);
  setenv("OPTIMISERS_EMULATED_CAPTURE", "1", 1);
  EXPECT_NO_THROW(lerp({{x.view(true)}}, {{dx.view(true)}}, 0.5, named({"w"})));
  unsetenv("OPTIMISERS_EMULATED_CAPTURE");
}

}  // namespace
}  // namespace optimisers::test
