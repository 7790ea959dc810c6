// norm_plan.cpp: a global norm waits until every leaf that shares it has come to its stage.
#include "norm_plan.hpp"

#include <algorithm>

namespace optimisers::inline OPT_ABI::cuda {
namespace {

struct Walker {
  int next;
  bool measured = false;
};

// Which of the leaf's global stages the stage is, those before it included that the leaf enters behind.
int order_of(const NormPath& path, int reducer) {
  return int(
      std::count_if(path.stages.begin(), path.stages.begin() + reducer, [](const NormStage& s) { return s.global; }));
}

}  // namespace

std::vector<NormStep> plan_norms(const std::vector<NormPath>& paths) {
  std::vector<Walker> at;
  at.reserve(paths.size());
  for (const NormPath& p : paths) at.push_back({p.first});
  const auto done = [&](std::size_t i) { return at[i].next >= int(paths[i].stages.size()); };
  const auto stage = [&](std::size_t i) -> const NormStage& { return paths[i].stages[std::size_t(at[i].next)]; };
  std::vector<NormStep> steps;
  for (;;) {
    NormStep step;
    for (std::size_t i = 0; i < paths.size(); ++i)
      if (!done(i) && !at[i].measured) {
        step.measure.push_back({i, at[i].next});
        at[i].measured = true;
      }
    if (step.measure.empty()) return steps;
    const auto pass = [&](std::size_t i) {
      at[i].measured = false;
      ++at[i].next;
    };
    for (std::size_t i = 0; i < paths.size(); ++i)
      if (!done(i) && at[i].measured && !stage(i).global) {
        step.own.push_back({i, at[i].next});
        pass(i);
      }
    for (std::size_t lead = 0; lead < paths.size(); ++lead) {
      if (done(lead) || !at[lead].measured) continue;
      const int k = order_of(paths[lead], at[lead].next);
      const double p = stage(lead).p;
      const auto shares = [&](std::size_t i, int reducer) {
        const NormStage& s = paths[i].stages[std::size_t(reducer)];
        return s.global && s.p == p && order_of(paths[i], reducer) == k;
      };
      bool complete = true;
      std::vector<NormStep::At> members;
      for (std::size_t i = 0; i < paths.size(); ++i) {
        if (done(i)) continue;
        if (at[i].measured && shares(i, at[i].next)) {
          members.push_back({i, at[i].next});
          continue;
        }
        for (int r = at[i].next; r < int(paths[i].stages.size()); ++r) complete &= !shares(i, r);
      }
      if (!complete) continue;
      for (const NormStep::At& m : members) pass(m.path);
      step.sets.push_back(std::move(members));
    }
    steps.push_back(std::move(step));
  }
}

}  // namespace optimisers::inline OPT_ABI::cuda
