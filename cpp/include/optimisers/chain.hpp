// chain.hpp: rules as values of C++ types, alone and in chains, made into the programs that leaves run.
// Chain{...} is fused at compile time into one loop of the program's own; std::vector<AnyRule> is put together at
// run time. Both give the same bits.
#pragma once
#include <concepts>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "optimisers/describe.hpp"
#include "optimisers/program.hpp"
#include "optimisers/rules/all.hpp"

namespace optimisers {

/// Stages that run one after the other on each element, as one loop over memory: `Chain{ClipNorm{.omega = 1}, Adam{}}`.
/// Chains nest. The empty chain is Descent(1).
template <class... Rs>
struct Chain {
  std::tuple<Rs...> stages;
  constexpr Chain(Rs... rules) : stages(rules...) {}
};

/// Keeps a copy of each leaf in a wider type and rounds it into the leaf: `MixedPrecision{Adam{}}`, outermost only.
/// Leaves that are as wide already get no copy. `dtype` is float32 or float64.
template <class R>
struct MixedPrecision {
  R rule;
  DType dtype = DType::float32;
};
template <class R>
MixedPrecision(R) -> MixedPrecision<R>;
template <class R>
MixedPrecision(R, DType) -> MixedPrecision<R>;

namespace detail {

template <class R, class... All>
constexpr int position_in(std::tuple<All...>*) {
  int i = 0, found = -1;
  ((std::is_same_v<R, All> ? void(found = i++) : void(++i)), ...);
  return found;
}

// A value from outside as the registry takes it: every number as a double.
template <class V>
Value to_value(const V& v) {
  if constexpr (std::is_arithmetic_v<V> && !std::is_same_v<V, bool>) return static_cast<double>(v);
  else if constexpr (std::is_same_v<V, Scope>) return std::string(v == Scope::leaf ? "leaf" : "global");
  else if constexpr (std::is_convertible_v<V, std::string_view>) return std::string(std::string_view(v));
  else return v;
}

}  // namespace detail

/// The description of a rule: the library's, or one made here for a rule of the program's own.
template <Rule R>
const RuleInfo& info_of() {
  constexpr int id = detail::position_in<R>(static_cast<AllRules*>(nullptr));
  if constexpr (id >= 0) return rule_registry()[std::size_t(id)];
  else return describe_own<R>();
}

/// Any rule, its type known at run time: from a value (`AnyRule(Adam{})`) or from a name (`AnyRule("Adam")`).
class AnyRule : public RuleValue {
 public:
  AnyRule(const RuleValue& value) : RuleValue(value) {}
  template <Rule R>
  AnyRule(const R& rule) : RuleValue(info_of<R>()) {
    load(&rule);
  }
  /// Throws Error(value) if the library has no such rule. One's own rules go by value.
  explicit AnyRule(std::string_view name);

  /// `rule.with("eta", 0.1)`: the same rule with one hyperparameter changed. Throws Error(value or type) with rule,
  /// field, range and what came.
  template <class V>
  AnyRule with(std::string_view field, const V& value) const {
    return with_value(field, detail::to_value(value));
  }

 private:
  AnyRule with_value(std::string_view field, const Value& value) const;
};

/// A chain put together at run time.
using RuntimeChain = std::vector<AnyRule>;

namespace detail {

template <class... R>
struct TypeList {};
template <class A, class B>
struct Joined;
template <class... A, class... B>
struct Joined<TypeList<A...>, TypeList<B...>> {
  using type = TypeList<A..., B...>;
};

// The rules of a chain with nested chains opened up.
template <class R>
struct Flat {
  using type = TypeList<R>;
};
template <>
struct Flat<Chain<>> {
  using type = TypeList<>;
};
template <class R, class... Rest>
struct Flat<Chain<R, Rest...>> {
  using type = typename Joined<typename Flat<R>::type, typename Flat<Chain<Rest...>>::type>::type;
};

inline constexpr int max_fused_slots = 16;  // what the executor passes to one kernel

// The kernel for the slots these rules have: conditional ones make a variant each.
template <class T, class... Used>
StageKernels fuse(TypeList<Used...>, TypeList<>, const RuleValue*) {
  return stage_kernels<T, Used...>();
}
template <class T, class... Used, class R, class... Rest>
StageKernels fuse(TypeList<Used...>, TypeList<R, Rest...>, const RuleValue* rule) {
  if constexpr (max_slots<R> > min_slots<R>)
    if (rule->slot_count() > min_slots<R>)
      return fuse<T>(TypeList<Used..., Use<R, max_slots<R>>>{}, TypeList<Rest...>{}, rule + 1);
  return fuse<T>(TypeList<Used..., Use<R>>{}, TypeList<Rest...>{}, rule + 1);
}

template <class... R>
void add_fused(Program& program, TypeList<R...> rules) {
  if constexpr (sizeof...(R) > 1 && (max_slots<R> + ... + 0) <= max_fused_slots) {
    const int count = int(sizeof...(R)), first = int(program.stages.size()) - count;
    const RuleValue* values = program.stages.data() + first;
    FusedStages fused{first, {}, {}};
    for (int i = 0; i < count; ++i) fused.of.push_back({&values[i].info(), values[i].slot_count()});
    fused.kernels[0] = fuse<float>(TypeList<>{}, rules, values);
    fused.kernels[1] = fuse<double>(TypeList<>{}, rules, values);
    if constexpr (!(RefusesComplex<R> || ...)) {
      fused.kernels[2] = fuse<Complex<float>>(TypeList<>{}, rules, values);
      fused.kernels[3] = fuse<Complex<double>>(TypeList<>{}, rules, values);
    }
    program.fused.push_back(fused);
  }
}

template <Rule R>
void append(Program& program, const R& rule) {
  program.stages.push_back(AnyRule(rule));
}
template <class... R>
void append(Program& program, const Chain<R...>& chain) {
  std::apply([&](const auto&... rule) { (append(program, rule), ...); }, chain.stages);
}

}  // namespace detail

/// What leaves run, from anything that is a rule: a Rule, AnyRule, Chain, RuntimeChain, MixedPrecision, Program.
/// Ranges of hyperparameters are checked at setup.
template <Rule R>
Program program_of(const R& rule) {
  return {{AnyRule(rule)}, std::nullopt, {}};
}
inline Program program_of(const AnyRule& rule) { return {{rule}, std::nullopt, {}}; }
inline Program program_of(const RuntimeChain& chain) { return {{chain.begin(), chain.end()}, std::nullopt, {}}; }
inline Program program_of(Program program) { return program; }
template <class... R>
Program program_of(const Chain<R...>& chain) {
  Program program;
  detail::append(program, chain);
  detail::add_fused(program, typename detail::Flat<Chain<R...>>::type{});
  return program;
}
template <class R>
Program program_of(const MixedPrecision<R>& mixed) {
  Program program = program_of(mixed.rule);
  program.master = mixed.dtype;
  return program;
}
template <class R>
Program program_of(const MixedPrecision<MixedPrecision<R>>&) = delete;  // outermost only

template <class R>
concept Programmable = requires(const R& rule) {
  { program_of(rule) } -> std::same_as<Program>;
};

}  // namespace optimisers
