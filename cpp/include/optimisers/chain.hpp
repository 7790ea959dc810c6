// chain.hpp: rules as values of C++ types, alone and in chains, made into the programs that leaves run.
// Chain{...} and std::vector<AnyRule> run each rule in the library's kernels, or in that of the file it was written in;
// Fused{...} is compiled into one loop where it stands. All give the same bits.
#pragma once
#include <concepts>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "optimisers/describe.hpp"
#include "optimisers/program.hpp"
#include "optimisers/rules/all.hpp"

namespace optimisers::inline OPT_ABI {

/// Stages that run one after the other, in one sweep over memory: `Chain{ClipNorm{.omega = 1}, Adam{}}`. The library's
/// rules run in its own kernels, made for each instruction set, whatever this program is compiled with; a rule of one's
/// own runs in a kernel made where it is used. Chains nest. The empty chain is Descent(1).
template <class... Rs>
struct Chain {
  std::tuple<Rs...> stages;
  constexpr Chain(Rs... rules) : stages(rules...) {}
};

/// A chain whose stages become one loop, compiled where this stands: as fast as that file's flags let it be. Link
/// optimisers::kernel_flags to it, and give it the -march of the machine. The same bits as Chain. It can be a stage of
/// a Chain; at most 16 slots together.
template <class... Rs>
struct Fused {
  std::tuple<Rs...> stages;
  constexpr Fused(Rs... rules) : stages(rules...) {}
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
constexpr bool is_listed(std::tuple<All...>*) {
  return (std::is_same_v<R, All> || ...);
}

// A value from outside as the registry takes it: every number as a double.
template <class V>
Value to_value(const V& v) {
  if constexpr (std::is_arithmetic_v<V> && !std::is_same_v<V, bool>) return static_cast<double>(v);
  else if constexpr (Word<V>) return std::string(words_of<V>[std::size_t(v)]);
  else if constexpr (std::is_convertible_v<V, std::string_view>) return std::string(std::string_view(v));
  else return v;
}

}  // namespace detail

/// The description of a rule: the library's, or one made here for a rule of the program's own.
template <Rule R>
OPT_HIDDEN const RuleInfo& info_of() {
  if constexpr (detail::is_listed<R>(static_cast<AllRules*>(nullptr))) return registered_rule(R::text.name);
  else return describe_own<R>();
}

/// Any rule, its type known at run time: from a value (`AnyRule(Adam{})`) or from a name (`AnyRule("Adam")`).
class AnyRule : public RuleValue {
 public:
  AnyRule(const RuleValue& value) : RuleValue(value) {}
  template <Rule R>
  OPT_HIDDEN AnyRule(const R& rule) : RuleValue(info_of<R>()) {
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
template <class... Rs>
struct Flat<Fused<Rs...>> : Flat<Chain<Rs...>> {};

inline constexpr int max_fused_slots = 16;  // what the executor passes to one kernel

// The kernel for the slots these rules have: conditional ones make a variant each.
template <class T, class... Used>
OPT_HIDDEN StageKernels fuse(TypeList<Used...>, TypeList<>, const RuleValue*) {
  return stage_kernels<T, Used...>();
}
template <class T, class... Used, class R, class... Rest>
OPT_HIDDEN StageKernels fuse(TypeList<Used...>, TypeList<R, Rest...>, const RuleValue* rule) {
  if constexpr (max_slots<R> > min_slots<R>)
    if (rule->slot_count() > min_slots<R>)
      return fuse<T>(TypeList<Used..., Use<R, max_slots<R>>>{}, TypeList<Rest...>{}, rule + 1);
  return fuse<T>(TypeList<Used..., Use<R>>{}, TypeList<Rest...>{}, rule + 1);
}

template <class... R>
OPT_HIDDEN void add_fused(Program& program, TypeList<R...> rules) {
  static_assert((max_slots<R> + ... + 0) <= max_fused_slots, "a fused chain has at most 16 slots: use Chain");
  // One that sees the gradient may have a gate before it: stage by stage it finds out where it comes from.
  if constexpr (sizeof...(R) > 1 && !(takes_another<R> || ...)) {
    refuse_contraction("a fused chain");
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
OPT_HIDDEN void append(Program& program, const R& rule) {
  program.stages.push_back(AnyRule(rule));
}
template <class... R>
OPT_HIDDEN void append(Program& program, const Fused<R...>& fused);
template <class... R>
OPT_HIDDEN void append(Program& program, const Chain<R...>& chain) {
  std::apply([&](const auto&... rule) { (append(program, rule), ...); }, chain.stages);
}
template <class... R>
OPT_HIDDEN void append(Program& program, const Fused<R...>& fused) {
  std::apply([&](const auto&... rule) { (append(program, rule), ...); }, fused.stages);
  add_fused(program, typename Flat<Fused<R...>>::type{});
}

}  // namespace detail

/// What leaves run, from anything that is a rule: a Rule, AnyRule, Chain, Fused, RuntimeChain, MixedPrecision, Program.
/// Ranges of hyperparameters are checked at setup.
template <Rule R>
OPT_HIDDEN Program program_of(const R& rule) {
  return {{AnyRule(rule)}, std::nullopt, {}};
}
inline Program program_of(const AnyRule& rule) { return {{rule}, std::nullopt, {}}; }
inline Program program_of(const RuntimeChain& chain) { return {{chain.begin(), chain.end()}, std::nullopt, {}}; }
inline Program program_of(Program program) { return program; }
template <class... R>
OPT_HIDDEN Program program_of(const Chain<R...>& chain) {
  Program program;
  detail::append(program, chain);
  return program;
}
template <class... R>
OPT_HIDDEN Program program_of(const Fused<R...>& fused) {
  Program program;
  detail::append(program, fused);
  return program;
}
template <class R>
OPT_HIDDEN Program program_of(const MixedPrecision<R>& mixed) {
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

}  // namespace optimisers::inline OPT_ABI
