// range.hpp: the loops over one leaf's blocks and stages. Kernels see contiguous blocks of the compute type; whatever
// does not look like that in memory is converted at the edges of a block.
#pragma once
#include <algorithm>
#include <cstring>

#include "cpu/edges.hpp"
#include "cpu/executor.hpp"
#include "cpu/kernels.hpp"
#include "memory/overlap.hpp"

namespace optimisers::inline OPT_ABI::cpu {

inline constexpr std::int64_t block = 512;  // elements a chain carries through its stages at a time
inline constexpr int largest_element = 16;
inline constexpr int max_pass_slots = 16;
inline constexpr std::size_t most_direct = 16;  // passes and slots of a leaf whose calls are made out beforehand

struct alignas(64) Buffers {
  std::byte x[block * largest_element];
  std::byte dx[block * largest_element];
  std::byte more[block * largest_element];
  std::byte slots[4][block * largest_element];
};

// Where the slots of stages that follow one another begin, from an element of the arenas on.
inline void slot_pointers(const Group& group, int first_slot, int count, std::int64_t element, void** to) {
  const Arena* arena = group.arenas.data() + first_slot;
  const GroupSlot* slot = group.slots.data() + first_slot;
  for (int i = 0; i < count; ++i) to[i] = arena[i].data() + element * size_of(slot[i].dtype);
}

// A range of one leaf, block by block.
class Range {
 public:
  Range(const Job& job, std::span<const FurtherGradient> further, Buffers& buffers)
      : job_(job),
        group_(*job.group),
        further_(further),
        buffers_(buffers),
        size_(size_of(group_.compute)),
        subtracts_(job.course.writes && job.out == nullptr) {}

  void sweep(std::int64_t begin, std::int64_t end) {
    // A leaf that an earlier stage stops or that starts in the middle runs stage by stage.
    const bool all = job_.course.first == 0 && job_.course.end == int(group_.stages.size()) &&
                     !job_.course.no_gradient && !group_.sees;
    if (all && subtracts_ && sweep_direct(begin, end)) return;
    if (all) begin = sweep_bhalf(begin, end);
    for (std::int64_t b = begin; b < end; b += block) {
      const std::int64_t n = std::min(block, end - b);
      const std::byte* dx = gradient(b, n);
      std::byte* x = parameter(b, n, true);
      if (all) dx = run(group_.passes.begin(), group_.passes.end(), b, n, x, dx);
      else dx = run_stages(b, n, x, dx);
      finish(b, n, x, dx);
    }
  }

  // What has come to a stage, into the lanes.
  void measure(std::int64_t begin, std::int64_t end, const Measurement& m, double* lanes) {
    const bool sums = m.sums > 0;
    const Stage* stage = sums ? &group_.stages[std::size_t(m.stage)] : nullptr;  // arrays alone have none
    const bool as_it_lies = job_.flags.dx_direct && m.stage == job_.course.first && !job_.course.no_gradient &&
                            (!sums || (job_.flags.x_direct && !group_.master && !group_.sees));
    arrive(begin, end, m.stage, sums, as_it_lies ? end - begin : block,
           [&](std::int64_t b, std::int64_t n, const std::byte* x, const std::byte* dx) {
             if (sums) add_terms(*stage, b, n, x, dx, lanes);
             else kernels().measure[compute_index(group_.compute)][int(m.measure)](lanes, dx, m.args, n);
           });
  }

  // The entries of a matrix stage's matrices, from its leaf's first on.
  void gather(std::int64_t begin, std::int64_t end, std::byte* to) {
    const Stage& stage = group_.stages[std::size_t(group_.matrix)];
    arrive(begin, end, group_.matrix, true, block,
           [&](std::int64_t b, std::int64_t n, const std::byte* x, const std::byte* dx) {
             void* slots[4 + 1];
             slot_pointers(group_, stage.first_slot, stage.slot_count, job_.offset + b, slots);
             slots[stage.slot_count] = nullptr;
             stage.kernels.entries(to + b * size_, job_.steps + stage.step_offset, x, dx, slots, n);
           });
  }

 private:
  // f for blocks of dx as it comes to a stage; those before it run on copies of their slots.
  template <class F>
  void arrive(std::int64_t begin, std::int64_t end, int stage, bool needs_x, std::int64_t length, F&& f) {
    for (std::int64_t b = begin; b < end; b += length) {
      const std::int64_t n = std::min(length, end - b);
      const std::byte* dx = gradient(b, n);
      std::byte* x = needs_x || stage > job_.course.first ? parameter(b, n, false) : nullptr;
      for (int s = job_.course.first; s < stage; ++s) {
        void* slots[4 + 1];
        if (group_.sees) see(s, dx, n);
        copied_slots(group_.stages[std::size_t(s)], b, n, slots);
        dx = middle(group_.stages[std::size_t(s)], x, dx, slots, n);
      }
      f(b, n, x, dx);
    }
  }

  // All stages, where the arrays are as kernels want them: from block to block only pointers move on. To look it all up
  // for each block costs some 20 ns, which is a tenth of what a chain takes in the cache.
  bool sweep_direct(std::int64_t begin, std::int64_t end) {
    const std::size_t passes = group_.passes.size(), slot_count = group_.slots.size();
    if (!job_.flags.x_direct || !job_.flags.dx_direct || passes == 0 || passes > most_direct ||
        slot_count > most_direct)
      return false;
    void* slots[most_direct];
    if (passes == 1) {
      const Pass& all = group_.passes.front();
      slot_pointers(group_, 0, int(slot_count), job_.offset + begin, slots);
      all.kernels.last(job_.steps, job_.arrays->x.data + begin * size_, job_.arrays->dx.data + begin * size_,
                       buffers_.dx, slots, end - begin);
      return true;
    }
    const std::int64_t length = block;
    std::int64_t slot_bytes[most_direct];  // of a block
    slot_pointers(group_, 0, int(slot_count), job_.offset + begin, slots);
    for (std::size_t k = 0; k < slot_count; ++k) slot_bytes[k] = length * size_of(group_.slots[k].dtype);
    struct {
      StageFn kernel;
      const std::byte* steps;
      void** slots;
    } calls[most_direct];
    for (std::size_t i = 0; i < passes; ++i) {
      const Pass& p = group_.passes[i];
      calls[i] = {i + 1 == passes ? p.kernels.last : p.kernels.middle, job_.steps + p.step_offset,
                  slots + p.first_slot};
    }
    std::byte* x = job_.arrays->x.data + begin * size_;
    const std::byte* dx = job_.arrays->dx.data + begin * size_;
    for (std::int64_t left = end - begin;; left -= length, x += length * size_, dx += length * size_) {
      const void* in = dx;
      for (std::size_t i = 0; i < passes; ++i, in = buffers_.dx)
        calls[i].kernel(calls[i].steps, x, in, buffers_.dx, calls[i].slots, std::min(length, left));
      if (left <= length) return true;
      for (std::size_t k = 0; k < slot_count; ++k) slots[k] = static_cast<std::byte*>(slots[k]) + slot_bytes[k];
    }
  }

  // The whole lines of bfloat16 arrays, where one kernel does it all. Returns where it ended.
  std::int64_t sweep_bhalf(std::int64_t begin, std::int64_t end) {
    const auto is_bhalf = [](const ArrayView& a, bool contiguous) {
      return contiguous && a.dtype == DType::bfloat16 && is_aligned(a);
    };
    if (group_.passes.size() != 1 || !subtracts_ || job_.arrays->more >= 0 || job_.scale != 1) return begin;
    const ArrayView &x = job_.arrays->x, &dx = job_.arrays->dx;
    if (!is_bhalf(x, job_.flags.x_contiguous) || !is_bhalf(dx, job_.flags.dx_contiguous)) return begin;
    const Pass& pass = group_.passes.front();
    const StageFn kernel = group_.master ? pass.kernels.last_bhalf_master : pass.kernels.last_bhalf;
    const std::int64_t n = (end - begin) / bhalf_line * bhalf_line;
    if (kernel == nullptr || n == 0) return begin;
    void* slots[max_pass_slots];
    slot_pointers(group_, pass.first_slot, pass.slot_count, job_.offset + begin, slots);
    std::byte* master = group_.master ? group_.masters.data() + (job_.offset + begin) * size_ : nullptr;
    const std::int64_t item = size_of(DType::bfloat16);
    kernel(job_.steps + pass.step_offset, x.data + begin * item, dx.data + begin * item, master, slots, n);
    return begin + n;
  }

  template <class Iterator>
  const std::byte* run(Iterator first, Iterator end, std::int64_t b, std::int64_t n, std::byte* x,
                       const std::byte* dx) {
    for (; first != end; ++first) dx = pass(*first, subtracts_ && first + 1 == end, b, n, x, dx);
    return dx;
  }

  const std::byte* run_stages(std::int64_t b, std::int64_t n, std::byte* x, const std::byte* dx) {
    for (int s = job_.course.first; s < job_.course.end; ++s) {
      if (group_.sees) see(s, dx, n);
      looks_at_ = s == group_.matrix ? job_.matrices + b * size_ : seen_;
      dx = pass(pass_over(group_.stages, s, s + 1, group_.stages[std::size_t(s)].kernels),
                subtracts_ && s + 1 == job_.course.end, b, n, x, dx);
    }
    return dx;
  }

  const std::byte* pass(const Pass& p, bool last, std::int64_t b, std::int64_t n, std::byte* x, const std::byte* dx) {
    void* slots[max_pass_slots + 1];
    slot_pointers(group_, p.first_slot, p.slot_count, job_.offset + b, slots);
    slots[p.slot_count] = looks_at_;
    (last ? p.kernels.last : p.kernels.middle)(job_.steps + p.step_offset, x, dx, buffers_.dx, slots, n);
    return buffers_.dx;
  }

  // What stages from `s` on see as the gradient: as the chain begins, and behind a gate.
  void see(int s, const std::byte* dx, std::int64_t n) {
    if (s != job_.course.first && !group_.stages[std::size_t(s - 1)].info->gating()) return;
    seen_ = dx == buffers_.dx ? std::memcpy(buffers_.more, dx, std::size_t(n * size_)) : const_cast<std::byte*>(dx);
  }

  // What the last kernel did not do: x back into its own type, dx to where it was asked for.
  void finish(std::int64_t b, std::int64_t n, std::byte* x, const std::byte* dx) {
    if (subtracts_) {
      if (job_.course.first == job_.course.end) subtract(x, dx, n);
      if (!job_.flags.x_direct) store(job_.arrays->x, job_.flags.x_contiguous, b, n, group_.compute, x);
    } else if (job_.course.writes) {
      store({.data = job_.out, .dtype = group_.storage}, true, b, n, group_.compute, dx);
    }
  }

  const std::byte* middle(const Stage& stage, std::byte* x, const std::byte* dx, void* const* slots, std::int64_t n) {
    stage.kernels.middle(job_.steps + stage.step_offset, x, dx, buffers_.dx, slots, n);
    return buffers_.dx;
  }

  // Descent's kernels, of a rate: an empty chain is Descent(1), and what scales a gradient comes before all stages.
  template <class F>
  void descent(double eta, F&& run) {
    constexpr int descent = 0;
    static_assert(std::is_same_v<std::tuple_element_t<descent, AllRules>, Descent>);
    const Descent::Step<float> single{float(eta)};
    const Descent::Step<double> twice{eta};
    run(stage_kernels_of(descent, 0, std::size_t(compute_index(group_.compute))),
        group_.real == 0 ? reinterpret_cast<const std::byte*>(&single) : reinterpret_cast<const std::byte*>(&twice));
  }
  void subtract(std::byte* x, const std::byte* dx, std::int64_t n) {
    descent(1, [&](const StageKernels& k, const std::byte* step) { k.last(step, x, dx, nullptr, nullptr, n); });
  }

  const std::byte* gradient(std::int64_t b, std::int64_t n) {
    if (job_.course.no_gradient) {
      std::memset(buffers_.dx, 0, std::size_t(n * size_));
      return buffers_.dx;
    }
    const ArrayView& dx = job_.arrays->dx;
    if (job_.flags.dx_direct) return dx.data + b * size_;
    load(dx, job_.flags.dx_contiguous, b, n, group_.compute, buffers_.dx);
    for (int i = job_.arrays->more; i >= 0; i = further_[std::size_t(i)].more) {
      const ArrayView& more = further_[std::size_t(i)].dx;
      load(more, is_contiguous(more), b, n, group_.compute, buffers_.more);
      kernels().add[group_.real](buffers_.dx, buffers_.more, n * reals(group_.compute));
    }
    if (job_.scale != 1)
      descent(job_.scale, [&](const StageKernels& k, const std::byte* step) {
        k.middle(step, buffers_.dx, buffers_.dx, buffers_.dx, nullptr, n);
      });
    return buffers_.dx;
  }

  // x as the stages see it: the array itself, its master copy, or a converted block.
  std::byte* parameter(std::int64_t b, std::int64_t n, bool may_write) {
    const ArrayView& x = job_.arrays->x;
    if (group_.master) {
      std::byte* master = group_.masters.data() + (job_.offset + b) * size_;
      if (!may_write) master = static_cast<std::byte*>(std::memcpy(buffers_.x, master, std::size_t(n * size_)));
      take_edits(x, b, n, master);
      return master;
    }
    if (job_.flags.x_direct) return x.data + b * size_;
    load(x, job_.flags.x_contiguous, b, n, group_.compute, buffers_.x);
    return buffers_.x;
  }

  void take_edits(const ArrayView& x, std::int64_t b, std::int64_t n, std::byte* master) {
    const std::byte* stored = x.data + b * size_of(x.dtype);
    if (!job_.flags.x_contiguous || !is_aligned(x)) {  // gather the storage bytes first
      std::byte* to = buffers_.more;
      for_each_run(x, b, n, [&](const std::byte* p, std::int64_t stride, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i, to += size_of(x.dtype))
          std::memcpy(to, p + i * stride, std::size_t(size_of(x.dtype)));
      });
      stored = buffers_.more;
    }
    kernels().take_edits[real_index(x.dtype)][group_.real](stored, master, n * reals(x.dtype));
  }

  void add_terms(const Stage& stage, std::int64_t b, std::int64_t n, const std::byte* x, const std::byte* dx,
                 double* lanes) {
    void* slots[4 + 1];
    if (group_.sees) see(int(&stage - group_.stages.data()), dx, n);
    slot_pointers(group_, stage.first_slot, stage.slot_count, job_.offset + b, slots);
    slots[stage.slot_count] = seen_;
    stage.kernels.terms(lanes, job_.steps + stage.step_offset, x, dx, slots, n);
  }

  void copied_slots(const Stage& stage, std::int64_t b, std::int64_t n, void** slots) {
    slot_pointers(group_, stage.first_slot, stage.slot_count, job_.offset + b, slots);
    for (int i = 0; i < stage.slot_count; ++i) {
      const int item = size_of(group_.slots[std::size_t(stage.first_slot + i)].dtype);
      slots[i] = std::memcpy(buffers_.slots[i], slots[i], std::size_t(n * item));
    }
    slots[stage.slot_count] = seen_;
  }

  const Job& job_;
  const Group& group_;
  std::span<const FurtherGradient> further_;
  Buffers& buffers_;
  const std::int64_t size_;
  const bool subtracts_;
  void* seen_ = nullptr;      // of this block: the gradient, for stages that look at it,
  void* looks_at_ = nullptr;  // and what the next stage looks at
};

}  // namespace optimisers::inline OPT_ABI::cpu
