// program.hpp: the stages of a leaf on V elements in registers: chosen at run time, or fused at compile time. Both
// call the rules' apply() in the same order, and so give the same bits.
#pragma once
#include "access.hpp"
#include "block.hpp"
#include "optimisers/kernel.hpp"
#include "optimisers/rules/all.hpp"
#include "plan/clocks.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// The slots of one stage, V elements of each.
template <class T, class U, int V, class Indices = std::make_integer_sequence<int, U::slots>>
struct SlotLanes;
template <class T, class U, int V, int... I>
struct SlotLanes<T, U, V, std::integer_sequence<int, I...>> {
  using R = typename U::Rule;
  detail::Bag<Lanes<slot_t<R, I, T>, V>...> slot;

  template <int K>
  using slot_type = slot_t<R, K, T>;

  OPT_FN void load([[maybe_unused]] std::byte* const* from, [[maybe_unused]] std::int64_t i,
                   [[maybe_unused]] int count) {
    (cuda::load<V>(reinterpret_cast<const slot_type<I>*>(from[I]) + i, true, count, detail::get<I>(slot).v), ...);
  }
  OPT_FN void store([[maybe_unused]] std::byte* const* to, [[maybe_unused]] std::int64_t i,
                    [[maybe_unused]] int count) {
    (cuda::store<V>(detail::get<I>(slot).v, true, count, reinterpret_cast<slot_type<I>*>(to[I]) + i), ...);
  }
  OPT_FN void apply(const std::byte* step, const T* x, [[maybe_unused]] const T* g, T* dx) {
    const auto k = *reinterpret_cast<const typename R::template Step<real_t<T>>*>(step);
    for (int v = 0; v < V; ++v)
      if constexpr (takes_another<R>) R::template apply<T>(k, x[v], g[v], dx[v], detail::get<I>(slot).v[v]...);
      else R::template apply<T>(k, x[v], dx[v], detail::get<I>(slot).v[v]...);
  }
};

// f(a null pointer to Use<rule, slots>) for the stage.
template <class F>
OPT_FN void with_use(const StageTable& stage, F&& f) {
  pick<AllRules>(stage.rule, [&]<class R>(R*) {
    constexpr int least = min_slots<R>, most = max_slots<R>;
    if constexpr (most > least) {
      if (stage.all_slots) f(static_cast<Use<R, most>*>(nullptr));
      else f(static_cast<Use<R, least>*>(nullptr));
    } else {
      f(static_cast<Use<R, least>*>(nullptr));
    }
  });
}

template <class R>
OPT_FN const R& rule_in(const std::byte* row, const StageTable& stage) {
  return *reinterpret_cast<const R*>(row + stage.rule_offset);
}
template <class R, class Real>
OPT_FN auto& step_in(std::byte* steps, const StageTable& stage) {
  return *reinterpret_cast<typename R::template Step<Real>*>(steps + stage.step_offset);
}

// What is done with the clocks of a stage (clocks.hpp).
enum class Clocks : std::uint8_t { tick, open, miss, flush, flush_missing };
template <class R, class Real>
OPT_FN bool on_clocks_of(const StageTable& stage, std::byte* row, std::byte* steps, Clocks what) {
  if constexpr (clock_size<R> == 0) {
    NoClock none;
    step_in<R, Real>(steps, stage) = rule_in<R>(row, stage).template tick<Real>(none);
  } else {
    auto& clock = *reinterpret_cast<clock_type<R>*>(row + stage.clock_offset);
    if constexpr (GatingRule<R>) {
      if (what == Clocks::open) return R::open(clock);
      if (what == Clocks::miss)
        return rule_in<R>(row, stage).template miss<Real>(clock, step_in<R, Real>(steps, stage));
      if (what == Clocks::flush || what == Clocks::flush_missing)
        return rule_in<R>(row, stage)
            .template flush<Real>(clock, step_in<R, Real>(steps, stage), what == Clocks::flush);
    }
    step_in<R, Real>(steps, stage) = rule_in<R>(row, stage).template tick<Real>(clock);
  }
  return true;
}

// Any chain.
struct Interpreted {
  static constexpr bool may_go_out = true;
  template <class F>
  OPT_FN static void with_rule(const StageTable& stage, int, F&& f) {
    pick<AllRules>(stage.rule, f);
  }
  template <class Real>
  OPT_CALL static bool on_clocks(const StageTable& stage, int, std::byte* row, std::byte* steps, Clocks what) {
    bool result = true;
    pick<AllRules>(stage.rule, [&]<class R>(R*) { result = on_clocks_of<R, Real>(stage, row, steps, what); });
    return result;
  }

  // dx through the stages [first, end); `i` is the first element's place in the arenas.
  template <bool Write, class T, int V>
  OPT_FN static void apply(const GroupTable& t, int first, int end, const std::byte* steps, std::int64_t i, int count,
                           const T* x, T* dx) {
    T g[V];
    for (int s = first; s < end; ++s) {
      const StageTable& stage = t.stages[s];
      if (s == first || t.stages[s - 1].gates)
        for (int v = 0; v < V; ++v) g[v] = dx[v];
      with_use(stage, [&]<class U>(U*) {
        if constexpr (!(is_complex<T> && RefusesComplex<typename U::Rule>)) {
          SlotLanes<T, U, V> lanes;
          lanes.load(t.slots + stage.first_slot, i, count);
          lanes.apply(steps + stage.step_offset, x, g, dx);
          if constexpr (Write) lanes.store(t.slots + stage.first_slot, i, count);
        }
      });
    }
  }
};

// One chain, all its slots on their way at once. Only for calls in which every stage runs.
template <class... R>
struct Fused {
  static constexpr bool may_go_out = false;
  using Rules = std::tuple<R...>;
  template <class F>
  OPT_FN static void with_rule(const StageTable&, int s, F&& f) {
    pick<Rules>(s, f);
  }
  template <class Real>
  OPT_FN static bool on_clocks(const StageTable& stage, int s, std::byte* row, std::byte* steps, Clocks what) {
    bool result = true;
    pick<Rules>(s, [&]<class One>(One*) { result = on_clocks_of<One, Real>(stage, row, steps, what); });
    return result;
  }

  template <bool Write, class T, int V>
  OPT_FN static void apply(const GroupTable& t, int, int, const std::byte* steps, std::int64_t i, int count, const T* x,
                           T* dx) {
    static_assert(Write);
    run<T, V>(std::make_integer_sequence<int, int(sizeof...(R))>{}, t, steps, i, count, x, dx);
  }

 private:
  template <class T, int V, int... P>
  OPT_FN static void run(std::integer_sequence<int, P...>, const GroupTable& t, const std::byte* steps, std::int64_t i,
                         int count, const T* x, T* dx) {
    detail::Bag<SlotLanes<T, Use<R>, V>...> stage;
    constexpr auto slot = [](int p) { return detail::slot_offset<Use<R>...>(p); };
    constexpr auto step = [](int p) { return detail::step_offset<T, Use<R>...>(p); };
    (detail::get<P>(stage).load(t.slots + slot(P), i, count), ...);
    (detail::get<P>(stage).apply(steps + step(P), x, nullptr, dx), ...);
    (detail::get<P>(stage).store(t.slots + slot(P), i, count), ...);
  }
};

// A leaf's row, copied to where its block ticks it.
template <class Program, class Real>
struct BlockStages {
  const GroupTable& t;
  std::byte* row;
  std::byte* steps;

  template <class F>
  OPT_FN void with_rule(int s, F&& f) const {
    Program::with_rule(t.stages[s], s, f);
  }

  OPT_FN bool gating(int s) const { return t.stages[s].gates; }
  OPT_FN void tick(int s) const { Program::template on_clocks<Real>(t.stages[s], s, row, steps, Clocks::tick); }
  OPT_FN bool open(int s) const { return Program::template on_clocks<Real>(t.stages[s], s, row, steps, Clocks::open); }
  OPT_FN bool miss(int s) const { return Program::template on_clocks<Real>(t.stages[s], s, row, steps, Clocks::miss); }
  OPT_FN bool flush(int s, bool has_gradient) const {
    return Program::template on_clocks<Real>(t.stages[s], s, row, steps,
                                             has_gradient ? Clocks::flush : Clocks::flush_missing);
  }
  OPT_FN void finish(int s, double norm) const {
    with_rule(s, [&]<class R>(R*) {
      if constexpr (ReducingRule<R>)
        rule_in<R>(row, t.stages[s]).template finish<Real>(step_in<R, Real>(steps, t.stages[s]), norm);
    });
  }
  OPT_FN double norm_order(int s) const {
    double p = 2;
    with_rule(s, [&]<class R>(R*) {
      if constexpr (ReducingRule<R>) p = rule_in<R>(row, t.stages[s]).norm().p;
    });
    return p;
  }
};

// What the blocks of a leaf know before they touch its elements.
struct LeafShared {
  alignas(16) std::byte row[row_limit];
  alignas(16) std::byte steps[step_limit];
  DeviceLeaf leaf;
  CallLeaf call;
  DeviceArray x, dx;
  Course course;
  std::uint32_t index;
  bool active, ticked;
};

// All threads bring the row; to be followed by a barrier.
OPT_FN void bring_leaf(const GroupTable& t, std::uint32_t index, LeafShared& s, int thread, int threads) {
  const auto* from = reinterpret_cast<const std::uint64_t*>(t.rows + std::int64_t(index) * t.row_size);
  auto* to = reinterpret_cast<std::uint64_t*>(s.row);
  OPT_ROLLED
  for (int w = thread; w < t.row_size / 8; w += threads) to[w] = from[w];
  if (thread != 0) return;
  s.index = index;
  s.leaf = t.leaves[index];
  s.call = t.call[index];
  s.x = t.x[index];
  s.dx = t.dx[index];
}

// V elements of a leaf from i on: x as the stages see it, and dx.
template <Access A, class T, int V>
struct Elementwise {
  T x[V], dx[V];

  OPT_FN void read(const GroupTable& t, const LeafShared& s, std::int64_t i, int count, bool with_x) {
    read_dx(t, s, i, count);
    if (!with_x) {
      for (int v = 0; v < V; ++v) x[v] = T{};
      return;
    }
    if (t.master != nullptr) {
      load<V>(reinterpret_cast<const T*>(t.master) + s.leaf.offset + i, true, count, x);
      Elements<A, T>::template take_edits<V>(s.x, t.axes, i, count, x);
    } else {
      Elements<A, T>::template read<V>(s.x, t.axes, i, count, x);
    }
  }

  // Where V elements exist, both arrays are aligned and dx is subtracted.
  template <bool Master>
  OPT_FN void read_whole(const GroupTable& t, const LeafShared& s, std::int64_t i) {
    const auto a = Elements<A, T>::template raw_whole<V>(s.x, i), g = Elements<A, T>::template raw_whole<V>(s.dx, i);
    if constexpr (Master) load<V>(reinterpret_cast<const T*>(t.master) + s.leaf.offset + i, true, V, x);
    for (int v = 0; v < V; ++v) {
      if constexpr (Master) take_edit(a.v[v], x[v]);
      else x[v] = convert<T>(a.v[v]);
      dx[v] = convert<T>(g.v[v]);
    }
  }
  template <bool Master>
  OPT_FN void write_whole(const GroupTable& t, const LeafShared& s, std::int64_t i) {
    for (int v = 0; v < V; ++v) x[v] = x[v] - dx[v];
    if constexpr (Master) store<V>(x, true, V, reinterpret_cast<T*>(t.master) + s.leaf.offset + i);
    Elements<A, T>::template write_whole<V>(x, s.x, i);
  }

  // What was read, less dx if it is to be subtracted; dx itself where it is asked for.
  template <bool MayGoOut>
  OPT_FN void write(const GroupTable& t, const LeafShared& s, std::int64_t i, int count) {
    const bool goes_out = MayGoOut && t.out != nullptr;
    const bool subtracts = s.course.writes && !goes_out;
    if (subtracts)
      for (int v = 0; v < V; ++v) x[v] = x[v] - dx[v];
    if (t.master != nullptr) store<V>(x, true, count, reinterpret_cast<T*>(t.master) + s.leaf.offset + i);
    if (subtracts) Elements<A, T>::template write<V>(x, s.x, t.axes, i, count);
    if constexpr (MayGoOut)
      if (goes_out && s.course.writes) {
        std::byte* to = t.out[s.index];
        const bool wide = (reinterpret_cast<std::uintptr_t>(to) & 15u) == 0;
        Elements<A, T>::template write<V>(dx, {to, 0, 0, t.storage, true, wide}, t.axes, i, count);
      }
  }

 private:
  OPT_FN void read_dx(const GroupTable& t, const LeafShared& s, std::int64_t i, int count) {
    if (s.course.no_gradient) {
      for (int v = 0; v < V; ++v) dx[v] = T{};
      return;
    }
    Elements<A, T>::template read<V>(s.dx, t.axes, i, count, dx);
    if constexpr (A == Access::any) {
      for (std::int64_t m = s.call.more; m >= 0; m = t.further[m].more) {
        T more[V];
        Elements<A, T>::template read<V>(t.further[m].dx, t.axes, i, count, more);
        for (int v = 0; v < V; ++v) dx[v] = dx[v] + more[v];
      }
    }
  }
};

// Elements a thread holds: as many as fill 16 bytes of the narrowest array.
template <Access A, class T>
inline constexpr int elements_of = Elements<A, T>::per_piece;

}  // namespace optimisers::inline OPT_ABI::cuda
