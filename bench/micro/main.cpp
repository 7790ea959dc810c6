// main.cpp: kernel_bench [--only TEXT] [--place cache|memory] [--rounds N] [--cache-kib N] [--memory-mib N] [--list]
// Times the kernels one by one and prints a line of JSON for each: nanoseconds an element, quartiles over the rounds.
// TEXT is found in "kernel/form/type" from the beginning of a word, as in --only Adam/last/float32; several are
// separated by commas.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "kernels.hpp"
#include "timing.hpp"

namespace bench {
namespace {

struct Arguments {
  std::string only, place;
  Settings settings;
  double cache_kib = 24, memory_mib = 256;  // all arrays of a kernel together
  bool list = false;
};

[[noreturn]] void usage(const char* problem) {
  std::fprintf(stderr,
               "kernel_bench: %s\nusage: kernel_bench [--only TEXT] [--place cache|memory] [--rounds N] "
               "[--cache-kib N] [--memory-mib N] [--list]\n",
               problem);
  std::exit(2);
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string_view key = argv[i];
    if (key == "--list") {
      a.list = true;
      continue;
    }
    if (i + 1 == argc) usage("an argument lacks its value");
    const char* value = argv[++i];
    if (key == "--only") a.only = value;
    else if (key == "--place") a.place = value;
    else if (key == "--rounds") a.settings.rounds = std::max(1, std::atoi(value));
    else if (key == "--cache-kib") a.cache_kib = std::atof(value);
    else if (key == "--memory-mib") a.memory_mib = std::atof(value);
    else usage("unknown argument");
  }
  if (!a.place.empty() && a.place != "cache" && a.place != "memory") usage("--place takes cache or memory");
  return a;
}

bool wanted(const Group& group, const std::string& only) {
  if (only.empty()) return true;
  const std::string title = group.kernel + "/" + group.form + "/" + group.type;
  const auto begins_word = [&](std::size_t at) { return at == 0 || title[at - 1] == '/' || title[at - 1] == ' '; };
  const auto holds = [&](const std::string& text) {
    std::size_t at = title.find(text);
    while (at != std::string::npos && !begins_word(at)) at = title.find(text, at + 1);
    return at != std::string::npos;
  };
  for (std::size_t begin = 0; begin <= only.size();) {
    const std::size_t end = std::min(only.find(',', begin), only.size());
    if (end > begin && holds(only.substr(begin, end - begin))) return true;
    begin = end + 1;
  }
  return false;
}

void print(const Group& g, const Kernel& k, const char* place, std::int64_t n, const Quartiles& q) {
  const double ns = 1e9 / double(n);
  std::printf(R"({"kernel": "%s", "form": "%s", "type": "%s", "level": "%s", "of": "%s", "place": "%s", "n": %lld, )"
              R"("bytes": %d, "ns": %.4f, "q1": %.4f, "q3": %.4f, "gb_per_s": %.2f})"
              "\n",
              g.kernel.c_str(), g.form.c_str(), g.type.c_str(), k.level.c_str(), k.of.c_str(), place, (long long)n,
              g.bytes, q.median * ns, q.q1 * ns, q.q3 * ns, g.bytes * double(n) / q.median * 1e-9);
}

void run(const Group& group, Memory& memory, const char* place, double bytes, const Settings& settings) {
  constexpr std::int64_t unit = 64;
  const auto n = std::max(unit, std::int64_t(bytes / (group.largest * group.arrays)) / unit * unit);
  memory.fill(group.doubles, std::size_t(n * group.largest));
  std::vector<std::function<void()>> runs;
  for (const Kernel& k : group.kernels) runs.push_back([&] { k.run(memory, n); });
  const auto results = compare(runs, settings);
  for (std::size_t i = 0; i < results.size(); ++i) print(group, group.kernels[i], place, n, results[i]);
  std::fflush(stdout);
}

// Middle stages and conversions only ever run on blocks in the cache.
bool streams(const Group& group) { return group.form == "last" || group.form == "norm"; }

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  using namespace bench;
  const Arguments args = parse(argc, argv);
  std::vector<Group> groups;
  for (Group& g : all_groups())
    if (wanted(g, args.only)) groups.push_back(std::move(g));
  if (groups.empty()) usage("--only matches no kernel; --list shows them");
  if (args.list) {
    for (const Group& g : groups) std::printf("%s/%s/%s\n", g.kernel.c_str(), g.form.c_str(), g.type.c_str());
    return 0;
  }
  constexpr double kib = 1024, mib = 1024 * 1024;
  if (args.place != "memory") {
    Memory memory(std::size_t(args.cache_kib * kib) + 16 * 1024);
    for (const Group& g : groups) run(g, memory, "cache", args.cache_kib * kib, args.settings);
  }
  if (args.place != "cache") {
    Memory memory(std::size_t(args.memory_mib * mib));
    for (const Group& g : groups)
      if (streams(g)) run(g, memory, "memory", args.memory_mib * mib, args.settings);
  }
}
