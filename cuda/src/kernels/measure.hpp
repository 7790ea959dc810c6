// measure.hpp: the sum a norm is made of, of dx as it reaches a stage, in the order of norm_terms.hpp. Reads only.
#pragma once
#include "program.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// Stages: whether others run before the stage that measures. Without, arrays are read as a sweep reads them; with, in
// the one way that fits all.
template <class T_, Access A_, bool Stages_>
struct MeasureSums {
  using T = T_;
  using Table = MeasureTable;
  static constexpr Access access = A_;
  static constexpr bool with_stages = Stages_;
  // Neighbouring lanes of a thread: 8 bytes in one piece of 4-byte and of 2-byte elements. With 16 a chunk has half the
  // threads: an H200 took 31.8 us for a step behind a global ClipNorm at 10^6, 28.9 with 8; 116 and 110 at 10^7.
  static constexpr int V = access == Access::half || access == Access::bhalf || access == Access::any ? 4 : 2;
  static constexpr int threads = norms::rows * norms::lanes / V, phases = 8;  // a block is a chunk
  static_assert(norms::lanes % V == 0 && threads >= norms::rows);
  using Stages = BlockStages<Interpreted, real_t<T>>;

  struct Shared : LeafShared {
    double sum[norms::sum_lanes], extreme[norms::sum_lanes];
    norms::MeasureArgs args;
    norms::Measure measure;
    int stage;
    bool last;
  };

  template <int Phase>
  OPT_FN static void run(const Table& t, Shared& s, unsigned block, int thread) {
    if constexpr (Phase == 0) {
      bring_leaf(t.group, t.group.chunk_leaf[block], s, thread, threads);
    } else if constexpr (Phase == 1) {
      if (thread == 0) begin(t, s);
    } else if constexpr (Phase == 2) {
      if (s.active) add_elements(t, s, std::int64_t(block) - s.leaf.first_chunk, thread);
    } else if constexpr (Phase == 3) {
      if (s.active && thread < norms::rows) {
        s.sum[thread * norms::lanes] = norms::fold(s.measure, s.sum + thread * norms::lanes, norms::lanes);
        if (t.extremes) fold_extremes(s, s.extreme + thread * norms::lanes, norms::lanes);
      }
    } else if constexpr (Phase == 4) {
      if (s.active && thread == 0) end_chunk(t, s, block);
    } else if constexpr (Phase == 5) {
      if (s.active && s.last && s.leaf.chunks > 1) add_chunks(t, s, thread);
    } else if constexpr (Phase == 6) {
      if (s.active && s.last && s.leaf.chunks > 1 && thread < 16) gather(t, s, thread);
    } else {
      if (s.active && s.last && thread == 0) end_leaf(t, s);
    }
  }

 private:
  OPT_FN static norms::Measure extreme_of(const Shared& s) {
    return s.args.p < 0 ? norms::Measure::min_abs : norms::Measure::max_abs;
  }
  OPT_FN static void fold_extremes(Shared& s, double* lane, int count) { norms::fold(extreme_of(s), lane, count); }

  OPT_FN static void begin(const Table& t, Shared& s) {
    const GroupTable& g = t.group;
    s.active = false;
    const std::int8_t r = t.at[s.index];
    if (r < 0 || s.call.role == Role::absent || (g.stages[0].reducer == r) == with_stages) return;
    if (!with_stages && s.call.access != access) return;
    const Total before = t.totals[s.index];
    if (t.rescue && (before.stopped || before.safe)) return;
    const Stages stages{g, s.row, s.steps};
    s.course = {};
    bool runs = advance(stages, g.stage_count, s.call.role == Role::gradient, s.course, s.call.flush);
    s.stage = -1;
    for (int i = 0; i < g.stage_count; ++i)
      if (g.stages[i].reducer == r) s.stage = i;
    runs = runs && s.course.first <= s.stage && s.stage < s.course.end;
    if (!runs) {
      if (s.leaf.chunks == 1 || last_of(t.counted + s.index, s.leaf.chunks))
        t.totals[s.index] = {{0, 1, false}, 0, true, true};
      return;
    }
    for (int i = s.course.first; i < s.stage; ++i)
      if (const int earlier = g.stages[i].reducer; earlier >= 0)
        stages.finish(i, g.norms[std::int64_t(earlier) * g.leaf_count + s.index]);
    s.args = {1, stages.norm_order(s.stage)};
    s.measure = norms::measure_of(s.args.p);
    if (t.rescue) {
      s.args.inverse_scale = norms::rescue_scale(s.measure, before.extreme);
      if (s.args.inverse_scale == 1) return;  // nothing helps: it stays as it is
    }
    s.active = true;
  }

  OPT_FN static double term(const Shared& s, norms::Measure m, double so_far, T a) {
    switch (m) {
      case norms::Measure::sum_squares:
        return norms::accumulate<norms::Measure::sum_squares>(so_far, a, s.args);
      case norms::Measure::sum_abs:
        return norms::accumulate<norms::Measure::sum_abs>(so_far, a, s.args);
      case norms::Measure::max_abs:
        return norms::accumulate<norms::Measure::max_abs>(so_far, a, s.args);
      case norms::Measure::min_abs:
        return norms::accumulate<norms::Measure::min_abs>(so_far, a, s.args);
      default:
        return norms::accumulate<norms::Measure::sum_power>(so_far, a, s.args);
    }
  }

  static constexpr std::int64_t lanes = norms::lanes;
  // The kernels that fit all have no registers to spare for what their elements add up to.
  static constexpr bool in_registers = access != Access::any;
  struct Part {
    std::int64_t first, end;
  };
  // The elements of a thread: from `first` on every `lanes`-th V.
  OPT_FN static Part part_of(const Shared& s, std::int64_t chunk, int thread) {
    constexpr int parts = norms::lanes / V;  // threads of a row
    const std::int64_t row = chunk * norms::chunk + thread / parts * norms::row;
    return {row + std::int64_t(thread % parts) * V, row + norms::row < s.leaf.size ? row + norms::row : s.leaf.size};
  }

  // The usual norm, of contiguous arrays: nothing is decided in the loop, and much is on its way.
  template <bool Extremes>
  OPT_FN static void add_squares(const Table& t, const Shared& s, std::int64_t chunk, int thread, double* sum,
                                 double* extreme) {
    constexpr int ahead = access == Access::plain ? 64 / int(sizeof(T)) : 16;  // 128 bytes
    const norms::MeasureArgs args = s.args;
    const auto take = [&](T a, int v) {
      sum[v] = norms::accumulate<norms::Measure::sum_squares>(sum[v], a, args);
      if constexpr (Extremes) extreme[v] = norms::accumulate<norms::Measure::max_abs>(extreme[v], a, args);
    };
    const auto [first, end] = part_of(s, chunk, thread);
    std::int64_t i = first;
    if (s.dx.wide) {
      OPT_ROLLED
      for (; i + (ahead - 1) * lanes + V <= end; i += ahead * lanes) {
        decltype(Elements<access, T>::template raw_whole<V>(s.dx, i)) a[ahead];
        each<ahead>([&](int k) { a[k] = Elements<access, T>::template raw_whole<V>(s.dx, i + k * lanes); });
        each<ahead * V>([&](int n) { take(convert<T>(a[n / V].v[n % V]), n % V); });
      }
    }
    OPT_ROLLED
    for (; i < end; i += lanes) {
      const int count = end - i < V ? int(end - i) : V;
      T a[V];
      Elements<access, T>::template read<V>(s.dx, t.group.axes, i, count, a);
      each<V>([&](int v) {
        if (v < count) take(a[v], v);
      });
    }
  }

  // Any norm, of arrays of any kind, behind stages or not.
  OPT_FN static void add_terms(const Table& t, const Shared& s, std::int64_t chunk, int thread, double* sum,
                               double* extreme) {
    const norms::Measure far = extreme_of(s);
    // With one load a thread too little would be on its way: several are, and are added up in their order.
    constexpr int ahead = in_registers && sizeof(T) == 4 ? 4 : 1;  // wider elements are enough as they are
    const auto [first, end] = part_of(s, chunk, thread);
    OPT_ROLLED
    for (std::int64_t i = first; i < end; i += ahead * lanes) {
      Elementwise<access, T, V> e[ahead];
      int count[ahead];
      for (int k = 0; k < ahead; ++k) {
        const std::int64_t at = i + k * lanes;
        count[k] = at >= end ? 0 : end - at < V ? int(end - at) : V;
        e[k].read(t.group, s, at, count[k], with_stages && s.stage > s.course.first);
        if constexpr (with_stages)
          Interpreted::apply<false, T, V>(t.group, s.course.first, s.stage, s.steps, s.leaf.offset + at, count[k],
                                          e[k].x, e[k].dx);
      }
      const auto add = [&](int n) {
        const int k = n / V, v = n % V;
        if (v >= count[k]) return;
        sum[v] = term(s, s.measure, sum[v], e[k].dx[v]);
        if (t.extremes) extreme[v] = term(s, far, extreme[v], e[k].dx[v]);
      };
      if constexpr (in_registers) each<ahead * V>(add);
      else
        for (int n = 0; n < V; ++n) add(n);
    }
  }

  // V neighbouring lanes of one row.
  OPT_FN static void add_elements(const Table& t, Shared& s, std::int64_t chunk, int thread) {
    double held[in_registers ? 2 * V : 1];
    double* const sum = in_registers ? held : s.sum + thread * V;
    double* const extreme = in_registers ? held + (in_registers ? V : 0) : s.extreme + thread * V;
    for (int v = 0; v < V; ++v) {
      sum[v] = norms::neutral(s.measure);
      extreme[v] = norms::neutral(extreme_of(s));
    }
    if (in_registers && s.measure == norms::Measure::sum_squares && !s.course.no_gradient) {
      if constexpr (in_registers) {
        if (t.extremes) add_squares<true>(t, s, chunk, thread, sum, extreme);
        else add_squares<false>(t, s, chunk, thread, sum, extreme);
      }
    } else {
      add_terms(t, s, chunk, thread, sum, extreme);
    }
    for (int v = 0; in_registers && v < V; ++v) {
      s.sum[thread * V + v] = sum[v];
      s.extreme[thread * V + v] = extreme[v];
    }
  }

  OPT_FN static void end_chunk(const Table& t, Shared& s, unsigned block) {
    t.sums[block] = norms::fold(s.measure, s.sum, norms::rows, norms::lanes);
    if (t.extremes) t.extremes[block] = norms::fold(extreme_of(s), s.extreme, norms::rows, norms::lanes);
    s.last = s.leaf.chunks == 1 || last_of(t.counted + s.index, s.leaf.chunks);
    if (s.last && s.leaf.chunks == 1) {
      s.sum[0] = t.sums[block];
      s.extreme[0] = t.extremes ? t.extremes[block] : 0;
    }
  }

  OPT_FN static void add_chunks(const Table& t, Shared& s, int thread) {
    for (int l = thread; l < norms::sum_lanes; l += threads) {
      double sum = norms::neutral(s.measure), extreme = norms::neutral(extreme_of(s));
      for (std::uint32_t c = std::uint32_t(l); c < s.leaf.chunks; c += norms::sum_lanes) {
        sum = norms::combine(s.measure, sum, t.sums[s.leaf.first_chunk + c]);
        if (t.extremes) extreme = norms::combine(extreme_of(s), extreme, t.extremes[s.leaf.first_chunk + c]);
      }
      s.sum[l] = sum;
      s.extreme[l] = extreme;
    }
  }

  // Folding 256 lanes is folding, for each of 16, every 16th, and then those 16.
  OPT_FN static void gather(const Table& t, Shared& s, int thread) {
    s.sum[thread] = norms::fold(s.measure, s.sum + thread, 16, 16);
    if (t.extremes) s.extreme[thread] = norms::fold(extreme_of(s), s.extreme + thread, 16, 16);
  }

  OPT_FN static void end_leaf(const Table& t, Shared& s) {
    if (s.leaf.chunks > 1) {
      s.sum[0] = norms::fold(s.measure, s.sum, 16);
      if (t.extremes) s.extreme[0] = norms::fold(extreme_of(s), s.extreme, 16);
    }
    const bool safe = t.rescue || t.extremes == nullptr || norms::is_safe(s.measure, s.sum[0]);
    t.totals[s.index] = {{s.sum[0], s.args.inverse_scale, false}, s.extreme[0], false, safe};
  }
};

}  // namespace optimisers::inline OPT_ABI::cuda
