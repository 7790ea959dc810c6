// timing.hpp: times things that are to be compared in turn, round after round, so that whatever else the machine
// does falls on all alike.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

namespace bench {

struct Settings {
  int rounds = 7;
  double seconds = 2e-4;  // at least, for one sample
};

struct Quartiles {
  double q1, median, q3;  // seconds
  double least = 0;       // what the machine does else only adds
};

inline double seconds_of(const std::function<void()>& run, long times) {
  const auto start = std::chrono::steady_clock::now();
  for (long i = 0; i < times; ++i) run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline Quartiles quartiles(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    const double position = share * double(samples.size() - 1);
    const auto below = std::size_t(position), above = std::min(below + 1, samples.size() - 1);
    return samples[below] + (position - double(below)) * (samples[above] - samples[below]);
  };
  return {at(0.25), at(0.5), at(0.75), samples.front()};
}

// Seconds of one call of each.
inline std::vector<Quartiles> compare(const std::vector<std::function<void()>>& runs, const Settings& settings) {
  std::vector<long> times;
  for (const auto& run : runs) {
    run();
    const double once = std::max(seconds_of(run, 1), 1e-9);
    times.push_back(std::max(1L, long(settings.seconds / once)));
  }
  std::vector<std::vector<double>> samples(runs.size());
  for (int round = 0; round < settings.rounds; ++round)
    for (std::size_t i = 0; i < runs.size(); ++i)
      samples[i].push_back(seconds_of(runs[i], times[i]) / double(times[i]));
  std::vector<Quartiles> results;
  for (const auto& s : samples) results.push_back(quartiles(s));
  return results;
}

}  // namespace bench
