// sweep.hpp: one step of all leaves of a group: ticks, runs the stages, subtracts. One launch, any number of leaves.
#pragma once
#include "program.hpp"

namespace optimisers::inline OPT_ABI::cuda {

template <class T_, Access A_, class Program_>
struct Sweep {
  using T = T_;
  using Program = Program_;
  using Table = GroupTable;
  static constexpr Access access = A_;
  static constexpr int threads = sweep_threads, phases = 3;
  using Shared = LeafShared;
  using Stages = BlockStages<Program, real_t<T>>;

  template <int Phase>
  OPT_FN static void run(const Table& t, Shared& s, unsigned block, int thread) {
    if constexpr (Phase == 0) {
      bring_leaf(t, t.block_leaf[block], s, thread, threads);
    } else if constexpr (Phase == 1) {
      if (thread == 0) tick(t, s);
    } else {
      if (thread == 0 && s.ticked) write_clocks(t, s);  // here, where nobody waits for it
      if (s.active) sweep(t, s, block, thread);
    }
  }

 private:
  // Every block ticks a copy.
  OPT_FN static void tick(const Table& t, Shared& s) {
    s.active = s.ticked = false;
    if (s.call.role == Role::absent || s.call.access != access) return;
    if (t.verdict != nullptr && t.verdict->refused != 0) return;
    const Stages stages{t, s.row, s.steps};
    s.course = {};
    s.ticked = true;
    s.active = advance(stages, t.stage_count, s.call.role == Role::gradient, s.course, s.call.flush);
    if (s.active && t.verdict != nullptr)
      for (int i = s.course.first; i < s.course.end; ++i)
        if (const int r = t.stages[i].reducer; r >= 0)
          stages.finish(i, t.norms[std::int64_t(r) * t.leaf_count + s.index]);
  }

  // The last block to have read the clocks writes them back.
  OPT_FN static void write_clocks(const Table& t, const Shared& s) {
    if (s.leaf.blocks > 1 && !last_of(t.arrived + s.index, s.leaf.blocks)) return;
    std::byte* row = t.rows + std::int64_t(s.index) * t.row_size;
    OPT_ROLLED
    for (int i = 0; i < t.stage_count; ++i) OPT_ROLLED
    for (int w = 0; w < t.stages[i].clocks; ++w) {
      const int at = t.stages[i].clock_offset + w * int(sizeof(double));
      *reinterpret_cast<double*>(row + at) = *reinterpret_cast<const double*>(s.row + at);
    }
  }

  OPT_FN static void sweep(const Table& t, const Shared& s, unsigned block, int thread) {
    constexpr int V = elements_of<access, T>;
    const std::int64_t begin = std::int64_t(block - s.leaf.first_block) * t.elements;
    const std::int64_t end = begin + t.elements < s.leaf.size ? begin + t.elements : s.leaf.size;
    std::int64_t i = begin + std::int64_t(thread) * V;
    if constexpr (!Program::may_go_out && access != Access::any) {
      const auto whole = [&]<bool Master>(std::bool_constant<Master>) {
        OPT_ROLLED
        for (; i + V <= end; i += std::int64_t(threads) * V) {
          Elementwise<access, T, V> e;
          e.template read_whole<Master>(t, s, i);
          Program::template apply<true, T, V>(t, s.course.first, s.course.end, s.steps, s.leaf.offset + i, V, e.x,
                                              e.dx);
          e.template write_whole<Master>(t, s, i);
        }
      };
      // All loads of an element group are asked for before the first is used: nothing is decided in these loops.
      if (s.x.wide && s.dx.wide && s.course.writes && !s.course.no_gradient) {
        if (t.master == nullptr) whole(std::false_type{});
        else if constexpr (access != Access::plain) whole(std::true_type{});
      }
    }
    OPT_ROLLED
    for (; i < end; i += std::int64_t(threads) * V) {
      const int count = end - i < V ? int(end - i) : V;
      Elementwise<access, T, V> e;
      e.read(t, s, i, count, true);
      Program::template apply<true, T, V>(t, s.course.first, s.course.end, s.steps, s.leaf.offset + i, count, e.x,
                                          e.dx);
      e.template write<Program::may_go_out>(t, s, i, count);
    }
  }
};

}  // namespace optimisers::inline OPT_ABI::cuda
