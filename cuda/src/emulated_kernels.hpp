// emulated_kernels.hpp: a kernel as a loop over its blocks, phases and threads; or many blocks at once in any order; or
// on threads of the host, for a sanitizer to watch. For emulation.cpp alone.
#pragma once
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/list.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// A block under way: its shared memory, and how far its threads are.
template <class K>
struct Block {
  explicit Block(unsigned n) : number(n) {
    std::memset(memory, 0xa5, sizeof memory);  // what is read before it is written is not zero by luck
  }
  alignas(64) std::byte memory[sizeof(typename K::Shared)];
  unsigned number;
  int phase = 0, done = 0;  // threads that are through the phase
  int first = 0, stride = 1;

  // Some threads go on, none past the end of the phase.
  void run(const typename K::Table& t, int count) {
    const int end = std::min(done + count, K::threads);
    run_threads(t, phase, done, end, 1);
    done = end;
    if (done < K::threads) return;
    ++phase;
    done = 0;
  }

  // Every step-th thread from `from` on, in one phase.
  void run_threads(const typename K::Table& t, int in_phase, int from, int to, int step) {
    run_in(t, in_phase, from, to, step, std::make_integer_sequence<int, K::phases>{});
  }

 private:
  template <int... P>
  void run_in(const typename K::Table& t, int in_phase, int from, int to, int step, std::integer_sequence<int, P...>) {
    static_assert((K::threads & (K::threads - 1)) == 0);  // so that any odd stride comes to every thread
    auto& shared = *reinterpret_cast<typename K::Shared*>(memory);
    const auto in = [&]<int Phase>(std::integral_constant<int, Phase>) {
      for (int i = from; i < to; i += step)
        K::template run<Phase>(t, shared, number, (first + i * stride) & (K::threads - 1));
    };
    ((in_phase == P ? in(std::integral_constant<int, P>{}) : void()), ...);
  }
};

// OPTIMISERS_EMULATED_ORDER=NUMBER: not block after block and thread after thread, but many blocks at once, a few
// threads of one and then of another, in an order drawn from the number: as the hardware may, in steps of a thread's
// phase. Barriers that are missing, and blocks that do not wait for each other where they must, show in the results.
template <class K>
void run_in_any_order(const typename K::Table& t, unsigned blocks, unsigned number) {
  constexpr std::size_t at_once = 16;
  static std::atomic<unsigned> launches{0};
  std::mt19937 random(number + 1000003u * launches.fetch_add(1));
  const auto below = [&](std::size_t n) { return int(random() % n); };
  std::vector<std::unique_ptr<Block<K>>> under_way;
  for (unsigned next = 0; next < blocks || !under_way.empty();) {
    if (next < blocks && (under_way.empty() || (under_way.size() < at_once && below(2) == 0)))
      under_way.push_back(std::make_unique<Block<K>>(next++));
    const auto chosen = under_way.begin() + below(under_way.size());
    Block<K>& block = **chosen;
    if (block.done == 0) {
      block.first = below(K::threads);
      block.stride = 2 * below(K::threads) + 1;
    }
    block.run(t, 1 + below(K::threads));
    if (block.phase == K::phases) under_way.erase(chosen);
  }
}

// OPTIMISERS_EMULATED_THREADS=NUMBER: two blocks at once, each on so many threads of the host with a barrier between
// the phases. A thread of the host takes every NUMBER-th of the block's: neighbours never share one.
template <class K>
void run_on_threads(const typename K::Table& t, unsigned blocks, int number) {
  constexpr unsigned at_once = 2;
  for (unsigned next = 0; next < blocks; next += at_once) {
    std::vector<std::unique_ptr<Block<K>>> pair;
    std::vector<std::unique_ptr<std::barrier<>>> barriers;
    std::vector<std::thread> threads;
    for (unsigned b = next; b < std::min(blocks, next + at_once); ++b) {
      pair.push_back(std::make_unique<Block<K>>(b));
      barriers.push_back(std::make_unique<std::barrier<>>(number));
      for (int i = 0; i < number; ++i)
        threads.emplace_back([&t, number, i, &block = *pair.back(), &barrier = *barriers.back()] {
          for (int phase = 0; phase < K::phases; ++phase) {
            block.run_threads(t, phase, i, K::threads, number);
            barrier.arrive_and_wait();
          }
        });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

template <class K>
void run_kernel(const typename K::Table& t, unsigned blocks) {
  if (const char* threads = std::getenv("OPTIMISERS_EMULATED_THREADS"))
    return run_on_threads<K>(t, blocks, int(std::strtol(threads, nullptr, 10)));
  if (const char* order = std::getenv("OPTIMISERS_EMULATED_ORDER"))
    return run_in_any_order<K>(t, blocks, unsigned(std::strtoul(order, nullptr, 10)));
  for (unsigned b = 0; b < blocks; ++b)
    for (Block<K> block(b); block.phase < K::phases;) block.run(t, K::threads);
}

// A launch with its argument, to run now or later.
using Work = std::function<void()>;
template <class K>
Work launch_of(const void* table, unsigned blocks) {
  return [t = *static_cast<const typename K::Table*>(table), blocks] { run_kernel<K>(t, blocks); };
}
template <class K>
void run_now(const void* table, unsigned blocks) {
  run_kernel<K>(*static_cast<const typename K::Table*>(table), blocks);
}

}  // namespace optimisers::inline OPT_ABI::cuda
