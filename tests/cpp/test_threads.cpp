// test_threads.cpp: dealing parts to threads: each runs once, whoever is late, and stays where it belongs if it must.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "optimisers/made_once.hpp"
#include "optimisers/threads.hpp"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace optimisers {
namespace {

class Threads : public testing::Test {
 protected:
  void TearDown() override { set_num_threads(before_); }
  const int before_ = get_num_threads();
};

TEST_F(Threads, EachPartRunsOnce) {
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    for (int round = 0; round < 300; ++round)
      for (const Deal deal : {Deal::taken, Deal::fixed}) {
        const int parts = 1 + round % 41;
        std::vector<std::atomic<int>> runs(std::size_t(parts) + 1);
        parallel(parts, [&](int part) { ++runs[std::size_t(part)]; }, deal);
        for (int part = 0; part < parts; ++part) ASSERT_EQ(runs[std::size_t(part)], 1) << part << " of " << parts;
        ASSERT_EQ(runs.back(), 0);
      }
  }
}

// Whoever comes to part 4 stays there until all others have run, so that somebody else must run them.
TEST_F(Threads, PartsOfAThreadThatIsHeldUpAreTaken) {
  set_num_threads(2);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> others{0};
    parallel(8, [&](int part) {
      if (part != 4) ++others;
      else
        while (others != 7) std::this_thread::yield();
    });
    EXPECT_EQ(others, 7);
  }
}

TEST_F(Threads, FixedPartsStayWithTheirThread) {
  set_num_threads(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::thread::id> ids(9);
    parallel(9, [&](int part) { ids[std::size_t(part)] = std::this_thread::get_id(); }, Deal::fixed);
    for (std::size_t part = 0; part < 9; ++part) EXPECT_EQ(ids[part], ids[part / 3 * 3]);
    EXPECT_EQ(ids[0], std::this_thread::get_id());
    EXPECT_TRUE(ids[0] != ids[3] && ids[3] != ids[6] && ids[0] != ids[6]);
  }
}

// A program's own threads are asked for as many parts as there are threads, whatever the work is cut into.
TEST_F(Threads, AnExecutorGetsOnePartAThread) {
  struct Host {
    int asked = 0;
    static void run(void* self, int parts, void (*part)(void*, int), void* context) {
      static_cast<Host*>(self)->asked = parts;
      for (int i = parts; i-- > 0;) part(context, i);
    }
  } host;
  set_executor({Host::run, &host, 3});
  std::vector<int> runs(50);
  parallel(50, [&](int part) { ++runs[std::size_t(part)]; });
  set_executor({});
  EXPECT_EQ(host.asked, 3);
  EXPECT_EQ(runs, std::vector<int>(50, 1));
}

#if defined(__unix__)
// What the library makes at its first use may be half made in another thread when the process forks.
TEST(FirstUse, AForkInTheMiddleOfItLeavesNoLockBehind) {
  static std::atomic<bool> begun{false};
  const auto value = []() -> const int& {
    return detail::made_once([] {
      if (!begun.exchange(true)) std::this_thread::sleep_for(std::chrono::milliseconds(200));
      return 7;
    });
  };
  std::thread first([&] { EXPECT_EQ(value(), 7); });
  while (!begun) std::this_thread::yield();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(value() == 7 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  first.join();
  EXPECT_EQ(&value(), &value());
}
#endif

}  // namespace
}  // namespace optimisers
