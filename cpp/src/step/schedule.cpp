// schedule.cpp: advances the clocks of a call's leaves, has measured what reducing stages ask for, and leaves jobs.
#include <algorithm>
#include <cstring>

#include "plan/portions.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

using cpu::Job;

// Neighbouring leaves mostly have the same rule and the same clock: what one tick gave serves them all.
class TickCache {
 public:
  explicit TickCache(std::uint64_t* memory) : before_(memory) {}  // for a row

  // False: the leaf's own tick is needed.
  bool serve(Job& job, std::uint64_t* row, bool present, bool& active) const {
    if (job.group != group_ || present != present_) return false;
    for (int w = 0; w < words_; ++w)  // rows are short: a call of memcmp costs more
      if (row[w] != before_[w]) return false;
    std::copy(after_ + changed_, after_ + words_, row + changed_);
    job.steps = steps_;
    job.course = course_;
    active = active_;
    return true;
  }
  bool tick(Job& job, std::uint64_t* row, bool present, bool flushes, std::byte* steps) {
    group_ = job.group;
    words_ = group_->row_size / 8;
    std::copy(row, row + words_, before_);
    job.steps = steps_ = steps;
    job.course = {};
    active_ = advance(RowStages{*group_, reinterpret_cast<std::byte*>(row), steps}, int(group_->stages.size()), present,
                      job.course, flushes);
    course_ = job.course;
    present_ = present;
    after_ = row;
    changed_ = int(std::mismatch(before_, before_ + words_, row).first - before_);
    return active_;
  }

 private:
  std::uint64_t* before_;
  const std::uint64_t* after_ = nullptr;  // the row that was ticked; what stands before `changed_` did not change
  const Group* group_ = nullptr;
  const std::byte* steps_ = nullptr;
  int words_ = 0, changed_ = 0;
  Course course_;
  bool present_ = false, active_ = false;
};

// Where ticking some leaves writes: room for one row, and for as many jobs and steps as there are leaves.
struct Scratch {
  std::uint64_t* row;
  Job* jobs;
  std::byte* steps;
};

// Ticks the clocks of leaves [begin, end). Returns how many jobs came of it.
std::size_t tick(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::size_t begin, std::size_t end,
                 const Scratch& scratch) {
  TickCache cache(scratch.row);
  std::byte* steps = scratch.steps;
  Job* job = scratch.jobs;
  for (std::size_t i = begin; i < end; ++i) {
    const LeafUpdate& u = leaves[i];
    LeafRecord& leaf = state.leaves[u.leaf];
    if (leaf.frozen || leaf.device != on_host) continue;  // clocks of a device are there
    const Group& group = state.groups[leaf.group];
    auto* row = reinterpret_cast<std::uint64_t*>(state.row_of(u.leaf));
    job->group = &group;
    job->arrays = &u;
    job->offset = leaf.offset;
    job->size = leaf.size;
    job->out = nullptr;
    job->scale = state.scale;
    job->flags = state.flags[i];
    const bool alone = end - begin == 1 || !group.reducers.empty();  // a norm makes a step the leaf's own
    bool active;
    if (alone) {
      job->steps = steps;
      job->course = {};
      active = advance(RowStages{group, reinterpret_cast<std::byte*>(row), steps}, int(group.stages.size()),
                       u.dx.present, job->course, state.flushes);
      steps += state.step_size;
    } else if (!cache.serve(*job, row, u.dx.present, active)) {
      active = cache.tick(*job, row, u.dx.present, state.flushes, steps);
      steps += state.step_size;
    }
    if (group.gates) leaf.wrote = active && job->course.writes;
    if (active) ++job;
  }
  return std::size_t(job - scratch.jobs);
}

void make_room(Optimiser::State& state, std::size_t leaves, std::size_t portions) {
  if (leaves <= state.room_leaves && portions <= state.room_portions) return;
  if (state.job_memory.size() < leaves) state.job_memory.resize(leaves);
  if (state.steps.size() < leaves * state.step_size) state.steps.resize(leaves * state.step_size);
  if (state.row_memory.size() < portions * state.row_words) state.row_memory.resize(portions * state.row_words);
  state.room_leaves = std::max(state.room_leaves, leaves);
  state.room_portions = std::max(state.room_portions, portions);
}

// For the leaves from `first` on.
Scratch scratch_of(Optimiser::State& state, std::size_t portion, std::size_t first) {
  return {state.row_memory.data() + portion * state.row_words, state.job_memory.data() + first,
          state.steps.data() + first * state.step_size};
}

// Ticks all clocks; leaves state.jobs.
void tick_all(Optimiser::State& state, std::span<const LeafUpdate> leaves) {
  const std::size_t n = leaves.size(), portions = portion_count(n);
  make_room(state, n, portions);
  std::vector<std::pair<std::size_t, std::size_t>> made;  // first job and their number, of portions but the first
  if (portions > 1) made.resize(portions);
  std::size_t jobs = 0;
  in_portions(n, portions, [&](std::size_t p, std::size_t begin, std::size_t end) {
    const std::size_t count = tick(state, leaves, begin, end, scratch_of(state, p, begin));
    if (p == 0) jobs = count;
    else made[p] = {begin, count};
  });
  for (const auto& [first, count] : made) {
    Job* from = state.job_memory.data() + first;
    if (first != jobs) std::copy(from, from + count, state.job_memory.data() + jobs);
    jobs += count;
  }
  state.jobs = {state.job_memory.data(), jobs};
}

// For the largest leaf whose matrix stage runs; and what makes its matrices orthogonal, as its rule is now.
void make_room_for_matrices(Optimiser::State& state) {
  std::size_t bytes = 0;
  for (const Job& job : state.jobs) {
    if (job.group->matrix < 0) continue;
    cpu::Whole& whole = state.wholes[job.arrays->leaf];
    const Stage& stage = job.group->stages[std::size_t(job.group->matrix)];
    whole.polynomial = stage.info->polynomial(state.row_of(job.arrays->leaf) + stage.rule_offset);
    bytes = std::max(bytes, cpu::whole_bytes(job, whole.shape));
  }
  const std::size_t lines = (bytes + sizeof(Optimiser::State::Line) - 1) / sizeof(Optimiser::State::Line);
  if (state.whole_memory.size() < lines) state.whole_memory.resize(lines);
}

}  // namespace

void run_small(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further) {
  constexpr std::size_t together = 128;  // leaves that are ticked and then swept, while their jobs are in the cache
  const std::size_t portions = leaves.size() == 1 ? 1 : cpu::small_portions(leaves.size(), state.small_work);
  make_room(state, portions * together, portions);
  in_portions(leaves.size(), portions, [&](std::size_t p, std::size_t begin, std::size_t end) {
    const Scratch scratch = scratch_of(state, p, p * together);
    for (; begin < end; begin += together)
      cpu::sweep_here({scratch.jobs, tick(state, leaves, begin, std::min(begin + together, end), scratch)}, further);
  });
}

void schedule(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further) {
  const auto reduces = [&](const LeafUpdate& u) { return !state.group_of(u.leaf).reducers.empty(); };
  state.jobs = {};
  state.shared_norm.reset();
  if (!state.any_host) return;
  if (!state.reduces || std::none_of(leaves.begin(), leaves.end(), reduces)) return tick_all(state, leaves);

  // A norm may yet refuse the call: keep the clocks as they were.
  state.backup.clear();
  const auto keep = [&](const std::byte* rows, std::size_t bytes) {
    state.backup.insert(state.backup.end(), rows, rows + bytes);
  };
  if (state.shares)
    for (const Group& group : state.groups) keep(group.rows.data(), group.rows.size());
  else
    for (const LeafUpdate& u : leaves) keep(state.row_of(u.leaf), std::size_t(state.group_of(u.leaf).row_size));
  try {
    if (state.shares) state.share_clocks();
    tick_all(state, leaves);
    reduce_norms(state, further);
    if (state.shares) state.share_clocks();
    if (!state.wholes.empty()) make_room_for_matrices(state);
  } catch (...) {
    const std::byte* saved = state.backup.data();
    const auto restore = [&](std::byte* rows, std::size_t bytes) {
      std::copy_n(saved, bytes, rows);
      saved += bytes;
    };
    if (state.shares)
      for (Group& group : state.groups) restore(group.rows.data(), group.rows.size());
    else
      for (const LeafUpdate& u : leaves) restore(state.row_of(u.leaf), std::size_t(state.group_of(u.leaf).row_size));
    throw;
  }
}

}  // namespace optimisers::inline OPT_ABI
