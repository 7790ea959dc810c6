// common_chains.hpp: chains that run as one kernel instead of stage by stage. Same bits, one trip through cache less.
#pragma once
#include "optimisers/kernel.hpp"
#include "optimisers/rules/all.hpp"

namespace optimisers::cpu {

template <class... R>
struct ChainOf {
  static constexpr int length = sizeof...(R);
};

// Longer chains first: a program takes the first that fits at each place. Those that only prepare dx are short of
// arithmetic: two of them cost what one does. Complex leaves run stage by stage.
using CommonChains = std::tuple<ChainOf<ClipNorm, AdamW>, ChainOf<ClipNorm, Adam>, ChainOf<ClipNorm, Momentum>,
                                ChainOf<ClipGrad, Adam>, ChainOf<ClipGrad, WeightDecay>, ChainOf<ClipGrad, SignDecay>,
                                ChainOf<WeightDecay, Adam>, ChainOf<WeightDecay, Momentum>,
                                ChainOf<WeightDecay, Nesterov>, ChainOf<WeightDecay, Lion>, ChainOf<RMSProp, Momentum>>;
inline constexpr int common_chain_count = int(std::tuple_size_v<CommonChains>);
inline constexpr int real_compute_count = 2;  // float32, float64

}  // namespace optimisers::cpu
