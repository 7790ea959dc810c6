# Written by tools/make_stubs.py from the C++ registry.
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ._optimizer import Optimizer

Tensors = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]
Params = torch.nn.Module | Tensors

class Named(Optimizer): ...

CLASSES: tuple[type[Named], ...]
__all__ = [  # noqa: RUF022  torch.optim's, then the registry's
    "CLASSES",
    "SGD",
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Rprop",
    "Descent",
    "Momentum",
    "Nesterov",
    "Lion",
    "Signum",
    "NAdamW",
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
    "NovoGrad",
    "Prodigy",
    "Muon",
]

class SGD(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        momentum: float | torch.Tensor = 0.0,
        dampening: float | torch.Tensor = 0.0,
        weight_decay: float | torch.Tensor = 0.0,
        nesterov: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Adam(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        amsgrad: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class AdamW(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.01,
        amsgrad: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class NAdam(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.002,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        momentum_decay: float | torch.Tensor = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class RAdam(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Adamax(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.002,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Adagrad(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.01,
        lr_decay: float | torch.Tensor = 0.0,
        weight_decay: float | torch.Tensor = 0.0,
        initial_accumulator_value: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-10,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Adadelta(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 1.0,
        rho: float | torch.Tensor = 0.9,
        eps: float | torch.Tensor = 1e-06,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class RMSprop(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.01,
        alpha: float | torch.Tensor = 0.99,
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        momentum: float | torch.Tensor = 0.0,
        centered: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Rprop(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.01,
        etas: Sequence[float] = (0.5, 1.2),
        step_sizes: Sequence[float] = (1e-06, 50.0),
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Descent(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.1,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Momentum(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.01,
        momentum: float | torch.Tensor = 0.9,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Nesterov(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        momentum: float | torch.Tensor = 0.9,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Lion(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Signum(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        momentum: float | torch.Tensor = 0.9,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class NAdamW(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class AMSGrad(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-08,
        pytorch: bool = False,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class OAdam(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.5, 0.9),
        eps: float | torch.Tensor = 1e-08,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class AdaBelief(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-16,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Yogi(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.01,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 0.001,
        initial: float | torch.Tensor = 1e-06,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class LaProp(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.0004,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float | torch.Tensor = 1e-15,
        weight_decay: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Adan(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.98, 0.99),
        beta_difference: float | torch.Tensor = 0.92,
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        prox: bool = True,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class AdEMAMix(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        beta_slow: float | torch.Tensor = 0.9999,
        weight: float | torch.Tensor = 2.0,
        warmup: float | torch.Tensor = 0.0,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class ADOPT(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.9999),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-06,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class StableAdamW(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float | torch.Tensor = 0.01,
        eps: float | torch.Tensor = 1e-06,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class MARS(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.003,
        betas: Sequence[float] = (0.95, 0.99),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        correction: float | torch.Tensor = 0.025,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class NovoGrad(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.001,
        betas: Sequence[float] = (0.95, 0.98),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Prodigy(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 1.0,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float | torch.Tensor = 0.0,
        eps: float | torch.Tensor = 1e-08,
        d0: float | torch.Tensor = 1e-06,
        coefficient: float | torch.Tensor = 1.0,
        bias_correction: bool = False,
        safeguard: bool = False,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...

class Muon(Named):
    def __init__(
        self,
        params: Params,
        lr: float | torch.Tensor = 0.02,
        momentum: float | torch.Tensor = 0.95,
        weight_decay: float | torch.Tensor = 0.0,
        nesterov: bool = True,
        scaling: str = "original",
        layout: str = "out_in",
        batched: bool = False,
        coefficients: str = "keller",
        steps: float | torch.Tensor = 5,
        *,
        clip_grad_norm: float | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None: ...
