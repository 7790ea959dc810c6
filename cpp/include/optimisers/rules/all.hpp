// all.hpp: the one list of rules. A new rule is its header and one line here.
#pragma once
#include <tuple>

#include "optimisers/rules/accum_grad.hpp"
#include "optimisers/rules/adabelief.hpp"
#include "optimisers/rules/adadelta.hpp"
#include "optimisers/rules/adagrad.hpp"
#include "optimisers/rules/adam.hpp"
#include "optimisers/rules/adamax.hpp"
#include "optimisers/rules/adamw.hpp"
#include "optimisers/rules/adan.hpp"
#include "optimisers/rules/ademamix.hpp"
#include "optimisers/rules/adopt.hpp"
#include "optimisers/rules/amsgrad.hpp"
#include "optimisers/rules/box.hpp"
#include "optimisers/rules/cautious.hpp"
#include "optimisers/rules/cautious_decay.hpp"
#include "optimisers/rules/clip_grad.hpp"
#include "optimisers/rules/clip_norm.hpp"
#include "optimisers/rules/clip_rms.hpp"
#include "optimisers/rules/descent.hpp"
#include "optimisers/rules/ema.hpp"
#include "optimisers/rules/grams.hpp"
#include "optimisers/rules/laprop.hpp"
#include "optimisers/rules/lion.hpp"
#include "optimisers/rules/lookahead.hpp"
#include "optimisers/rules/mars.hpp"
#include "optimisers/rules/momentum.hpp"
#include "optimisers/rules/muon.hpp"
#include "optimisers/rules/nadam.hpp"
#include "optimisers/rules/nadamw.hpp"
#include "optimisers/rules/nesterov.hpp"
#include "optimisers/rules/non_negative.hpp"
#include "optimisers/rules/novograd.hpp"
#include "optimisers/rules/oadam.hpp"
#include "optimisers/rules/prodigy.hpp"
#include "optimisers/rules/radam.hpp"
#include "optimisers/rules/rmsprop.hpp"
#include "optimisers/rules/rprop.hpp"
#include "optimisers/rules/schedule_free.hpp"
#include "optimisers/rules/sign_decay.hpp"
#include "optimisers/rules/signum.hpp"
#include "optimisers/rules/stable_adamw.hpp"
#include "optimisers/rules/trust_ratio.hpp"
#include "optimisers/rules/weight_decay.hpp"
#include "optimisers/rules/yogi.hpp"
#include "optimisers/rules/zero_non_finite.hpp"

namespace optimisers::inline OPT_ABI {

#ifdef OPTIMISERS_RULES  // those a small build has chosen
using AllRules = std::tuple<OPTIMISERS_RULES>;
#else
// clang-format off
using AllRules = std::tuple<
    Descent, Momentum, Nesterov, Lion, Signum, Rprop,
    Adam, AdamW, NAdam, NAdamW, RAdam, AdaMax, AMSGrad, OAdam, AdaBelief,
    Yogi, LaProp, Adan, AdEMAMix, ADOPT, StableAdamW, MARS,
    AdaGrad, AdaDelta, RMSProp, NovoGrad,
    Prodigy, Muon,
    WeightDecay, SignDecay, CautiousDecay,
    ClipGrad, ClipNorm, ClipRMS, ZeroNonFinite, AccumGrad,
    TrustRatio, Cautious, Grams,
    Ema, Lookahead, ScheduleFree,
    Box, NonNegative>;
// clang-format on
#endif
inline constexpr int rule_count = int(std::tuple_size_v<AllRules>);

static_assert([]<class... R>(std::tuple<R...>*) { return (check_rule<R>() && ...); }(static_cast<AllRules*>(nullptr)));

}  // namespace optimisers::inline OPT_ABI
