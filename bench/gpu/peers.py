"""The peers on a device, behind the face of bench/peers: `build(case, x, dx)` gives a step to time and to check."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from cases import Case
from peers import Setting
from peers.face import NotOfferedError, Step, nested
from specs import build, hyperparameters, reference

import optimisers as opt
from gpu.plan import COPY, CUPY, FUSED, INTERPRETED, OPTAX, OURS


def tensors(arrays: list[np.ndarray], dtype: str, device: str) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=getattr(torch, dtype), device=device) for a in arrays]


class Copy:
    """Moves as many bytes as the case's step, half of them read and half of them written."""

    def __init__(self, device: str) -> None:
        self.device = device

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        count = sum(a.size for a in x) * case.bytes // 2
        source, target = (torch.empty(count, dtype=torch.uint8, device=self.device) for _ in range(2))
        source.random_()  # zeros can be faster
        return Step(lambda: target.copy_(source), list)


class Ours:
    """This library on torch tensors; `interpreted` keeps a chain from its template with a stage that does nothing."""

    def __init__(self, device: str, interpreted: bool = False) -> None:
        self.device, self.interpreted = device, interpreted

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        arrays = tensors(x, case.dtype, self.device)
        model, gradients = nested(arrays), nested(tensors(dx, case.dtype, self.device))
        rule = [*reference.flatten([case.rule]), ("Descent", {"eta": 1.0})] if self.interpreted else case.rule
        state = opt.setup(build(rule), model)
        update = opt.update_
        return Step(lambda: update(state, model, gradients), lambda: [a.double().cpu().numpy() for a in arrays])


CUPY_ADAM = """
m = beta1 * m + (1 - beta1) * dx;
v = beta2 * v + (1 - beta2) * dx * dx;
x = x - scale * m / (sqrtf(v) * root + epsilon);
"""


class Cupy:
    """What a user of CuPy writes for Adam: one elementwise kernel, the bias corrections on the host."""

    def __init__(self, device: str) -> None:
        self.cupy = importlib.import_module("cupy")
        self.device = device
        self.kernel = self.cupy.ElementwiseKernel(
            "float32 dx, float32 beta1, float32 beta2, float32 scale, float32 root, float32 epsilon",
            "float32 x, float32 m, float32 v", CUPY_ADAM, "adam",
        )  # fmt: skip

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        if case.rule[0] != "Adam":
            raise NotOfferedError("written for Adam only")
        h = hyperparameters(*case.rule)
        leaves = [(self.cupy.asarray(g), self.cupy.asarray(a)) for a, g in zip(x, dx, strict=True)]
        leaves = [(g, a, self.cupy.zeros_like(a), self.cupy.zeros_like(a)) for g, a in leaves]
        steps = [0]
        stream = self.cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)

        def run() -> None:
            steps[0] += 1
            first, second = (1 - beta ** steps[0] for beta in h.beta)
            with stream:
                for g, a, m, v in leaves:
                    self.kernel(g, *h.beta, h.eta / first, second**-0.5, h.epsilon, a, m, v)

        return Step(run, lambda: [a.get().astype(np.float64) for _, a, _, _ in leaves])


class Torch:
    """torch.optim as bench/peers has it, its arrays on the device."""

    def __init__(self, device: str, mode: str) -> None:
        module = importlib.import_module("peers.torch_optim")
        self.device, self.peer = device, module.Torch(Setting(torch.get_num_threads(), ""), mode)

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        with torch.device(self.device):
            return self.peer.build(case, x, dx)


def make(name: str, device: str) -> Any:
    """Raises ImportError, or what the package raises where it does not work, if there is no such peer here."""
    if name == COPY:
        return Copy(device)
    if name in (OURS, INTERPRETED):
        return Ours(device, interpreted=name == INTERPRETED)
    if name == CUPY:
        return Cupy(device)
    if name == OPTAX:
        return importlib.import_module("peers.optax_jit").Optax(Setting(1, ""))
    return Torch(device, "fused" if name == FUSED else "foreach")
