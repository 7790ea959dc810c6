// combine.hpp: from the sums of leaves to their norms, each leaf's own or one for a set, and what norms refuse.
#pragma once
#include <bit>

#include "program.hpp"

namespace optimisers::inline OPT_ABI::cuda {

struct Combine {
  using Table = CombineTable;
  static constexpr int folds = std::bit_width(unsigned(norms::sum_lanes)) - 1;  // phases, of half as many lanes each
  static constexpr int threads = combine_threads, phases = 5 + folds;

  struct Shared {
    double lane[norms::sum_lanes];
    double norm, p;
    std::uint32_t guilty, measured, scaled;
  };

  template <int Phase>
  OPT_FN static void run(const Table& t, Shared& s, unsigned, int thread) {
    if constexpr (Phase == 0) {
      if (thread == 0) {
        s.guilty = none;
        s.measured = s.scaled = 1;  // lowered to 0 by those who have, and who are
        s.p = order_of(t.members[0]);
      }
    } else if constexpr (Phase == 1) {
      if (t.shared_norm) add_lane(t, s, thread);
    } else if constexpr (Phase < 2 + folds) {
      constexpr int width = norms::sum_lanes >> (Phase - 1);
      if (t.shared_norm && s.scaled != 0 && thread < width)
        s.lane[thread] = norms::combine(norms::measure_of(s.p), s.lane[thread], s.lane[thread + width]);
    } else if constexpr (Phase == 2 + folds) {
      if (t.shared_norm && thread == 0) s.norm = shared_norm(t, s);
    } else if constexpr (Phase == 3 + folds) {
      for (std::uint32_t i = std::uint32_t(thread); i < t.count; i += threads) end_member(t, s, i);
    } else {
      if (thread == 0) judge(t, s);
    }
  }

 private:
  static constexpr std::uint32_t none = ~0u;

  OPT_FN static norms::Sum sum_of(const Member& m) {
    if (m.size == 0 || m.total->stopped) return {0, 1, true};
    return m.total->sum;
  }
  template <class F>
  OPT_FN static void with_rule(const Member& m, F&& f) {
    pick<AllRules>(m.rule_index, [&]<class R>(R*) {
      if constexpr (ReducingRule<R>) f(*reinterpret_cast<const R*>(m.rule));
    });
  }
  OPT_FN static double order_of(const Member& m) {
    double p = 2;
    with_rule(m, [&](const auto& rule) { p = rule.norm().p; });
    return p;
  }

  OPT_FN static void add_lane(const Table& t, Shared& s, int thread) {
    const norms::Measure m = norms::measure_of(s.p);
    double lane = norms::neutral(m);
    for (std::uint32_t k = t.lane_start[thread]; k < t.lane_start[thread + 1]; ++k) {
      const norms::Sum sum = sum_of(t.members[t.by_lane[k]]);
      if (sum.empty) continue;
      lower(&s.measured, 0);
      if (sum.scale != 1) lower(&s.scaled, 0);
      lane = norms::combine(m, lane, sum.total);
    }
    s.lane[thread] = lane;
  }

  OPT_FN static double shared_norm(const Table& t, Shared& s) {
    if (s.measured != 0) return 0;
    const norms::Measure m = norms::measure_of(s.p);
    if (s.scaled != 0) {
      const double total = s.lane[0];
      if (!norms::is_sum(m) || total - total == 0) return norms::norm_of(s.p, total, 1);
    }
    return norms::combined_norm(
        s.p, std::int64_t(t.count), [&](std::int64_t i) { return sum_of(t.members[i]); },
        [&](std::int64_t i) { return int(t.members[i].leaf % norms::sum_lanes); }, s.lane);
  }

  OPT_FN static void end_member(const Table& t, Shared& s, std::uint32_t i) {
    const Member& m = t.members[i];
    if (m.size != 0 && m.total->stopped) return;
    const double norm = t.shared_norm ? s.norm : own_norm(m);
    *m.norm = norm;
    with_rule(m, [&](const auto& rule) {
      if (rule.rejects(norm)) lower(&s.guilty, i);
    });
  }
  OPT_FN static double own_norm(const Member& m) {
    const norms::Sum sum = sum_of(m);
    return sum.empty ? 0 : norms::norm_of(order_of(m), sum.total, sum.scale);
  }

  OPT_FN static void judge(const Table& t, Shared& s) {
    const bool refuses = s.guilty != none;
    t.verdict->refused = (t.first ? 0u : t.verdict->refused) | (refuses ? 1u : 0u);
    if (!refuses) return;
    std::uint32_t blamed = s.guilty;
    if (t.shared_norm)  // the first whose own norm is not finite
      for (std::uint32_t i = 0; i < t.count; ++i) {
        const double own = own_norm(t.members[i]);
        if (!(own - own == 0)) {
          blamed = i;
          break;
        }
      }
    t.report->place = std::uint64_t(t.members[blamed].leaf) * stage_limit + std::uint64_t(t.members[blamed].stage);
    t.report->norm = *t.members[s.guilty].norm;
    publish();
    t.report->refusals += 1;
  }
};

}  // namespace optimisers::inline OPT_ABI::cuda
