// reductions.cpp: measures the norms that a call's reducing stages ask for, one after the other along each chain, and
// finishes their steps with them.
#include <algorithm>
#include <cmath>

#include "cpu/norms.hpp"
#include "optimisers/error.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

using cpu::Job;

class Reductions {
 public:
  Reductions(Optimiser::State& state, std::span<const FurtherGradient> further)
      : state_(state), further_(further), scratch_(state.norms), progress_(scratch_.progress) {
    progress_.clear();
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
        if (norm(p).scope == Scope::leaf) finish(p, reduced(p, leaf_norm(p), name(p)), p);
      finish_global();
      std::erase_if(progress_, [&](const Progress& p) { return !has_stage(p); });
    }
    state_.shared_norm = shared_norm_;
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
    auto& m = scratch_.measurements;
    m.clear();
    for (const Progress& p : progress_)
      if (!p.measured) m.push_back(cpu::measurement(&job(p), stage_index(p), norm(p).p));
    cpu::measure_norms(m, further_, scratch_.chunks, scratch_.sums);
    auto sum = scratch_.sums.begin();
    for (Progress& p : progress_) {
      if (p.measured) continue;
      p.norm = *sum++;
      p.measured = true;
    }
  }

  double leaf_norm(const Progress& p) const { return cpu::norm_of(norm(p).p, p.norm); }

  const std::string& name(const Progress& p) const { return state_.specs[job(p).arrays->leaf].name; }
  double reduced(const Progress& p, double norm_value, const std::string& leaf) const {
    return state_.reduce_norm == nullptr ? norm_value : (*state_.reduce_norm)(norm_value, norm(p).p, leaf);
  }

  void finish(Progress& p, double norm_value, const Progress& blamed) {
    const Stage& s = stage(p);
    if (s.info->rejects(rule_at(p, s), norm_value)) {
      const std::string& name = this->name(blamed);
      throw Error(ErrorKind::non_finite,
                  std::string(state_.call) + ": " + s.info->text.name + " expects a finite norm of the gradient, got " +
                      (std::isnan(norm_value) ? "nan" : "inf") + ", first at \"" + name +
                      "\"; nothing was written. Skip this step, or use " + state_.without_throw(),
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
      auto& [members, parts, places] = scratch_.together;
      members.clear();
      parts.clear();
      places.clear();
      for (Progress& q : progress_)
        if (q.measured && order(q) == k && norm(q).p == p) members.push_back(&q);
      for (const Progress* q : members) {
        parts.push_back(q->norm);
        places.push_back(job(*q).arrays->leaf);
      }
      const double shared = reduced(lead, cpu::combined_norm(p, parts, places), {});
      if (k == 0 && (!shared_norm_ || lead.job < shared_by_)) {
        shared_norm_ = shared;
        shared_by_ = lead.job;
      }
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
  NormScratch& scratch_;
  std::vector<Progress>& progress_;
  std::optional<double> shared_norm_;  // of the first stages that share one,
  std::size_t shared_by_ = 0;          // and the first job of those
};

}  // namespace

void reduce_norms(Optimiser::State& state, std::span<const FurtherGradient> further) {
  Reductions(state, further).run();
}

}  // namespace optimisers::inline OPT_ABI
