// accum_grad.hpp: gradient accumulation, as a stage
// A gating rule: the stages behind it run only when it opens. open() is asked after tick(); miss() stands in for
// tick() in a call without a gradient for the leaf and says whether the stage opens on what it has; flush() ends the
// window with what there is.
#pragma once
#include "optimisers/rule.hpp"

namespace optimisers::inline OPT_ABI {

struct AccumGrad {
  std::int64_t n = 0;  // outside its range: the argument is required

  static constexpr Text text{
      .name = "AccumGrad",
      .summary = "Averages n gradients, then lets the rest of the chain run once.",
      .update = "first of n calls: a ← dx/n;  later: a ← a + dx/n\nafter n calls: dx ← a, and the chain goes on",
      .notes =
          "A missing gradient counts as zero; missing in all n calls leaves the leaf untouched. A frozen leaf does not "
          "count. When n changes between two calls of a window, a is weighed anew: what comes out is the mean over the "
          "calls there were, n or, if there were more already, one more than those. flush_ applies a window that is "
          "not full, as the mean over its calls.",
      .reference = "Optimisers.jl AccumGrad"};
  static constexpr std::tuple fields{Field{"n", &AccumGrad::n, Range::count, "number of update calls averaged over"}};
  static constexpr std::array slots{Slot<AccumGrad>{"a"}};
  friend bool operator==(const AccumGrad&, const AccumGrad&) = default;

  struct Clock {
    double calls = 0, received = 0;  // all 0 again once the stage has opened
    double divisor = 0;              // of the gradients in `a`: n, as it was then
  };
  static constexpr std::array clock{"calls", "received", "divisor"};
  OPT_FN static bool open(const Clock& c) { return c.calls == 0; }

  template <class R>
  struct Step {
    R divisor;
    R keep;   // what `a` is multiplied by: 1, unless its gradients had another divisor
    R first;  // 1: a is overwritten
  };
  template <class R>
  OPT_FN Step<R> tick(Clock& c) const {
    const Step<R> k = step<R>(c, maximum(double(n), c.calls + 1), c.received == 0);
    c.received += 1;
    c.divisor = maximum(double(n), c.calls + 1);
    count(c);
    return k;
  }
  template <class R>
  OPT_FN bool miss(Clock& c, Step<R>& k) const {
    k = step<R>(c, maximum(double(n), c.calls + 1), false);
    const bool holds_something = c.received > 0;
    count(c);
    return open(c) && holds_something;
  }
  // As though this call, or without a gradient the last one, had been the window's last. False: it holds nothing.
  template <class R>
  OPT_FN bool flush(Clock& c, Step<R>& k, bool has_gradient) const {
    if (!has_gradient && c.received == 0) return false;
    k = step<R>(c, c.calls + (has_gradient ? 1 : 0), c.received == 0);
    c = {};
    return true;
  }
  template <class T>
  OPT_FN static void apply(const Step<real_t<T>>& k, T /*x*/, T& dx, T& a) {
    const T share = dx / k.divisor;
    a = k.first != 0 ? share : k.keep * a + share;
    dx = a;
  }

 private:
  template <class R>
  OPT_FN static Step<R> step(const Clock& c, double divisor, bool first) {
    return {R(divisor), R(c.received == 0 ? 1 : c.divisor / divisor), R(first)};
  }
  OPT_FN void count(Clock& c) const {
    c.calls += 1;
    if (c.calls >= double(n)) c = {};
  }
};

}  // namespace optimisers::inline OPT_ABI
