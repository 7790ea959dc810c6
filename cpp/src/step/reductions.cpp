// reductions.cpp: measures the norms and sums that a call's reducing stages ask for, one after the other along each
// chain, and finishes their steps with them.
#include <algorithm>
#include <cmath>

#include "cpu/norms.hpp"
#include "optimisers/error.hpp"
#include "rules/number_text.hpp"
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
        if (scope(p, stage(p)) == Scope::leaf) finish_alone(p);
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
  bool sums(const Progress& p) const { return stage(p).info->summing(); }
  Norm norm(const Progress& p) const { return stage(p).info->norm(rule_at(p, stage(p))); }
  Scope scope(const Progress& p, const Stage& s) const {
    return s.info->summing() ? s.info->sums_over(rule_at(p, s)) : s.info->norm(rule_at(p, s)).scope;
  }
  // Whether two global stages measure one thing together: a norm of one order, or the sums of one rule.
  bool alike(const Progress& a, const Progress& b) const {
    if (sums(a) != sums(b)) return false;
    return sums(a) ? stage(a).info->same_kernels(*stage(b).info) : norm(a).p == norm(b).p;
  }

  // Which of the leaf's global stages the next one is, if it is one.
  int order(const Progress& p) const {
    int k = 0;
    for (std::size_t r = 0; r < p.next; ++r) {
      const Stage& s = job(p).group->stages[std::size_t(job(p).group->reducers[r])];
      k += scope(p, s) == Scope::global;
    }
    return k;
  }

  void measure_all() {
    auto& m = scratch_.measurements;
    m.clear();
    for (const Progress& p : progress_)
      if (!p.measured)
        m.push_back(
            sums(p) ? cpu::Measurement{.job = &job(p), .stage = stage_index(p), .sums = int(stage(p).info->sums.size())}
                    : cpu::measurement(&job(p), stage_index(p), norm(p).p));
    cpu::measure_norms(m, further_, scratch_.chunks, scratch_.sums);
    for (std::size_t i = 0; Progress& p : progress_) {
      if (p.measured) continue;
      p.sums = m[i].results;
      p.norm = scratch_.sums[i++];
      p.measured = true;
    }
  }

  double leaf_norm(const Progress& p) const { return cpu::norm_of(norm(p).p, p.norm); }

  const std::string& name(const Progress& p) const { return state_.specs[job(p).arrays->leaf].name; }
  double reduced(const Progress& p, double norm_value, const std::string& leaf) const {
    if (state_.reduce_norm == nullptr) return norm_value;
    const double reduced = (*state_.reduce_norm)(norm_value, norm(p).p, leaf);
    if (reduced < 0)
      throw Error(
          ErrorKind::value,
          std::string(state_.call) + ": reduce_norm gave " + number_text(reduced) + ", expected a norm, 0 or more",
          leaf);
    return reduced;
  }

  void finish_alone(Progress& p) {
    if (sums(p)) finish_sums(p, reduced_sums(p, {p.sums, double(job(p).size)}, name(p)), p);
    else finish(p, reduced(p, leaf_norm(p), name(p)), p);
  }

  struct Total {
    std::array<double, most_sums> sums;
    double elements;
  };
  // Sums of parts of a leaf are added up as their norms of order 1 are.
  Total reduced_sums(const Progress& p, Total total, const std::string& leaf) const {
    if (state_.reduce_norm == nullptr) return total;
    for (std::size_t i = 0; i < stage(p).info->sums.size(); ++i)
      total.sums[i] = (*state_.reduce_norm)(total.sums[i], 1, leaf);
    total.elements = (*state_.reduce_norm)(total.elements, 1, leaf);
    return total;
  }

  void finish_sums(Progress& p, const Total& total, const Progress& blamed) {
    const Stage& s = stage(p);
    for (std::size_t i = 0; i < s.info->sums.size(); ++i)
      if (!std::isfinite(total.sums[i]))
        refuse(std::string(s.info->text.name) + " expects finite numbers, got " + text_of(total.sums[i]) +
                   " as its sum of " + s.info->sums[i],
               blamed, std::string("Skip this step, or use ") + state_.skipping());
    std::byte* step = const_cast<std::byte*>(job(p).steps) + s.step_offset;
    s.info->finish_sums[job(p).group->real](rule_at(p, s), clock_of(s, state_.row_of(job(p).arrays->leaf)), step,
                                            total.sums.data(), total.elements);
    if (s.info->matrix()) {
      const cpu::MatrixShape& shape = state_.wholes[job(p).arrays->leaf].shape;
      s.info->shaped[job(p).group->real](rule_at(p, s), step, shape.out(), shape.in());
    }
    p.measured = false;
    ++p.next;
  }

  static const char* text_of(double a) { return std::isnan(a) ? "nan" : "inf"; }
  [[noreturn]] void refuse(const std::string& what, const Progress& blamed, const std::string& remedy) const {
    const std::string& leaf = name(blamed);
    throw Error(ErrorKind::non_finite,
                std::string(state_.call) + ": " + what + ", first at \"" + leaf + "\"; nothing was written. " + remedy,
                leaf);
  }

  void finish(Progress& p, double norm_value, const Progress& blamed) {
    const Stage& s = stage(p);
    if (s.info->rejects(rule_at(p, s), norm_value))
      refuse(std::string(s.info->text.name) + " expects a finite norm of the gradient, got " + text_of(norm_value),
             blamed, std::string("Skip this step, or use ") + state_.without_throw());
    std::byte* step = const_cast<std::byte*>(job(p).steps) + s.step_offset;
    s.info->finish[job(p).group->real](rule_at(p, s), step, norm_value);
    p.measured = false;
    ++p.next;
  }

  void finish_global() {
    for (std::size_t i = 0; i < progress_.size(); ++i) {
      const Progress& lead = progress_[i];
      if (!lead.measured || !all_have_arrived(lead)) continue;
      auto& members = scratch_.together.members;
      members.clear();
      const int k = order(lead);
      for (Progress& q : progress_)
        if (q.measured && order(q) == k && alike(q, lead)) members.push_back(&q);
      if (sums(lead)) finish_set_of_sums(members);
      else finish_set_of_norms(members, k);
    }
  }

  void finish_set_of_norms(const std::vector<Progress*>& members, int k) {
    auto& [all, parts, places] = scratch_.together;
    parts.clear();
    places.clear();
    for (const Progress* q : members) {
      parts.push_back(q->norm);
      places.push_back(job(*q).arrays->leaf);
    }
    const Progress& lead = *members.front();
    const double shared = reduced(lead, cpu::combined_norm(norm(lead).p, parts, places), {});
    if (k == 0 && (!shared_norm_ || lead.job < shared_by_)) {
      shared_norm_ = shared;
      shared_by_ = lead.job;
    }
    const Progress guilty = first_of(members, [&](const Progress& q) { return !std::isfinite(leaf_norm(q)); });
    for (Progress* q : members) finish(*q, shared, guilty);
  }

  // Each sum of all members together: their places in the model decide on the order, as for norms.
  void finish_set_of_sums(const std::vector<Progress*>& members) {
    const std::size_t count = stage(*members.front()).info->sums.size();
    Total total{{}, 0};
    for (std::size_t i = 0; i < count; ++i) {
      double lane[norms::sum_lanes] = {};
      for (const Progress* q : members) lane[job(*q).arrays->leaf % norms::sum_lanes] += q->sums[i];
      total.sums[i] = norms::fold(norms::Measure::sum_abs, lane, norms::sum_lanes);
    }
    for (const Progress* q : members) total.elements += double(job(*q).size);
    total = reduced_sums(*members.front(), total, {});
    const Progress guilty = first_of(members, [&](const Progress& q) {
      return !std::all_of(q.sums.begin(), q.sums.end(), [](double a) { return std::isfinite(a); });
    });
    for (Progress* q : members) finish_sums(*q, total, guilty);
  }

  template <class Guilty>
  static Progress first_of(const std::vector<Progress*>& members, Guilty&& is_guilty) {
    const auto found = std::find_if(members.begin(), members.end(), [&](const Progress* q) { return is_guilty(*q); });
    return found == members.end() ? *members.front() : **found;
  }

  // No leaf that has a stage of this kind at this place among its global ones is still on its way to it.
  bool all_have_arrived(const Progress& lead) const {
    const int k = order(lead);
    return std::all_of(progress_.begin(), progress_.end(), [&](Progress q) {
      if (q.measured && order(q) == k && alike(q, lead)) return true;
      for (; has_stage(q); ++q.next)
        if (scope(q, stage(q)) == Scope::global && order(q) == k && alike(q, lead)) return false;
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
