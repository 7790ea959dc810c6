"""Several leaves of the package followed step by step by the reference: what `support.follow` does for one."""

from __future__ import annotations

import numpy as np
from support import Follower, Spec, build, sized, wide

import optimisers as opt
import reference


def follow_together(
    specs: list[Spec], shapes: list, grads: list[list], dtype: str, frozen: tuple[int, ...] = ()
) -> None:
    """As `follow`, for leaves that share global norms."""
    model = [sized(shape, dtype, 10 + i, 0.5, 2.0) for i, shape in enumerate(shapes)]
    state = opt.setup([build(spec) for spec in specs], model)
    followers = [Follower(spec, x) for spec, x in zip(specs, model, strict=True)]
    for i in frozen:
        opt.freeze_(state[i])
    for g in grads:
        for follower, x in zip(followers, model, strict=True):
            follower.before(x)
        moving = [i for i in range(len(model)) if i not in frozen]
        reference.update(
            [followers[i].leaf for i in moving],
            [None if g[i] is None else wide(g[i]) for i in moving],
        )
        opt.update_(state, model, g)
        for i, x in enumerate(model):
            followers[i].check(x, state[i].state)


def leaf_gradients(shapes: list, dtype: str, steps: int = 6) -> list[list[np.ndarray | None]]:
    return [[sized(shape, dtype, 200 + 20 * step + i) for i, shape in enumerate(shapes)] for step in range(steps)]
