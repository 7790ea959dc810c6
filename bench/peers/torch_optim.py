"""torch.optim, fused or foreach."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cases import Case
from specs import hyperparameters, reference

from peers import Setting
from peers.face import LERP_WEIGHT, NotOfferedError, Step

optim, clip = torch.optim, torch.nn.utils


def adam_like(cls: Any) -> Callable[..., Any]:
    return lambda p, h, **kw: cls(p, lr=h.eta, betas=h.beta, eps=h.epsilon, **kw)


# name -> (the optimiser from our hyperparameters, whether its formula is the reference's, whether there is a fused one)
RULES: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    "Descent": (lambda p, h, **kw: optim.SGD(p, lr=h.eta, **kw), True, True),
    "Momentum": (lambda p, h, **kw: optim.SGD(p, lr=h.eta, momentum=h.rho, **kw), True, True),
    "Nesterov": (lambda p, h, **kw: optim.SGD(p, lr=h.eta, momentum=h.rho, nesterov=True, **kw), False, True),
    "Rprop": (lambda p, h, **kw: optim.Rprop(p, lr=h.eta, etas=h.ell, step_sizes=h.gamma, **kw), False, False),
    "RMSProp": (lambda p, h, **kw: optim.RMSprop(p, lr=h.eta, alpha=h.rho, eps=h.epsilon, **kw), True, False),
    "Adam": (adam_like(optim.Adam), True, True),
    "AdamW": (lambda p, h, **kw: adam_like(optim.AdamW)(p, h, weight_decay=h.lambda_, **kw), True, True),
    "RAdam": (adam_like(optim.RAdam), False, False),
    "NAdam": (adam_like(optim.NAdam), False, False),
    "AdaMax": (adam_like(optim.Adamax), False, False),
    "AMSGrad": (lambda p, h, **kw: adam_like(optim.Adam)(p, h, amsgrad=True, **kw), False, True),
    "AdaGrad": (lambda p, h, **kw: optim.Adagrad(p, lr=h.eta, eps=h.epsilon, **kw), False, True),
    "AdaDelta": (lambda p, h, **kw: optim.Adadelta(p, lr=1.0, rho=h.rho, eps=h.epsilon, **kw), False, False),
}  # fmt: skip


class Torch:
    def __init__(self, setting: Setting, mode: str) -> None:
        torch.set_num_threads(setting.threads)
        self.mode = mode

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        dtype = getattr(torch, case.dtype)
        p = [torch.nn.Parameter(torch.tensor(a, dtype=dtype)) for a in x]
        g = [torch.tensor(a, dtype=dtype) for a in dx]
        if case.op != "update":
            return self.other(case.op, p, g)
        for parameter, gradient in zip(p, g, strict=True):
            parameter.grad = gradient
        values = lambda: [a.detach().double().cpu().numpy() for a in p]  # noqa: E731
        if isinstance(case.rule, tuple) and case.rule[0] == "MixedPrecision":
            return self.with_master(case.rule[1]["rule"], p, g, values)
        run, exact = self.chain(case.rule, p)
        note = "moments in bfloat16 too: 14 bytes an element" if case.dtype == "bfloat16" else ""
        return Step(run, values, exact and not note, note)

    def optimiser(self, name: str, given: dict[str, Any], p: list[Any], **more: Any) -> tuple[Any, bool]:
        if name not in RULES:
            raise NotOfferedError(f"torch.optim has no {name}")
        make, exact, has_fused = RULES[name]
        if self.mode == "fused" and not has_fused:
            raise NotOfferedError(f"torch has no fused {name}")
        return make(p, hyperparameters(name, given), **{self.mode: True}, **more), exact

    def chain(self, spec: Any, p: list[Any]) -> tuple[Callable[[], Any], bool]:
        """One optimiser, with what torch lets stand before it: clips, and decay as its weight_decay."""
        *before, (name, given) = reference.flatten([spec])
        stages, more = [], {}
        for stage, h in ((n, hyperparameters(n, g)) for n, g in before):
            if stage == "WeightDecay":
                more["weight_decay"] = h.lambda_
            else:
                stages.append(self.clip(stage, h, p))
        optimiser, exact = self.optimiser(name, given, p, **more)
        step = optimiser.step
        if not stages:
            return step, exact

        def run() -> None:
            for stage in stages:
                stage()
            step()

        return run, exact

    @staticmethod
    def clip(name: str, h: SimpleNamespace, p: list[Any]) -> Callable[[], Any]:
        if name == "ClipNorm":
            return lambda: clip.clip_grad_norm_(p, h.omega, foreach=True)
        if name == "ClipGrad":
            return lambda: clip.clip_grad_value_(p, h.delta, foreach=True)
        raise NotOfferedError(f"torch has nothing like {name} before an optimiser")

    def with_master(self, rule: Any, p: list[Any], g: list[Any], values: Any) -> Step:
        """The usual idiom: float32 copies, cast in and out."""
        masters = [torch.nn.Parameter(a.detach().float()) for a in p]
        for m in masters:
            m.grad = torch.zeros_like(m)
        optimiser, exact = self.optimiser(*rule, masters)
        wide, narrow, wide_g = [m.detach() for m in masters], [a.detach() for a in p], [m.grad for m in masters]

        def run() -> None:
            torch._foreach_copy_(wide_g, g)
            optimiser.step()
            torch._foreach_copy_(narrow, wide)

        return Step(run, values, exact, "cast in, step, cast out: 40 bytes an element")

    def other(self, op: str, p: list[Any], g: list[Any]) -> Step:
        target, result = [a.detach() for a in p], [torch.zeros(())]
        vector = torch.empty(sum(a.numel() for a in g), dtype=g[0].dtype) if op == "flatten" else result[0]

        def norm() -> None:
            result[0] = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(g)))

        def flatten() -> None:
            result[0] = torch.cat([a.view(-1) for a in g], out=vector)

        def lerp() -> None:
            torch._foreach_lerp_(target, g, LERP_WEIGHT)

        if op == "lerp":
            return Step(lerp, lambda: [a.double().cpu().numpy() for a in target])
        return Step(norm if op == "norm" else flatten, lambda: [result[0].double().cpu().numpy()])
