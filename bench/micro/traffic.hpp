// traffic.hpp: each rule's kernel with its arithmetic taken out: the same loop over the same arrays, one addition
// for each that is written. What the real kernel costs beyond it is arithmetic.
#pragma once
#include "optimisers/kernel.hpp"
#include "optimisers/rules/all.hpp"

namespace bench {

struct TrafficTable {
  optimisers::StageKernels stage[optimisers::rule_count][2][optimisers::compute_count];  // as in KernelTable
};

// Has the slots of R, all of them; Use<Traffic<R>, n> takes the first n.
template <class R>
struct Traffic {
  static constexpr auto slots = [] {
    std::array<optimisers::Slot<Traffic>, std::size_t(optimisers::max_slots<R>)> s{};
    for (std::size_t i = 0; i < s.size(); ++i) s[i] = {R::slots[i].name, R::slots[i].real};
    return s;
  }();

  template <class Real>
  struct Step {
    Real unused;
  };

  template <class S, class T>
  OPT_FN static S part(T dx) {
    if constexpr (std::is_same_v<S, T>) return dx;
    else return dx.re;
  }
  template <class T, class... S>
  OPT_FN static void apply(const Step<optimisers::real_t<T>>&, T /*x*/, T& dx, S&... s) {
    ((s = s + part<S>(dx)), ...);
  }
};

}  // namespace bench
