"""The state of a transformation: arrays of the parameters' shapes, and scalars that keep all bits of doubles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Ties = tuple[tuple[int, ...], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TransformState:
    """What `Transform.init` returns: a pytree, to be jitted, scanned, sharded, donated and saved like any other.

    Attributes:
        count: int32, how often it was applied.
        clock: uint32 (n, 2), the rules' clocks: doubles, whatever JAX's precision is, as pairs of their low and high
            halves; of each leaf, one after the other, where a rule keeps something of its leaf there. `clock_values`
            reads them.
        hyperparameters: uint32 (n, 2), likewise: what `Transform.adjust` changes and each step reads. None in the state
            of an optax transformation, which has its own ways (`optax.inject_hyperparams`).
        slots: for each rule of the chain a dict from the names of its slots to trees of the parameters' structure.
        master: MixedPrecision's wide copies, a tree of the parameters' structure; else None.
        ties: which parameters were one array at `init`, by places among the leaves. Their slots stand at the first.
    """

    count: Any
    clock: Any
    hyperparameters: Any
    slots: tuple[dict[str, Any], ...]
    master: Any
    ties: Ties = field(default=(), metadata={"static": True})

    def clock_values(self) -> list[float]:
        """The clocks' scalars, stage by stage, of a state that is not being traced."""
        return doubles_of(self.clock)


def bits_of(values: Sequence[float]) -> Any:
    """Doubles as an array of JAX that loses none of their bits: uint32 (n, 2), low half first."""
    return jnp.asarray(halves(values))


def halves(values: Sequence[float]) -> np.ndarray[Any, Any]:
    return np.asarray(values, "<f8").reshape(-1, 1).view("<u4").reshape(-1, 2).astype(np.uint32)


def doubles_of(bits: Any) -> list[float]:
    """The way back."""
    return [float(x) for x in np.ascontiguousarray(np.asarray(bits)).astype("<u4").view("<f8").ravel()]
