// list.hpp: all kernels there are, by number. Chains that are common have a kernel of their own.
#pragma once
#include "combine.hpp"
#include "measure.hpp"
#include "pairs.hpp"
#include "sweep.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// A chain is taken whole or not at all: a program that only begins with one is interpreted.
using CommonPrograms = std::tuple<Fused<Descent>, Fused<Momentum>, Fused<Adam>, Fused<AdamW>, Fused<Lion>,
                                  Fused<ClipNorm, Adam>, Fused<ClipNorm, AdamW>, Fused<ClipNorm, Momentum>,
                                  Fused<WeightDecay, Adam>, Fused<WeightDecay, Momentum>>;

template <class... Lists>
using Joined = decltype(std::tuple_cat(std::declval<Lists>()...));

template <class T, Access A, class Programs>
struct SweepsOf;
template <class T, Access A, class... P>
struct SweepsOf<T, A, std::tuple<P...>> {
  using type = std::tuple<Sweep<T, A, P>...>;
};
template <class T, Access A>
using CommonSweeps = typename SweepsOf<T, A, CommonPrograms>::type;

using Helpers = std::tuple<Send<send_small>, Send<send_large>, Fill, Pairs, Combine>;
using PlainSweeps =
    std::tuple<Sweep<float, Access::plain, Interpreted>, Sweep<double, Access::plain, Interpreted>,
               Sweep<Complex<float>, Access::plain, Interpreted>, Sweep<Complex<double>, Access::plain, Interpreted>>;
using NarrowSweeps = std::tuple<Sweep<float, Access::half, Interpreted>, Sweep<float, Access::bhalf, Interpreted>>;
using AnySweeps =
    std::tuple<Sweep<float, Access::any, Interpreted>, Sweep<double, Access::any, Interpreted>,
               Sweep<Complex<float>, Access::any, Interpreted>, Sweep<Complex<double>, Access::any, Interpreted>>;
using FusedSweeps = Joined<CommonSweeps<float, Access::plain>, CommonSweeps<float, Access::bhalf>>;
template <class T, Access A>
using FirstMeasure = MeasureSums<T, A, false>;
template <class T>
using LaterMeasure = MeasureSums<T, Access::any, true>;
using FirstMeasures =
    std::tuple<FirstMeasure<float, Access::plain>, FirstMeasure<double, Access::plain>,
               FirstMeasure<Complex<float>, Access::plain>, FirstMeasure<Complex<double>, Access::plain>,
               FirstMeasure<float, Access::half>, FirstMeasure<float, Access::bhalf>, FirstMeasure<float, Access::any>,
               FirstMeasure<double, Access::any>, FirstMeasure<Complex<float>, Access::any>,
               FirstMeasure<Complex<double>, Access::any>>;
using LaterMeasures =
    std::tuple<LaterMeasure<float>, LaterMeasure<double>, LaterMeasure<Complex<float>>, LaterMeasure<Complex<double>>>;
// Each is compiled by itself, side by side.
using Parts = std::tuple<Helpers, PlainSweeps, NarrowSweeps, AnySweeps, FusedSweeps, FirstMeasures, LaterMeasures>;

template <class List>
struct All;
template <class... Part>
struct All<std::tuple<Part...>> {
  using type = Joined<Part...>;
};
using Kernels = All<Parts>::type;
inline constexpr int kernel_count = int(std::tuple_size_v<Kernels>);

namespace detail {
template <class K, class... All>
constexpr int position(std::tuple<All...>*) {
  int i = 0, found = -1;
  ((std::is_same_v<K, All> ? found = i : 0, ++i), ...);
  return found;
}
}  // namespace detail

// -1: there is none.
template <class Kernel>
inline constexpr int kernel_number = detail::position<Kernel>(static_cast<Kernels*>(nullptr));

}  // namespace optimisers::inline OPT_ABI::cuda
