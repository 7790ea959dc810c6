#include "emulated_streams.hpp"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

namespace optimisers::inline OPT_ABI::cuda::streams {
namespace {

using Name = std::pair<int, const void*>;

struct Entry {
  Work work;
  std::shared_ptr<Event> awaited;  // and which record of it
  unsigned record = 0;
};

std::recursive_mutex mutex;
std::map<Name, std::deque<Entry>> queues;
std::vector<std::pair<Name, Work>> graph;
std::vector<Work> at_its_end;

const char* wanted() {
  static const char* const number = std::getenv("OPTIMISERS_EMULATED_DEFERRED");
  return number;
}

std::size_t below(std::size_t n) {
  static std::mt19937 random(unsigned(std::strtoul(wanted(), nullptr, 10)));
  return random() % n;
}

bool ready(const std::deque<Entry>& queue) {
  return !queue.empty() && (!queue.front().awaited || queue.front().awaited->passed >= queue.front().record);
}

// One entry of a stream drawn among those that can go on; false: none can.
bool step() {
  std::vector<Name> able;
  for (const auto& [name, queue] : queues)
    if (ready(queue)) able.push_back(name);
  if (able.empty()) return false;
  std::deque<Entry>& queue = queues[able[below(able.size())]];
  const Entry entry = std::move(queue.front());
  queue.pop_front();
  if (entry.work) entry.work();
  return true;
}

void drain_until(auto&& done) {
  while (!done())
    if (!step()) {
      std::fprintf(stderr, "emulation: streams wait for each other\n");
      std::abort();
    }
}

}  // namespace

bool deferred() { return wanted() != nullptr; }

void enqueue(int device, const void* stream, Work work) {
  if (!deferred()) return work();
  const std::lock_guard lock(mutex);
  queues[{device, stream}].push_back({.work = std::move(work), .awaited = nullptr});
}

void record(int device, const void* stream, const std::shared_ptr<Event>& event) {
  const std::lock_guard lock(mutex);
  enqueue(device, stream, [event, number = ++event->recorded] { event->passed = number; });
}

void await(int device, const void* stream, const std::shared_ptr<Event>& event) {
  const std::lock_guard lock(mutex);
  if (deferred()) queues[{device, stream}].push_back({.work = {}, .awaited = event, .record = event->recorded});
}

void drain(int device, const void* stream) {
  const std::lock_guard lock(mutex);
  const Name name{device, stream};
  if (queues.contains(name)) drain_until([&] { return queues[name].empty(); });
}

void drain() {
  const std::lock_guard lock(mutex);
  for (const auto& entry : queues) drain_until([&] { return entry.second.empty(); });
}

void go_on() {
  if (!deferred()) return;
  const std::lock_guard lock(mutex);
  for (std::size_t n = below(3); n > 0; --n) step();
}

void capture(int device, const void* stream, Work work) {
  const std::lock_guard lock(mutex);
  graph.emplace_back(Name{device, stream}, std::move(work));
}

void hold(Work work) {
  const std::lock_guard lock(mutex);
  at_its_end.push_back(std::move(work));
}

void replay() {
  const std::lock_guard lock(mutex);
  for (const auto& [name, work] : graph) enqueue(name.first, name.second, work);
}

void forget() {
  const std::lock_guard lock(mutex);
  drain();
  graph.clear();
  for (const Work& work : std::exchange(at_its_end, {})) work();
}

}  // namespace optimisers::inline OPT_ABI::cuda::streams
