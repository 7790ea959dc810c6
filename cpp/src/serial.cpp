// serial.cpp: threads.hpp without threads, for systems that have none (OPTIMISERS_THREADS=OFF). A host's executor still
// gets its parts; set it before the first call.
#include <algorithm>
#include <cstdint>
#include <string>

#include "environment.hpp"
#include "optimisers/error.hpp"
#include "optimisers/threads.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

constexpr int max_threads = 1024;
constinit Executor current;

struct Ranges {
  int parts, count;
  void (*run)(void*, int);
  void* context;
  static void run_range(void* self, int index) {
    const DefaultFloats floats;
    const Ranges& r = *static_cast<const Ranges*>(self);
    const auto begin = [&](int i) { return int(std::int64_t(r.parts) * i / r.count); };
    for (int part = begin(index); part < begin(index + 1); ++part) r.run(r.context, part);
  }
};

void check(const char* call, int threads) {
  if (threads < 1 || threads > max_threads)
    throw Error(ErrorKind::value,
                std::string(call) + ": expected threads from 1 to 1024, got " + std::to_string(threads));
}

}  // namespace

int get_num_threads() { return current.run != nullptr ? current.threads : 1; }

void set_num_threads(int threads) {
  check("set_num_threads", threads);
  if (threads > 1)
    throw Error(ErrorKind::value, "set_num_threads: the library was built without threads (OPTIMISERS_THREADS=OFF)");
}

void shutdown_threads() {}

void set_executor(const Executor& executor) {
  check("set_executor", executor.threads);
  current = executor;
}

void detail::parallel(int parts, Deal, void (*run)(void*, int), void* context) {
  if (current.run != nullptr && parts > 1) {
    Ranges ranges{parts, std::min(parts, current.threads), run, context};
    return current.run(current.self, ranges.count, Ranges::run_range, &ranges);
  }
  for (int part = 0; part < parts; ++part) run(context, part);
}

}  // namespace optimisers::inline OPT_ABI
