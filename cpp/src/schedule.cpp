// schedule.cpp: advances the clocks of a call's leaves, measures what reducing stages ask for, and leaves jobs.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/norms.hpp"
#include "optimisers/error.hpp"
#include "state.hpp"

namespace optimisers {
namespace {

using cpu::Job;

// Neighbouring leaves mostly have the same rule and the same clock: what one tick gave serves them all.
class TickCache {
 public:
  explicit TickCache(std::vector<std::uint64_t>& scratch) : before_(scratch) {}

  bool matches(const Job& job, const std::byte* row) const {
    return known_ && job.group == ticked_.group && job.arrays->dx.present == present_ &&
           std::equal(before_.begin(), before_.end(), words(row));
  }
  bool reuse(Job& job, std::byte* row) const {
    std::copy_n(after_, job.group->row_size, row);  // both null where no stage is native
    job.steps = ticked_.steps;
    job.course = ticked_.course;
    return active_;
  }
  bool tick_and_remember(Job& job, std::byte* row, std::byte* steps) {
    before_.assign(words(row), words(row) + job.group->row_size / 8);
    active_ =
        advance(RowStages{*job.group, row, steps}, int(job.group->stages.size()), job.arrays->dx.present, job.course);
    ticked_ = job;
    present_ = job.arrays->dx.present;
    after_ = row;
    known_ = true;
    return active_;
  }

 private:
  static const std::uint64_t* words(const std::byte* row) { return reinterpret_cast<const std::uint64_t*>(row); }

  std::vector<std::uint64_t>& before_;
  Job ticked_{};
  const std::byte* after_ = nullptr;
  bool known_ = false, present_ = false, active_ = false;
};

// ---- norms

// How far a job has come through its reducing stages.
struct Progress {
  std::size_t job;
  std::size_t next = 0;  // position in group.reducers
  norms::Sum norm;       // measured at that stage
  bool measured = false;
};

class Reductions {
 public:
  Reductions(Optimiser::State& state, std::span<const FurtherGradient> further) : state_(state), further_(further) {
    for (std::size_t j = 0; j < state.jobs.size(); ++j) {
      Progress p{.job = j, .norm = {}};
      skip(p, state.jobs[j].course.first);
      if (has_stage(p)) progress_.push_back(p);
    }
  }

  void run() {
    while (!progress_.empty()) {
      measure_all();
      for (Progress& p : progress_)
        if (norm(p).scope == Scope::leaf) finish(p, leaf_norm(p), p);
      finish_global();
      std::erase_if(progress_, [&](const Progress& p) { return !has_stage(p); });
    }
  }

 private:
  const Job& job(const Progress& p) const { return state_.jobs[p.job]; }
  int stage_index(const Progress& p) const { return job(p).group->reducers[p.next]; }
  const Stage& stage(const Progress& p) const { return job(p).group->stages[std::size_t(stage_index(p))]; }
  bool has_stage(const Progress& p) const {
    return p.next < job(p).group->reducers.size() && stage_index(p) < job(p).course.end;
  }
  void skip(Progress& p, int first) const {
    while (p.next < job(p).group->reducers.size() && stage_index(p) < first) ++p.next;
  }
  const std::byte* rule_at(const Progress& p, const Stage& s) const {
    return state_.row_of(job(p).arrays->leaf) + s.rule_offset;
  }
  Norm norm(const Progress& p) const { return stage(p).info->norm(rule_at(p, stage(p))); }

  // Which of the leaf's global stages the next one is, if it is one.
  int order(const Progress& p) const {
    int k = 0;
    for (std::size_t r = 0; r < p.next; ++r) {
      const Stage& s = job(p).group->stages[std::size_t(job(p).group->reducers[r])];
      k += s.info->norm(rule_at(p, s)).scope == Scope::global;
    }
    return k;
  }

  void measure_all() {
    std::vector<cpu::Measurement> m;
    std::vector<Progress*> of;
    for (Progress& p : progress_) {
      if (p.measured) continue;
      m.push_back(cpu::measurement(&job(p), stage_index(p), norm(p).p));
      of.push_back(&p);
    }
    const auto partial = cpu::measure_norms(m, further_);
    for (std::size_t i = 0; i < m.size(); ++i) {
      of[i]->norm = partial[i];
      of[i]->measured = true;
    }
  }

  double leaf_norm(const Progress& p) const { return cpu::norm_of(norm(p).p, p.norm); }

  void finish(Progress& p, double norm_value, const Progress& blamed) {
    const Stage& s = stage(p);
    if (s.info->rejects(rule_at(p, s), norm_value)) {
      const std::string& name = state_.specs[job(blamed).arrays->leaf].name;
      throw Error(ErrorKind::non_finite,
                  std::string("update: ") + s.info->text.name + " expects a finite norm of the gradient, got " +
                      (std::isnan(norm_value) ? "nan" : "inf") + ", first at \"" + name +
                      "\"; nothing was written. Skip this step, or use throw=False",
                  name);
    }
    std::byte* step = const_cast<std::byte*>(job(p).steps) + s.step_offset;
    s.info->finish[job(p).group->real](rule_at(p, s), step, norm_value);
    p.measured = false;
    ++p.next;
  }

  void finish_global() {
    for (std::size_t i = 0; i < progress_.size(); ++i) {
      const Progress& lead = progress_[i];
      if (!lead.measured) continue;
      const int k = order(lead);
      const double p = norm(lead).p;
      if (!all_have_arrived(k, p)) continue;
      std::vector<Progress*> members;
      for (Progress& q : progress_)
        if (q.measured && order(q) == k && norm(q).p == p) members.push_back(&q);
      std::vector<norms::Sum> parts;
      std::vector<std::uint32_t> places;
      parts.reserve(members.size());
      places.reserve(members.size());
      for (const Progress* q : members) {
        parts.push_back(q->norm);
        places.push_back(job(*q).arrays->leaf);
      }
      const double shared = cpu::combined_norm(p, parts, places);
      const Progress* blamed = members.front();
      for (const Progress* q : members)
        if (!std::isfinite(leaf_norm(*q))) {
          blamed = q;
          break;
        }
      const Progress guilty = *blamed;
      for (Progress* q : members) finish(*q, shared, guilty);
    }
  }

  // No leaf that has a k-th global stage of this order is still on its way to it.
  bool all_have_arrived(int k, double p) const {
    return std::all_of(progress_.begin(), progress_.end(), [&](Progress q) {
      if (q.measured && order(q) == k && norm(q).p == p) return true;
      for (; has_stage(q); ++q.next)
        if (norm(q).scope == Scope::global && order(q) == k && norm(q).p == p) return false;
      return true;
    });
  }

  Optimiser::State& state_;
  std::span<const FurtherGradient> further_;
  std::vector<Progress> progress_;
};

}  // namespace

void schedule(Optimiser::State& state, std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further) {
  std::size_t steps = 0, rows = 0;
  bool reduces = false;
  for (const LeafUpdate& u : leaves) {
    const Group& group = state.group_of(u.leaf);
    if (group.device != on_host) continue;
    steps += std::size_t(group.step_size);
    rows += std::size_t(group.row_size);
    reduces |= !group.reducers.empty();
  }
  if (state.steps.size() < steps) state.steps.resize(steps);
  state.jobs.clear();
  state.jobs.reserve(leaves.size());
  if (reduces) {  // a norm may yet refuse the call: keep the clocks as they were
    state.backup.clear();
    state.backup.reserve(rows);
    for (const LeafUpdate& u : leaves) {
      const std::byte* row = state.row_of(u.leaf);
      state.backup.insert(state.backup.end(), row, row + state.group_of(u.leaf).row_size);
    }
  }

  TickCache cache(state.scratch_row);
  std::byte* step = state.steps.data();
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafUpdate& u = leaves[i];
    const LeafRecord& leaf = state.leaves[u.leaf];
    if (leaf.frozen) continue;
    const Group& group = state.groups[leaf.group];
    if (group.device != on_host) continue;  // its clocks are there
    std::byte* row = state.row_of(u.leaf);
    Job& job = state.jobs.emplace_back(Job{.group = &group,
                                           .arrays = &u,
                                           .steps = step,
                                           .offset = leaf.offset,
                                           .size = leaf.size,
                                           .flags = state.flags[i]});
    const bool shares = group.reducers.empty();  // a norm makes a step the leaf's own
    bool active;
    if (shares && cache.matches(job, row)) {
      active = cache.reuse(job, row);
    } else {
      active = cache.tick_and_remember(job, row, step);
      step += group.step_size;
    }
    if (!active) state.jobs.pop_back();
  }

  if (!reduces) return;
  try {
    Reductions(state, further).run();
  } catch (...) {
    const std::byte* saved = state.backup.data();
    for (const LeafUpdate& u : leaves) {
      const std::size_t n = std::size_t(state.group_of(u.leaf).row_size);
      std::copy_n(saved, n, state.row_of(u.leaf));
      saved += n;
    }
    throw;
  }
}

}  // namespace optimisers
