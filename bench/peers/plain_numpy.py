"""NumPy as one writes it down: Adam with in-place operations, and the three other calls."""

from __future__ import annotations

import math

import numpy as np
from cases import Case
from specs import names

from peers import Setting
from peers.face import LERP_WEIGHT, NotOfferedError, Step


class Numpy:
    def __init__(self, setting: Setting) -> None:
        pass

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        if case.op != "update":
            return self.other(case.op, x, dx)
        if names(case.rule) != "Adam" or case.dtype != "float32":
            raise NotOfferedError(f"nothing written in NumPy for {case.title}")
        state = [(p, g, np.zeros_like(p), np.zeros_like(p)) for p, g in zip(x, dx, strict=True)]
        t = 0

        def step() -> None:
            nonlocal t
            t += 1
            root = math.sqrt(1 - 0.999**t)
            for p, g, m, v in state:
                m *= 0.9
                m += 0.1 * g
                v *= 0.999
                v += 0.001 * (g * g)
                p -= (1e-3 * root / (1 - 0.9**t)) * m / (np.sqrt(v) + 1e-8 * root)

        return Step(step, lambda: x)

    def other(self, op: str, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        result: list[np.ndarray] = [np.zeros(())]

        def norm() -> None:
            result[0] = np.sqrt(sum(float(np.vdot(g, g)) for g in dx))

        vector = np.empty(sum(g.size for g in dx), dx[0].dtype) if op == "flatten" else result[0]

        def flatten() -> None:
            result[0] = np.concatenate([g.ravel() for g in dx], out=vector)

        def lerp() -> None:
            for target, source in zip(x, dx, strict=True):
                target += LERP_WEIGHT * (source - target)

        if op == "lerp":
            return Step(lerp, lambda: x)
        return Step(norm if op == "norm" else flatten, lambda: [np.asarray(result[0], np.float64)])
