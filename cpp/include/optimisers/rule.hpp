// rule.hpp: THE contract. A rule is a small aggregate of hyperparameters that describes itself completely;
// kernels, argument checks, language bindings, tables in the docs and parameter lists of tests derive from it.
//
//   struct Descent {
//     double eta = 0.1;                                          // defaults stand here and nowhere else
//     static constexpr Text text{.name = "Descent", ...};
//     static constexpr std::tuple fields{Field{"eta", &Descent::eta, Range::nonnegative, "learning rate"}};
//     static constexpr std::array<Slot<Descent>, 0> slots{};     // per-element state
//     template <class R> struct Step { R eta; };                 // scalars of one step, of type R, derived in double
//     template <class R> Step<R> tick(NoClock&) const { return {R(eta)}; }
//     template <class T> OPT_FN static void apply(const Step<real_t<T>>& k, T x, T& dx) { dx = k.eta * dx; }
//   };
//
// apply() is one element: values and references, no pointers, no loops. dx comes in as the gradient and leaves as
// what is to be subtracted; one reference per slot follows, of type T or, for Slot::real, real_t<T>. A hyperparameter
// that overflows in R, or makes a scalar of the first step overflow, is refused where it is set. One that vanishes
// counts as 0; an ε in a denominator goes through root_epsilon or square_epsilon (math.hpp), so that 0/0 is 0.
// Optional members:  struct Clock (doubles only) with a constexpr array `clock` of their names;
//   reducing rules:  Norm norm() const;  bool rejects(double) const;  finish(Step<R>&, double norm) const;
//   summing rules:   a constexpr array `sums` of names;  static Sums<N> terms(step, x, dx, slots...), what one element
//                    adds to each, slots by value, g behind x if it sees_gradient;  Scope sums_over() const (leaf);
//                    finish(Clock&, Step<R>&, const Sums<N>&, double elements) const, once all sums are finite;
//                    With `static constexpr int shared_clock = n` the first n numbers of the clock are of the whole
//                    state, the first of them counting steps: all leaves with the rule have those of the one with most;
//   matrix rules:    summing rules that say how a leaf is a matrix, Matrices matrices() const, what they are made of,
//                    static T entry(step, x, dx, slots...), how they become orthogonal, Polynomial polynomial() const,
//                    and shaped(Step<R>&, double out, double in) const; apply() takes (step, x, o, dx, slots...), o
//                    being the entry of the orthogonal matrix;
//   gating rules:    static bool open(const Clock&);  bool miss(Clock&, Step<R>&) const;
//                    bool flush(Clock&, Step<R>&, bool has_gradient) const   (see accum_grad.hpp);
//   sees_gradient = true: apply() takes (step, x, g, dx, slots...), g being dx as it came to the chain, or out of the
//                    last gating stage before this one;
//   refuses_complex: reason why a complex leaf is an error at setup.
#pragma once
#include <array>
#include <concepts>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "optimisers/dtype.hpp"
#include "optimisers/math.hpp"

namespace optimisers::inline OPT_ABI {

struct Text {
  const char* name;
  const char* summary = "";    // one sentence
  const char* update = "";     // the update in at most four lines of maths
  const char* notes = "";      // deviation from the paper, Optimisers.jl and PyTorch
  const char* reference = "";  // where it comes from
  int version = 1;             // of what slots and clocks mean: files of another are refused
};

enum class Range : std::uint8_t {
  nonnegative,  // [0, inf)
  positive,     // (0, inf)
  unit,         // [0, 1)
  factors,      // 0 < first <= 1 <= second
  ordered,      // 0 <= first <= second
  interval,     // first <= second, both finite
  count,        // integers >= 1
  norm_order,   // any real but 0, and +-inf
  choice,       // booleans and enums: every value of the type
};

enum class Scope : std::uint8_t { leaf, global };

// The words that stand for an enum's values in Python and in texts, by value; one byte each. A rule's own enums
// specialise it.
template <class E>
inline constexpr std::array<const char*, 0> words_of{};
template <>
inline constexpr std::array words_of<Scope>{"leaf", "global"};
template <class E>
concept Word = std::is_enum_v<E> && sizeof(E) == 1 && words_of<E>.size() > 0;

// A hyperparameter. `structural` ones decide which slots exist: adjust() refuses them.
template <class Rule, class T>
struct Field {
  const char* name;
  T Rule::* member;
  Range range;
  const char* doc;
  bool structural = false;
};
template <class Rule, class T>
Field(const char*, T Rule::*, Range, const char*) -> Field<Rule, T>;
template <class Rule, class T>
Field(const char*, T Rule::*, Range, const char*, bool) -> Field<Rule, T>;

// One per-element state array. Conditional slots (`when`) stand last, so a rule's slots are a prefix of the list.
template <class Rule>
struct Slot {
  const char* name;
  bool real = false;               // real-valued for a complex leaf (second moments, step sizes)
  double Rule::* start = nullptr;  // starts at this hyperparameter; zero otherwise
  bool Rule::* when = nullptr;     // exists only if this hyperparameter is true
  bool Rule::* unless = nullptr;   // starts at zero all the same if this one is true
  bool at_x = false;               // starts at the parameter
};

struct NoClock {};

// What a reducing rule wants measured of dx before it can go on.
struct Norm {
  double p;
  Scope scope;
};

// What a summing rule adds up, over a leaf or over all of a call, in double.
inline constexpr int most_sums = 4;
template <int N>
struct Sums {
  double of[N];
};

// A leaf as matrices: the first axis counts them if `batched`; of the others the first is what comes out and all behind
// it go in (out_in), or the last comes out (in_out).
enum class Layout : std::uint8_t { out_in, in_out };
template <>
inline constexpr std::array words_of<Layout>{"out_in", "in_out"};
struct Matrices {
  Layout layout;
  bool batched;
};

// X/(margin ‖X‖ + floor), then X ← a X + b (XXᵀ) X + c (XXᵀ)² X in each step; those behind the last table entry are as
// it.
struct Polynomial {
  std::int64_t steps;
  const std::array<double, 3>* table;
  int entries;
  double margin, floor;
};

namespace detail {
template <class R>
struct ClockOf {
  using type = NoClock;
};
template <class R>
  requires requires { typename R::Clock; }
struct ClockOf<R> {
  using type = typename R::Clock;
};

struct Anything {
  template <class T>
  constexpr operator T() const;
};
template <class R, class... A>
constexpr int arity() {
  if constexpr (requires { R{A{}..., Anything{}}; }) return arity<R, A..., Anything>();
  else return sizeof...(A);
}
}  // namespace detail

template <class R>
using clock_type = typename detail::ClockOf<R>::type;
template <class R>
inline constexpr int clock_size =  // NOLINTNEXTLINE(bugprone-sizeof-expression): a clock has doubles or nothing
    std::is_empty_v<clock_type<R>> ? 0 : int(sizeof(clock_type<R>) / sizeof(double));

template <class R>
inline constexpr int max_slots = int(R::slots.size());
template <class R>
inline constexpr int min_slots = [] {
  int n = 0;
  for (const auto& s : R::slots) n += s.when == nullptr;
  return n;
}();
// How many slots this value of the rule has.
template <class R>
constexpr int slot_count(const R& rule) {
  int n = 0;
  for (const auto& s : R::slots) n += s.when == nullptr || rule.*s.when;
  return n;
}
// The element type of slot I for elements of type T.
template <class R, int I, class T>
using slot_t = std::conditional_t<R::slots[I].real, real_t<T>, T>;

// A stage that looks at the gradient beside what the stages before it made of that.
template <class R>
concept SeesGradient = requires { requires R::sees_gradient; };
// One whose matrices are transformed whole: it looks at the result as others do at the gradient.
template <class R>
concept MatrixRule = requires(const R r) {
  { r.matrices() } -> std::same_as<Matrices>;
};
template <class R>
inline constexpr bool takes_another = SeesGradient<R> || MatrixRule<R>;

namespace detail {
template <class R, class T, int... I>
constexpr bool applies(std::integer_sequence<int, I...>) {
  return requires(const typename R::template Step<real_t<T>>& k, T x, T g, T& dx, slot_t<R, I, T>&... s) {
    requires takes_another<R> || requires { R::template apply<T>(k, x, dx, s...); };
    requires !takes_another<R> || requires { R::template apply<T>(k, x, g, dx, s...); };
  };
}
template <class R>
constexpr bool slots_start_once() {
  for (const auto& s : R::slots)
    if (s.at_x && (s.real || s.start != nullptr)) return false;
  return true;
}
template <class R>
constexpr bool conditional_slots_last() {
  bool seen = false;
  for (const auto& s : R::slots) {
    if (seen && s.when == nullptr) return false;
    seen |= s.when != nullptr;
  }
  return true;
}
}  // namespace detail

template <class R>
concept GatingRule = requires(const R r, clock_type<R>& c, typename R::template Step<float>& k) {
  { R::open(c) } -> std::same_as<bool>;
  { r.template miss<float>(c, k) } -> std::same_as<bool>;
  { r.template flush<float>(c, k, true) } -> std::same_as<bool>;
};

template <class R>
concept ReducingRule = requires(const R r, typename R::template Step<float>& k) {
  { r.norm() } -> std::same_as<Norm>;
  { r.rejects(1.0) } -> std::same_as<bool>;
  r.template finish<float>(k, 1.0);
};

template <class R>
concept SummingRule = requires { R::sums; };

namespace detail {
template <class R>
constexpr int sum_count() {
  if constexpr (SummingRule<R>) return int(R::sums.size());
  else return 0;
}
template <class R, class T, int... I>
constexpr bool has_terms(std::integer_sequence<int, I...>) {
  return requires(const typename R::template Step<real_t<T>>& k, T x, T g, T dx, slot_t<R, I, T>... s) {
    requires SeesGradient<R> || requires {
      { R::template terms<T>(k, x, dx, s...) } -> std::same_as<Sums<sum_count<R>()>>;
    };
    requires !SeesGradient<R> || requires {
      { R::template terms<T>(k, x, g, dx, s...) } -> std::same_as<Sums<sum_count<R>()>>;
    };
  };
}
template <class R, int... I>
constexpr bool has_entries(std::integer_sequence<int, I...>) {
  return requires(const R r, typename R::template Step<float>& k, float x, slot_t<R, I, float>... s) {
    { R::template entry<float>(k, x, x, s...) } -> std::same_as<float>;
    { r.polynomial() } -> std::same_as<Polynomial>;
    r.template shaped<float>(k, 1.0, 1.0);
  };
}
template <class R>
constexpr int shared_numbers() {
  if constexpr (requires { R::shared_clock; }) return R::shared_clock;
  else return 0;
}
template <class R>
constexpr bool finishes_sums() {
  return requires(const R r, clock_type<R>& c, typename R::template Step<float>& k, Sums<sum_count<R>()> sums) {
    r.template finish<float>(c, k, sums, 1.0);
  };
}
}  // namespace detail

template <class R>
concept RefusesComplex = requires { R::refuses_complex; };

// The concept every entry of rules/all.hpp is held to. A failure names the line that does not hold.
template <class R>
concept Rule = std::is_trivially_copyable_v<R> && std::is_aggregate_v<R> && std::equality_comparable<R> &&
               std::same_as<const Text, decltype(R::text)> && requires(const R r, clock_type<R>& c) {
                 { r.template tick<float>(c) } -> std::same_as<typename R::template Step<float>>;
                 { r.template tick<double>(c) } -> std::same_as<typename R::template Step<double>>;
               } && std::is_trivially_copyable_v<typename R::template Step<double>>;

template <class R>
constexpr bool check_rule() {
  static_assert(Rule<R>, "the rule does not meet the contract of rule.hpp");
  static_assert(detail::arity<R>() == int(std::tuple_size_v<decltype(R::fields)>),
                "every hyperparameter needs its line in `fields`");
  static_assert(sizeof(R) <= 64, "rules are small values: at most 64 bytes");
  static_assert(sizeof(typename R::template Step<double>) <= 96, "a step's scalars fit in 96 bytes");
  static_assert(std::is_empty_v<typename R::template Step<float>> ||
                    2 * sizeof(typename R::template Step<float>) == sizeof(typename R::template Step<double>),
                "a step's scalars are all of type R");
  static_assert(max_slots<R> <= 4, "kernels carry at most four slots");
  static_assert(detail::conditional_slots_last<R>(), "conditional slots stand last");
  static_assert(detail::slots_start_once<R>(), "a slot that starts at x is of x's type");
  static_assert(max_slots<R> - min_slots<R> <= 1, "one conditional slot a rule: it has a kernel with and one without");
  static_assert(detail::applies<R, float>(std::make_integer_sequence<int, max_slots<R>>{}),
                "apply() takes (step, x, dx, one reference per slot), or (step, x, g, dx, ...) if it sees_gradient");
  static_assert(detail::applies<R, float>(std::make_integer_sequence<int, min_slots<R>>{}),
                "apply() needs an overload without the conditional slots");
  if constexpr (!RefusesComplex<R>)
    static_assert(detail::applies<R, Complex<double>>(std::make_integer_sequence<int, max_slots<R>>{}),
                  "apply() takes complex elements, or the rule says refuses_complex");
  if constexpr (SummingRule<R>) {
    static_assert(detail::sum_count<R>() >= 1 && detail::sum_count<R>() <= most_sums, "a rule has one to four sums");
    static_assert(detail::has_terms<R, float>(std::make_integer_sequence<int, max_slots<R>>{}),
                  "terms() takes (step, x, dx, one value per slot), or (step, x, g, dx, ...) if it sees_gradient, and "
                  "gives Sums<as many as `sums` has names>");
    static_assert(detail::finishes_sums<R>(),
                  "finish() of a summing rule takes (Clock&, Step&, const Sums<N>&, double)");
    static_assert(!ReducingRule<R> && !GatingRule<R>, "a summing rule neither asks for a norm nor gates");
    static_assert(max_slots<R> == min_slots<R>, "a summing rule has no conditional slot");
  }
  if constexpr (MatrixRule<R>) {
    static_assert(SummingRule<R> && !SeesGradient<R> && RefusesComplex<R>,
                  "a matrix rule sums over its matrices, which are real, and sees them in place of the gradient");
    static_assert(detail::has_entries<R>(std::make_integer_sequence<int, max_slots<R>>{}),
                  "a matrix rule has entry(step, x, dx, one value per slot), polynomial() and shaped(Step&, out, in)");
  }
  static_assert(detail::shared_numbers<R>() <= clock_size<R>, "shared_clock counts numbers of the clock");
  if constexpr (clock_size<R> > 0)
    static_assert(R::clock.size() == clock_size<R> && sizeof(clock_type<R>) == clock_size<R> * sizeof(double),
                  "Clock holds doubles only, each named in `clock`");
  return true;
}

}  // namespace optimisers::inline OPT_ABI
