# Written by tools/make_stubs.py from the C++ registry.
from collections.abc import Sequence
from typing import Literal

from ._rule import BuiltinRule

RULES: tuple[type[BuiltinRule], ...]
__all__ = [  # noqa: RUF022  the order of the registry
    "RULES",
    "Descent",
    "Momentum",
    "Nesterov",
    "Lion",
    "Signum",
    "Rprop",
    "Adam",
    "AdamW",
    "NAdam",
    "NAdamW",
    "RAdam",
    "AdaMax",
    "AMSGrad",
    "OAdam",
    "AdaBelief",
    "Yogi",
    "LaProp",
    "Adan",
    "AdEMAMix",
    "ADOPT",
    "StableAdamW",
    "MARS",
    "AdaGrad",
    "AdaDelta",
    "RMSProp",
    "NovoGrad",
    "Prodigy",
    "Muon",
    "WeightDecay",
    "SignDecay",
    "CautiousDecay",
    "ClipGrad",
    "ClipNorm",
    "ClipRMS",
    "ZeroNonFinite",
    "AccumGrad",
    "TrustRatio",
    "Cautious",
    "Grams",
    "Ema",
    "Lookahead",
    "ScheduleFree",
    "Box",
    "NonNegative",
]

class Descent(BuiltinRule):
    @property
    def eta(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.1,
    ) -> None: ...

class Momentum(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def rho(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.01,
        rho: float = 0.9,
    ) -> None: ...

class Nesterov(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def rho(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        rho: float = 0.9,
    ) -> None: ...

class Lion(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
    ) -> None: ...

class Signum(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def rho(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        rho: float = 0.9,
    ) -> None: ...

class Rprop(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def ell(self) -> tuple[float, float]: ...
    @property
    def gamma(self) -> tuple[float, float]: ...
    def __init__(
        self,
        eta: float = 0.001,
        ell: Sequence[float] = (0.5, 1.2),
        gamma: Sequence[float] = (1e-06, 50.0),
    ) -> None: ...

class Adam(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-08,
    ) -> None: ...

class AdamW(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def couple(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
        couple: bool = True,
    ) -> None: ...

class NAdam(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def pytorch(self) -> bool: ...
    @property
    def momentum_decay(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-08,
        pytorch: bool = False,
        momentum_decay: float = 0.004,
    ) -> None: ...

class NAdamW(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
    ) -> None: ...

class RAdam(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def pytorch(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-08,
        pytorch: bool = False,
    ) -> None: ...

class AdaMax(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def pytorch(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-08,
        pytorch: bool = False,
    ) -> None: ...

class AMSGrad(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def pytorch(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-08,
        pytorch: bool = False,
    ) -> None: ...

class OAdam(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.5, 0.9),
        epsilon: float = 1e-08,
    ) -> None: ...

class AdaBelief(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-16,
    ) -> None: ...

class Yogi(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def initial(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.01,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 0.001,
        initial: float = 1e-06,
    ) -> None: ...

class LaProp(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.0004,
        beta: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-15,
    ) -> None: ...

class Adan(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def beta_difference(self) -> float: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def prox(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.98, 0.99),
        beta_difference: float = 0.92,
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
        prox: bool = True,
    ) -> None: ...

class AdEMAMix(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def beta_slow(self) -> float: ...
    @property
    def weight(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.999),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
        beta_slow: float = 0.9999,
        weight: float = 2.0,
        warmup: float = 0.0,
    ) -> None: ...

class ADOPT(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.9999),
        lambda_: float = 0.0,
        epsilon: float = 1e-06,
    ) -> None: ...

class StableAdamW(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.9, 0.99),
        lambda_: float = 0.01,
        epsilon: float = 1e-06,
    ) -> None: ...

class MARS(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def correction(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.003,
        beta: Sequence[float] = (0.95, 0.99),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
        correction: float = 0.025,
    ) -> None: ...

class AdaGrad(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.1,
        epsilon: float = 1e-08,
    ) -> None: ...

class AdaDelta(BuiltinRule):
    @property
    def rho(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        rho: float = 0.9,
        epsilon: float = 1e-08,
    ) -> None: ...

class RMSProp(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def rho(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def centred(self) -> bool: ...
    def __init__(
        self,
        eta: float = 0.001,
        rho: float = 0.9,
        epsilon: float = 1e-08,
        centred: bool = False,
        *,
        centered: bool | None = None,
    ) -> None: ...

class NovoGrad(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    def __init__(
        self,
        eta: float = 0.001,
        beta: Sequence[float] = (0.95, 0.98),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
    ) -> None: ...

class Prodigy(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def beta(self) -> tuple[float, float]: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def d0(self) -> float: ...
    @property
    def coefficient(self) -> float: ...
    @property
    def bias_correction(self) -> bool: ...
    @property
    def safeguard(self) -> bool: ...
    def __init__(
        self,
        eta: float = 1.0,
        beta: Sequence[float] = (0.9, 0.999),
        lambda_: float = 0.0,
        epsilon: float = 1e-08,
        d0: float = 1e-06,
        coefficient: float = 1.0,
        bias_correction: bool = False,
        safeguard: bool = False,
    ) -> None: ...

class Muon(BuiltinRule):
    @property
    def eta(self) -> float: ...
    @property
    def rho(self) -> float: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def nesterov(self) -> bool: ...
    @property
    def scaling(self) -> Literal["original", "match_rms", "spectral"]: ...
    @property
    def layout(self) -> Literal["out_in", "in_out"]: ...
    @property
    def batched(self) -> bool: ...
    @property
    def coefficients(self) -> Literal["keller", "polar_express"]: ...
    @property
    def steps(self) -> int: ...
    def __init__(
        self,
        eta: float = 0.02,
        rho: float = 0.95,
        lambda_: float = 0.0,
        nesterov: bool = True,
        scaling: Literal["original", "match_rms", "spectral"] = "original",
        layout: Literal["out_in", "in_out"] = "out_in",
        batched: bool = False,
        coefficients: Literal["keller", "polar_express"] = "keller",
        steps: int = 5,
    ) -> None: ...

class WeightDecay(BuiltinRule):
    @property
    def lambda_(self) -> float: ...
    def __init__(
        self,
        lambda_: float = 0.0005,
    ) -> None: ...

class SignDecay(BuiltinRule):
    @property
    def lambda_(self) -> float: ...
    def __init__(
        self,
        lambda_: float = 0.001,
    ) -> None: ...

class CautiousDecay(BuiltinRule):
    @property
    def lambda_(self) -> float: ...
    def __init__(
        self,
        lambda_: float = 0.0005,
    ) -> None: ...

class ClipGrad(BuiltinRule):
    @property
    def delta(self) -> float: ...
    def __init__(
        self,
        delta: float = 10.0,
    ) -> None: ...

class ClipNorm(BuiltinRule):
    @property
    def omega(self) -> float: ...
    @property
    def p(self) -> float: ...
    @property
    def throw(self) -> bool: ...
    @property
    def scope(self) -> Literal["leaf", "global"]: ...
    def __init__(
        self,
        omega: float = 10.0,
        p: float = 2.0,
        throw: bool = True,
        scope: Literal["leaf", "global"] = "leaf",
    ) -> None: ...

class ClipRMS(BuiltinRule):
    @property
    def omega(self) -> float: ...
    @property
    def scope(self) -> Literal["leaf", "global"]: ...
    def __init__(
        self,
        omega: float = 1.0,
        scope: Literal["leaf", "global"] = "leaf",
    ) -> None: ...

class ZeroNonFinite(BuiltinRule):
    def __init__(
        self,
    ) -> None: ...

class AccumGrad(BuiltinRule):
    @property
    def n(self) -> int: ...
    def __init__(
        self,
        n: int,
    ) -> None: ...

class TrustRatio(BuiltinRule):
    @property
    def coefficient(self) -> float: ...
    @property
    def lambda_(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def largest(self) -> float: ...
    def __init__(
        self,
        coefficient: float = 1.0,
        lambda_: float = 0.0,
        epsilon: float = 0.0,
        largest: float = 0.0,
    ) -> None: ...

class Cautious(BuiltinRule):
    @property
    def least(self) -> float: ...
    def __init__(
        self,
        least: float = 0.001,
    ) -> None: ...

class Grams(BuiltinRule):
    def __init__(
        self,
    ) -> None: ...

class Ema(BuiltinRule):
    @property
    def rho(self) -> float: ...
    def __init__(
        self,
        rho: float = 0.999,
    ) -> None: ...

class Lookahead(BuiltinRule):
    @property
    def n(self) -> int: ...
    @property
    def weight(self) -> float: ...
    def __init__(
        self,
        n: int = 5,
        weight: float = 0.5,
    ) -> None: ...

class ScheduleFree(BuiltinRule):
    @property
    def rho(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def power(self) -> float: ...
    def __init__(
        self,
        rho: float = 0.9,
        warmup: float = 0.0,
        power: float = 0.0,
    ) -> None: ...

class Box(BuiltinRule):
    @property
    def bounds(self) -> tuple[float, float]: ...
    def __init__(
        self,
        bounds: Sequence[float] = (-1.0, 1.0),
    ) -> None: ...

class NonNegative(BuiltinRule):
    def __init__(
        self,
    ) -> None: ...
