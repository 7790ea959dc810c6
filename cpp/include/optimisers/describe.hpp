// describe.hpp: derives a rule's RuleInfo from its header, for the library's rules and for a program's own.
#pragma once
#include <cstring>

#include "optimisers/kernel.hpp"
#include "optimisers/made_once.hpp"
#include "optimisers/registry.hpp"

namespace optimisers::inline OPT_ABI {
// Functions of this file are static like the kernels: hundreds of small ones, no two files need to share them.
namespace detail {

template <class T>
constexpr FieldKind kind_of() {
  if constexpr (std::is_same_v<T, double>) return FieldKind::number;
  else if constexpr (std::is_same_v<T, Pair>) return FieldKind::pair;
  else if constexpr (std::is_same_v<T, std::int64_t>) return FieldKind::count;
  else if constexpr (std::is_same_v<T, bool>) return FieldKind::boolean;
  else {
    static_assert(Word<T>, "a hyperparameter of a type the registry does not know");
    return FieldKind::word;
  }
}
template <class T>
constexpr std::span<const char* const> words_for() {
  if constexpr (Word<T>) return words_of<T>;
  else return {};
}

template <class R, class T>
static int offset_of(T R::* member) {
  const R rule{};
  return static_cast<int>(reinterpret_cast<const char*>(&(rule.*member)) - reinterpret_cast<const char*>(&rule));
}

template <class R>
static std::span<const FieldInfo> fields_of() {
  return made_once([] {
    return std::apply(
        [](const auto&... f) {
          return std::array<FieldInfo, sizeof...(f)>{
              FieldInfo{f.name, kind_of<std::remove_cvref_t<decltype(R{}.*f.member)>>(), f.range, f.doc, f.structural,
                        offset_of(f.member), words_for<std::remove_cvref_t<decltype(R{}.*f.member)>>()}...};
        },
        R::fields);
  });
}

template <class R>
static std::span<const SlotInfo> slots_of() {
  return made_once([] {
    std::array<SlotInfo, max_slots<R>> a{};
    for (std::size_t i = 0; i < a.size(); ++i)
      a[i] = {R::slots[i].name, R::slots[i].real, R::slots[i].start ? offset_of(R::slots[i].start) : -1,
              R::slots[i].unless ? offset_of(R::slots[i].unless) : -1, R::slots[i].at_x};
    return a;
  });
}

template <class R>
const R& as(const void* rule) {
  return *static_cast<const R*>(rule);
}

template <class R, class F>
OPT_EXACT static void tick(const void* rule, double* clock, void* step) {
  if constexpr (clock_size<R> == 0) {
    NoClock none;
    *static_cast<typename R::template Step<F>*>(step) = as<R>(rule).template tick<F>(none);
  } else {
    *static_cast<typename R::template Step<F>*>(step) =
        as<R>(rule).template tick<F>(*reinterpret_cast<clock_type<R>*>(clock));
  }
}

template <class R, class F>
OPT_EXACT static bool first_step_is_finite(const void* rule) {
  using Step = typename R::template Step<F>;
  clock_type<R> clock{};
  const Step step = as<R>(rule).template tick<F>(clock);
  if constexpr (!std::is_empty_v<Step>) {
    F scalars[sizeof(Step) / sizeof(F)];
    std::memcpy(scalars, &step, sizeof step);
    for (const F s : scalars)
      if (!std::isfinite(s)) return false;
  }
  return true;
}

template <class R, class F>
OPT_EXACT static bool miss(const void* rule, double* clock, void* step) {
  return as<R>(rule).template miss<F>(*reinterpret_cast<clock_type<R>*>(clock),
                                      *static_cast<typename R::template Step<F>*>(step));
}

template <class R, class F>
OPT_EXACT static bool flush(const void* rule, double* clock, void* step, bool has_gradient) {
  return as<R>(rule).template flush<F>(*reinterpret_cast<clock_type<R>*>(clock),
                                       *static_cast<typename R::template Step<F>*>(step), has_gradient);
}

template <class R, class F>
OPT_EXACT static void finish(const void* rule, void* step, double norm) {
  as<R>(rule).template finish<F>(*static_cast<typename R::template Step<F>*>(step), norm);
}

template <class R, class F>
OPT_EXACT static void finish_sums(const void* rule, double* clock, void* step, const double* sums, double elements) {
  constexpr int count = sum_count<R>();
  Sums<count> given;
  for (int i = 0; i < count; ++i) given.of[i] = sums[i];
  auto& k = *static_cast<typename R::template Step<F>*>(step);
  if constexpr (clock_size<R> == 0) {
    NoClock none;
    as<R>(rule).template finish<F>(none, k, given, elements);
  } else {
    as<R>(rule).template finish<F>(*reinterpret_cast<clock_type<R>*>(clock), k, given, elements);
  }
}

template <class R, class F>
OPT_EXACT static void shaped(const void* rule, void* step, double out, double in) {
  as<R>(rule).template shaped<F>(*static_cast<typename R::template Step<F>*>(step), out, in);
}

template <class R>
static Scope sums_over(const void* rule) {
  if constexpr (requires { as<R>(rule).sums_over(); }) return as<R>(rule).sums_over();
  else return Scope::leaf;
}

template <class R>
static RuleInfo describe(int id) {
  RuleInfo info{};
  info.id = id;
  info.text = R::text;
  info.size = sizeof(R);
  info.clock_size = clock_size<R>;
  info.min_slots = min_slots<R>;
  info.fields = fields_of<R>();
  info.slots = slots_of<R>();
  const R rule{};
  std::memcpy(info.defaults.data(), &rule, sizeof(R));
  if constexpr (clock_size<R> > 0) {
    info.clock = R::clock;
    const clock_type<R> clock{};
    static_assert(sizeof clock <= sizeof info.clock_start);
    std::memcpy(info.clock_start.data(), &clock, sizeof clock);
  }
  info.sees_gradient = takes_another<R>;
  if constexpr (RefusesComplex<R>) info.refuses_complex = R::refuses_complex;
  info.slot_count = [](const void* r) { return slot_count(as<R>(r)); };
  info.equal = [](const void* a, const void* b) { return as<R>(a) == as<R>(b); };
  info.step_size = {sizeof(typename R::template Step<float>), sizeof(typename R::template Step<double>)};
  info.tick[0] = tick<R, float>;
  info.tick[1] = tick<R, double>;
  info.finite[0] = first_step_is_finite<R, float>;
  info.finite[1] = first_step_is_finite<R, double>;
  if constexpr (GatingRule<R>) {
    info.open = [](const double* clock) { return R::open(*reinterpret_cast<const clock_type<R>*>(clock)); };
    info.miss[0] = miss<R, float>;
    info.miss[1] = miss<R, double>;
    info.flush[0] = flush<R, float>;
    info.flush[1] = flush<R, double>;
  }
  if constexpr (ReducingRule<R>) {
    info.norm = [](const void* r) { return as<R>(r).norm(); };
    info.rejects = [](const void* r, double norm) { return as<R>(r).rejects(norm); };
    info.finish[0] = finish<R, float>;
    info.finish[1] = finish<R, double>;
  }
  if constexpr (SummingRule<R>) {
    info.sums = R::sums;
    info.sums_over = sums_over<R>;
    info.finish_sums[0] = finish_sums<R, float>;
    info.finish_sums[1] = finish_sums<R, double>;
  }
  info.shared_clock = shared_numbers<R>();
  if constexpr (MatrixRule<R>) {
    info.matrices = [](const void* r) { return as<R>(r).matrices(); };
    info.polynomial = [](const void* r) { return as<R>(r).polynomial(); };
    info.shaped[0] = shaped<R, float>;
    info.shaped[1] = shaped<R, double>;
  }
  return info;
}

template <class R, class T>
static void fill_kernels(RuleInfo& info, int compute) {
  info.own_kernels[0][std::size_t(compute)] = stage_kernels<T, Use<R, min_slots<R>>>();
  info.own_kernels[1][std::size_t(compute)] = stage_kernels<T, Use<R, max_slots<R>>>();
}

// Whether what OPT_EXACT says is overruled here: the square of 1 + 2^-12 is 1 + 2^-11 once it is rounded.
OPT_EXACT static bool contracts() {
  volatile float a = 1 + 0x1p-12f, rounded = -(1 + 0x1p-11f);
  const float once = a, twice = rounded;
  return once * once + twice != 0;
}
// Throws Error(value) where it is, which flags of clang can do.
[[maybe_unused]] static void refuse_contraction(const char* what) {
  if (contracts()) throw_contraction(what);
}

}  // namespace detail

// The description of a rule that the library does not list: with kernels of its own, instantiated here.
template <class R>
OPT_HIDDEN const RuleInfo& describe_own() {
  static_cast<void>(check_rule<R>());
  detail::refuse_contraction(R::text.name);
  return detail::made_once([] {
    RuleInfo d = detail::describe<R>(-1);
    detail::fill_kernels<R, float>(d, 0);
    detail::fill_kernels<R, double>(d, 1);
    if constexpr (!RefusesComplex<R>) {
      detail::fill_kernels<R, Complex<float>>(d, 2);
      detail::fill_kernels<R, Complex<double>>(d, 3);
    }
    return d;
  });
}

}  // namespace optimisers::inline OPT_ABI
