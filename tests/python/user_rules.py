"""Rules written in Python, for the tests of such rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support import layers

import optimisers as opt


@dataclass(frozen=True)
class Scale(opt.Rule):
    """Multiplies; counts its calls."""

    eta: float = 0.5

    def init(self, x: Any) -> Any:
        return 0

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return state + 1, self.eta * dx


@dataclass(frozen=True)
class MyMomentum(opt.Rule):
    """Momentum once more, with a state of some structure."""

    eta: float = 0.01
    rho: float = 0.9

    def init(self, x: Any) -> Any:
        return {"v": 0 * x, "steps": [0]}

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        state["v"] = self.rho * state["v"] + self.eta * dx
        state["steps"][0] += 1
        return state, state["v"]


@dataclass(frozen=True)
class Around(opt.Rule):
    """A rule that uses another one."""

    rule: opt.Rule = field(default_factory=opt.Adam)

    def init(self, x: Any) -> Any:
        return opt.init(self.rule, x)

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return opt.apply_(self.rule, state, x, dx)


class Failing(opt.Rule):
    """Fails at the last leaf, when the others have been through all their stages."""

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        if x.shape == (5,):
            raise RuntimeError("no")
        return state, dx


class Returning(opt.Rule):
    def __init__(self, result: Any) -> None:
        self.result = result

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return self.result(state, x, dx)


def run(rule: opt.Rule, model: Any, steps: int = 4, seed: int = 7) -> Any:
    state = opt.setup(rule, model)
    for step in range(steps):
        opt.update_(state, model, layers(dtype=model["layers"][0]["bias"].dtype.name, seed=seed + step))
    return state
