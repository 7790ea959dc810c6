// fuzz_c_api.cpp SECONDS [SEED]: random rules, layouts, arrays and calls through the C interface, right and wrong ones.
// The same seed makes the same calls; each round's seed is printed when it fails. Meant to run under sanitizers.
//
// What must hold whatever is called: no crash; a failed call has changed no parameter, slot or clock; a parameter
// whose leaf is frozen or got no gradient keeps its bytes; the bytes around every array keep theirs.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "optimisers/optimisers.h"

namespace {

std::uint64_t round_seed = 0;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz_c_api: %s; last error: %s; repeat with: optimisers_fuzz 0 %llu\n", what,
               optimisers_last_error(), static_cast<unsigned long long>(round_seed));
  std::abort();
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : bits_(seed) {}
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(bits_() % static_cast<std::uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  double number() {
    switch (below(12)) {
      case 0:
        return 0;
      case 1:
        return INFINITY;
      case 2:
        return NAN;
      case 3:
        return 1e308;
      case 4:
        return -1e-320;
      default:
        return double(below(2001) - 1000) / 300.0;
    }
  }
  template <std::size_t N>
  const char* one_of(const char* const (&list)[N]) {
    return list[below(std::int64_t(N))];
  }

 private:
  std::mt19937_64 bits_;
};

constexpr std::int64_t item_sizes[] = {2, 2, 4, 8, 8, 16};
constexpr std::size_t fence = 64;

// An array at any alignment behind a fence. Half of them have one behind them too, which tells of writes in any build;
// the others end with their memory, so that AddressSanitizer tells of reads as well.
struct Memory {
  std::vector<unsigned char> bytes;
  std::size_t start = 0, length = 0;
  optimisers_array array{};

  Memory(Random& random, std::int64_t size, std::int32_t dtype, bool finite) {
    length = std::size_t(size * item_sizes[dtype]);
    start = fence + std::size_t(random.chance(70) ? 0 : random.below(16));
    bytes.assign(length + start + (random.chance(50) ? fence : 0), 0xa5);
    for (std::size_t i = 0; i < length; ++i)
      bytes[start + i] = finite ? 0 : static_cast<unsigned char>(random.below(256));
    if (!finite && dtype == OPTIMISERS_FLOAT32)
      for (std::size_t i = 0; i + 4 <= length; i += 4) {
        const float f = static_cast<float>(random.number());
        std::memcpy(bytes.data() + start + i, &f, 4);
      }
    array = {bytes.data() + start, size, dtype, 0, nullptr, nullptr};
  }
  bool fences_hold() const {
    for (std::size_t i = 0; i < bytes.size(); ++i)
      if ((i < start || i >= start + length) && bytes[i] != 0xa5) return false;
    return true;
  }
};

std::string number_text(Random& random) {
  static const char* const odd[] = {"-1",     "inf",  "nan",   "1e400", "0",     "",
                                    "1e-400", "0x10", "1.2.3", "True",  "(1,2)", "'leaf'"};
  if (random.chance(15)) return random.one_of(odd);
  return std::to_string(double(random.below(1000)) / 1000.0);
}

std::string rule_text(Random& random, int depth) {
  static const char* const names[] = {"Descent",
                                      "Momentum",
                                      "Nesterov",
                                      "Rprop",
                                      "RMSProp",
                                      "Adam",
                                      "AdamW",
                                      "RAdam",
                                      "NAdam",
                                      "AdaMax",
                                      "AMSGrad",
                                      "OAdam",
                                      "AdaBelief",
                                      "AdaGrad",
                                      "AdaDelta",
                                      "Lion",
                                      "WeightDecay",
                                      "SignDecay",
                                      "ClipGrad",
                                      "ClipNorm",
                                      "Adan(lambda=0.1)",
                                      "AdEMAMix(warmup=3)",
                                      "ADOPT",
                                      "Box((0, 0.5))",
                                      "Grams",
                                      "Lookahead(2)",
                                      "ScheduleFree(0.9, 3)",
                                      "ZeroNonFinite",
                                      "AccumGrad(2)",
                                      "RMSProp(centred=True)",
                                      "ClipNorm(1, scope='global')",
                                      "ClipNorm(0.1, 3, False)",
                                      "ClipNorm(2, -inf, throw=False)"};
  static const char* const fields[] = {"eta", "rho", "epsilon", "lambda_", "omega", "delta", "n", "nonsense"};
  if (random.chance(2)) return std::string("Ad\xc3\xa4m((") + number_text(random);
  if (depth < 3 && random.chance(40)) {
    std::string chain = random.chance(5) ? "MixedPrecision(" : "OptimiserChain(";
    for (std::int64_t i = random.below(5); i >= 0; --i) chain += rule_text(random, depth + 1) + (i > 0 ? ", " : "");
    return chain + ")";
  }
  std::string rule = random.one_of(names);
  if (rule.back() == ')' || random.chance(50)) return rule;
  return rule + "(" + (random.chance(50) ? std::string(random.one_of(fields)) + "=" : "") + number_text(random) + ")";
}

// One model with its state and everything that can be asked of it.
class Round {
 public:
  explicit Round(std::uint64_t seed) : random_(seed) {}
  ~Round() { optimisers_destroy(state_); }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;

  void run() {
    make_model();
    std::string rule = rule_text(random_, 0);
    if (random_.chance(20)) rule = "MixedPrecision(" + rule + (random_.chance(50) ? ", 'float64')" : ")");
    const optimisers_status made = optimisers_create(rule.c_str(), arrays_.data(), arrays_.size(), nullptr, &state_);
    require((made == OPTIMISERS_OK) == (state_ != nullptr), "status and handle disagree");
    if (state_ == nullptr) return require(optimisers_last_error()[0] != '\0', "a failure without a message");
    for (int step = 0; step < 12; ++step) {
      one_call();
      for (const Memory& m : x_) require(m.fences_hold(), "bytes beside a parameter were written");
    }
  }

 private:
  void make_model() {
    const std::int64_t leaves = random_.below(7);
    const bool one_type = random_.chance(70);
    const auto type = static_cast<std::int32_t>(random_.below(6));
    for (std::int64_t i = 0; i < leaves; ++i) {
      const std::int64_t sizes[] = {0, 1, 3, random_.below(40), random_.below(1200), 513};
      x_.emplace_back(random_, sizes[random_.below(6)], one_type ? type : static_cast<std::int32_t>(random_.below(6)),
                      false);
      names_.push_back(random_.chance(3) ? "leaf" : "part." + std::to_string(i));
    }
    for (std::size_t i = 0; i < x_.size(); ++i) {
      arrays_.push_back(x_[i].array);
      arrays_.back().name = random_.chance(80) ? names_[i].c_str() : nullptr;
    }
    if (!arrays_.empty() && random_.chance(3)) arrays_.back() = arrays_.front();  // the same array twice
    if (!arrays_.empty() && random_.chance(3)) arrays_.front().dtype = 6 + static_cast<std::int32_t>(random_.below(20));
  }

  // Everything a failed call must leave alone.
  std::vector<unsigned char> snapshot() const {
    std::vector<unsigned char> all;
    const auto add = [&](const void* data, std::size_t bytes) {
      const auto* p = static_cast<const unsigned char*>(data);
      if (bytes > 0) all.insert(all.end(), p, p + bytes);
    };
    for (const Memory& m : x_) add(m.bytes.data(), m.bytes.size());
    for (std::int64_t leaf = 0; leaf < optimisers_leaf_count(state_); ++leaf) {
      optimisers_leaf info{};
      info.struct_size = sizeof info;
      require(optimisers_get_leaf(state_, leaf, &info) == OPTIMISERS_OK, "a leaf cannot be read");
      optimisers_slot slot{};
      slot.struct_size = sizeof slot;
      if (info.has_master && optimisers_get_master(state_, leaf, &slot) == OPTIMISERS_OK)
        add(slot.data, std::size_t(slot.size * item_sizes[slot.dtype]));
      for (std::int32_t s = 0; s < info.stages; ++s) {
        optimisers_stage stage{};
        stage.struct_size = sizeof stage;
        require(optimisers_get_stage(state_, leaf, s, &stage) == OPTIMISERS_OK, "a stage cannot be read");
        for (std::int32_t k = 0; k < stage.slots; ++k) {
          require(optimisers_get_slot(state_, leaf, s, k, &slot) == OPTIMISERS_OK, "a slot cannot be read");
          add(slot.data, std::size_t(slot.size * item_sizes[slot.dtype]));
        }
        for (std::int32_t k = 0; k < stage.clocks; ++k) {
          double clock = 0;
          require(optimisers_get_clock(state_, leaf, s, k, nullptr, &clock) == OPTIMISERS_OK, "a clock cannot be read");
          add(&clock, sizeof clock);
        }
      }
    }
    return all;
  }

  void one_call() {
    switch (random_.below(10)) {
      case 0:
        return adjust();
      case 1:
        return freeze();
      case 2:
        return read_out_of_range();
      case 3:
        return copy();
      default:
        return update();
    }
  }

  void adjust() {
    static const char* const fields[] = {
        "eta=0.01", "beta=(0.5, 0.75)", "eta=-1", "omega=2, p=1", "centred=True", "n=3", "x", "", "lambda=1e-3"};
    const auto before = snapshot();
    const std::int64_t leaf = random_.below(9) - 2;
    if (random_.chance(50)) (void)optimisers_adjust_text(state_, leaf, random_.one_of(fields));
    else (void)optimisers_adjust(state_, leaf, random_.chance(80) ? "eta" : "rho", random_.number());
    require(snapshot() == before, "adjust touched an array or a clock");
  }

  void freeze() { (void)optimisers_freeze(state_, random_.below(9) - 1, static_cast<std::int32_t>(random_.below(2))); }

  void read_out_of_range() {
    optimisers_slot slot{};
    slot.struct_size = sizeof slot;
    double values[2];
    std::int32_t count = 0;
    std::int64_t index = 0;
    const auto any = [&] { return static_cast<std::int32_t>(random_.below(9) - 3); };
    (void)optimisers_get_slot(state_, any(), any(), any(), &slot);
    (void)optimisers_get_clock(state_, any(), any(), any(), nullptr, values);
    (void)optimisers_get_field(state_, any(), any(), "eta", values, &count);
    (void)optimisers_find_leaf(state_, "part.1", &index);
  }

  void copy() {
    optimisers_state* twin = nullptr;
    require(optimisers_copy(state_, &twin) == OPTIMISERS_OK, "a state cannot be copied");
    std::swap(twin, state_);
    optimisers_destroy(twin);
  }

  void update() {
    std::vector<Memory> gradients;
    std::vector<optimisers_array> dx;
    std::vector<bool> untouched;
    for (std::size_t i = 0; i < x_.size(); ++i) {
      const optimisers_array& a = x_[i].array;
      const bool other = random_.chance(20);
      const std::int64_t size = random_.chance(2) ? a.size + 1 : a.size;
      gradients.emplace_back(random_, size, other ? static_cast<std::int32_t>(random_.below(6)) : a.dtype,
                             random_.chance(50));
      dx.push_back(gradients.back().array);
      if (random_.chance(10)) dx.back().data = nullptr;
      if (random_.chance(3)) dx.back() = a;  // its own parameter
      if (random_.chance(2)) dx.back() = x_[std::size_t(random_.below(std::int64_t(x_.size())))].array;  // somebody's
      if (random_.chance(1)) dx.back().dtype = -1;
      optimisers_leaf info{};
      info.struct_size = sizeof info;
      (void)optimisers_get_leaf(state_, std::int64_t(i), &info);
      untouched.push_back(info.frozen != 0);
    }
    std::vector<optimisers_array> x = arrays_;
    if (!x.empty() && random_.chance(2)) x.pop_back();
    const auto before = snapshot();
    std::vector<std::vector<unsigned char>> parameters, given;
    for (const Memory& m : x_) parameters.push_back(m.bytes);
    for (const Memory& m : gradients) given.push_back(m.bytes);
    const optimisers_update_options options{sizeof options, 1, nullptr, nullptr,
                                            static_cast<std::int32_t>(random_.below(4))};
    const optimisers_status status = optimisers_update_with(state_, x.data(), x.size(), dx.data(), dx.size(),
                                                            random_.chance(30) ? &options : nullptr);
    if (status != OPTIMISERS_OK) return require(snapshot() == before, "a failed update changed something");
    for (std::size_t i = 0; i < x_.size(); ++i)
      if (untouched[i]) require(x_[i].bytes == parameters[i], "a frozen leaf was written");
    for (std::size_t i = 0; i < gradients.size(); ++i)
      require(gradients[i].bytes == given[i], "a gradient was written");
    ++updates;
    if (random_.chance(10)) flush();
  }

  void flush() {
    const auto before = snapshot();
    optimisers_seen seen{};
    seen.struct_size = sizeof seen;
    if (optimisers_flush(state_, arrays_.data(), arrays_.size()) != OPTIMISERS_OK)
      require(snapshot() == before, "a failed flush changed something");
    require(optimisers_get_seen(state_, &seen) == OPTIMISERS_OK && seen.skipped >= 0, "what was seen cannot be read");
  }

  Random random_;
  std::vector<Memory> x_;
  std::vector<std::string> names_;
  std::vector<optimisers_array> arrays_;
  optimisers_state* state_ = nullptr;

 public:
  static std::int64_t updates;
};
std::int64_t Round::updates = 0;

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  std::printf("fuzz_c_api: %g seconds from seed %llu\n", seconds, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t rounds = 0;
  do {
    round_seed = seed + rounds++;
    Round(round_seed).run();
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
  std::printf("fuzz_c_api: %llu rounds, %lld updates went through, last seed %llu\n",
              static_cast<unsigned long long>(rounds), static_cast<long long>(Round::updates),
              static_cast<unsigned long long>(round_seed));
  return 0;
}
