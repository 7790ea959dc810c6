"""Runs one kind of call with the interpreter's n-th allocation failing, for each n; says what was changed by a failure.

`python no_memory.py NAME`: a process of its own, since other code may not be prepared for this.
"""

from __future__ import annotations

import _testcapi
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from support import bits

import optimisers as opt

ENOUGH = 40  # calls in a row that nothing failed in: there are no more allocations to fail


class Half(opt.Rule):
    """A rule of the user's, with state."""

    def init(self, x: Any) -> Any:
        return 0

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return state + 1, dx * 0.5


@dataclass
class World:
    """What a call may change."""

    model: Any
    grads: Any
    state: Any


def arrays(size: int) -> Any:
    return {"w": np.ones(size), "b": [np.ones((3, 4), np.float32), np.ones(2, np.complex64)]}


def world(rule: Any, size: int = 50) -> World:
    model, grads = arrays(size), arrays(size)
    state = opt.setup(rule, model)
    opt.update_(state, model, grads)
    return World(model, grads, state)


def tensors() -> World:
    import torch

    layer = torch.nn.Linear(3, 2)
    for p in layer.parameters():
        p.data.fill_(0.5)
        p.grad = torch.ones_like(p)
    state = opt.setup(opt.Adam(), layer)
    opt.update_(state, layer)
    return World(layer, None, state)


def flat() -> World:
    vector, re = opt.destructure(arrays(50))
    state = opt.setup(opt.Momentum(), vector, layout=re)
    return World(vector, np.ones_like(vector), state)


CHAIN = opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.WeightDecay(), opt.Adam())
USERS = opt.OptimiserChain(opt.Momentum(), Half(), opt.Adam())

Call = Callable[[World], Any]
CALLS: dict[str, tuple[Callable[[], World], Call]] = {
    "update_": (lambda: world(opt.Adam()), lambda w: opt.update_(w.state, w.model, w.grads)),
    "update_chain": (lambda: world(CHAIN, 20_000), lambda w: opt.update_(w.state, w.model, w.grads)),
    "update_part": (lambda: world(CHAIN), lambda w: opt.update_(w.state["b"], w.model["b"], w.grads["b"])),
    "update_users": (lambda: world(USERS), lambda w: opt.update_(w.state, w.model, w.grads)),
    "update_flat": (flat, lambda w: opt.update_(w.state, w.model, w.grads)),
    "update_torch": (tensors, lambda w: opt.update_(w.state, w.model)),
    "adjust_": (lambda: world(CHAIN), lambda w: opt.adjust_(w.state, 0.3, lambda_=0.2)),
    "adjust_part": (lambda: world(USERS), lambda w: opt.adjust_(w.state["b"], rho=0.25, beta=(0.5, 0.75))),
    "adjust_rule": (lambda: world(opt.Adam()), lambda w: opt.adjust_(w.state["b"], opt.Adam(0.5, (0.5, 0.75)))),
    "freeze_": (lambda: world(CHAIN), lambda w: opt.freeze_(w.state["b"])),
    "thaw_": (lambda: world(CHAIN), lambda w: opt.thaw_(w.state)),
    "lerp_": (lambda: world(CHAIN), lambda w: opt.lerp_(w.model, w.grads, 0.25)),
    "update": (lambda: world(USERS), lambda w: opt.update(w.state, w.model, w.grads)),
    "adjust": (lambda: world(CHAIN), lambda w: opt.adjust(w.state, 0.3)),
    "destructure": (lambda: world(CHAIN), lambda w: opt.destructure(w.model)[1].flatten(w.grads)),
}


def seen(w: World) -> Any:
    """Everything a call may change, as bytes: the state's pickle has its slots, clocks, rules and what is frozen."""
    found = opt.trainables(w.model)
    return [bits(np.asarray(x.detach() if hasattr(x, "detach") else x)) for x in found], pickle.dumps(w.state)


def is_memory_error(error: Exception) -> bool:
    """The binding library says so in other words where it makes strings and numbers."""
    return isinstance(error, MemoryError) or str(error).startswith("nanobind::")


def check(name: str) -> str:
    """What went wrong, or nothing."""
    make, call = CALLS[name]
    twin = make()
    before = seen(twin)
    call(twin)
    after = seen(twin)
    n = quiet = 0
    while quiet < ENOUGH and n < 5000:
        w = make()
        error: Any = None
        _testcapi.set_nomemory(n, n + 1)
        try:
            call(w)
        except Exception as caught:
            error = caught
        finally:
            _testcapi.remove_mem_hooks()
        if error is not None and not is_memory_error(error):
            return f"allocation {n} failed, which was reported as {error!r}"
        now = seen(w)
        quiet = 0 if error is not None else quiet + 1
        if error is not None and now != before:
            return f"allocation {n} failed, and the call has changed something"
        if error is None and now != after:
            return f"with allocation {n} failing the call returned, and has not done what it should"
        if error is not None:
            call(w)
            if seen(w) != after:
                return f"after allocation {n} failed the same call does something else"
        n += 1
    return "" if n < 5000 else "there is no end of allocations"


if __name__ == "__main__":
    print(check(sys.argv[1]))
