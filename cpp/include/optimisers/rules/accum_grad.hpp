// accum_grad.hpp: gradient accumulation, as a stage
// A gating rule: the stages behind it run only when it opens. open() is asked after tick(); miss() stands in for
// tick() in a call without a gradient for the leaf and says whether the stage opens on what it has.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers {

struct AccumGrad {
  std::int64_t n = 0;  // outside its range: the argument is required

  static constexpr Text text{
      .name = "AccumGrad",
      .summary = "Averages n gradients, then lets the rest of the chain run once.",
      .update = "first of n calls: a ← dx/n;  later: a ← a + dx/n\nafter n calls: dx ← a, and the chain goes on",
      .notes =
          "A missing gradient counts as zero; missing in all n calls leaves the leaf untouched. A frozen leaf does not "
          "count.",
      .reference = "Optimisers.jl AccumGrad"};
  static constexpr std::tuple fields{Field{"n", &AccumGrad::n, Range::count, "number of update calls averaged over"}};
  static constexpr std::array slots{Slot<AccumGrad>{"a"}};
  friend bool operator==(const AccumGrad&, const AccumGrad&) = default;

  struct Clock {
    double calls = 0, received = 0;  // both 0 again once the stage has opened
  };
  static constexpr std::array clock{"calls", "received"};
  OPT_FN static bool open(const Clock& c) { return c.calls == 0; }

  template <class R>
  struct Step {
    R n;
    R first;  // 1: a is overwritten
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const Step<R> k{R(n), R(c.received == 0)};
    c.received += 1;
    count(c);
    return k;
  }
  template <class R>
  OPT_FN bool miss(Clock& c, Step<R>& k) const {
    k = {R(n), R(0)};
    const bool holds_something = c.received > 0;
    count(c);
    return open(c) && holds_something;
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& a) {
    const T share = dx / k.n;
    a = k.first != 0 ? share : a + share;
    dx = a;
  }

 private:
  OPT_FN void count(Clock& c) const {
    c.calls += 1;
    if (c.calls >= double(n)) c = {};
  }
};

}  // namespace optimisers
