// common_chains.hpp: chains that run as one kernel instead of stage by stage. Same bits, one trip through cache less.
#pragma once
#include "optimisers/kernel.hpp"
#include "optimisers/rules/all.hpp"

namespace optimisers::inline OPT_ABI::cpu {

template <class... R>
struct ChainOf {
  static constexpr int length = sizeof...(R);
};

// The chains whose rules this build of the library has.
template <class R, class... All>
constexpr bool is_built(std::tuple<All...>*) {
  return (std::is_same_v<R, All> || ...);
}
template <class... R>
std::conditional_t<(is_built<R>(static_cast<AllRules*>(nullptr)) && ...), std::tuple<ChainOf<R...>>, std::tuple<>>
    if_built(ChainOf<R...>);
template <class... C>
using Chosen = decltype(std::tuple_cat(if_built(C{})...));

// A program runs in as few passes as these allow. Those that only prepare dx are short of arithmetic: two of them cost
// what one does. Complex leaves run stage by stage.
using CommonChains =
    Chosen<ChainOf<ClipNorm, AdamW>, ChainOf<ClipNorm, Adam>, ChainOf<ClipNorm, Momentum>,
           ChainOf<ClipGrad, WeightDecay, Adam>, ChainOf<ClipGrad, Adam>, ChainOf<ClipGrad, WeightDecay>,
           ChainOf<ClipGrad, SignDecay>, ChainOf<WeightDecay, Adam>, ChainOf<WeightDecay, Momentum>,
           ChainOf<WeightDecay, Nesterov>, ChainOf<WeightDecay, Lion>, ChainOf<RMSProp, Momentum>>;
inline constexpr int common_chain_count = int(std::tuple_size_v<CommonChains>);

// What also runs directly on bfloat16 parameters and gradients, where it is all of the program: others convert them
// block by block in the cache and take a third longer (Zen 4, 10^7 elements). More of them would make the library
// larger than it is meant to be.
using ChainsOnBHalf = std::tuple<ChainOf<Descent>, ChainOf<Momentum>, ChainOf<Nesterov>, ChainOf<RMSProp>,
                                 ChainOf<Adam>, ChainOf<AdamW>, ChainOf<NAdam>, ChainOf<Lion>, ChainOf<ClipNorm, AdamW>,
                                 ChainOf<ClipNorm, Adam>, ChainOf<ClipNorm, Momentum>, ChainOf<WeightDecay, Adam>,
                                 ChainOf<WeightDecay, Momentum>, ChainOf<WeightDecay, Lion>>;

inline constexpr int real_compute_count = 2;  // float32, float64

}  // namespace optimisers::inline OPT_ABI::cpu
