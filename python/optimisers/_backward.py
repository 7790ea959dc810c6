"""Whether a function that returned its loss alone has called backward; where it has not, that is done for it."""

from __future__ import annotations

from typing import Any

from . import _arrays, _core
from ._state import State

Kept = list[tuple[Any, Any, int]]


def kept_before(state: State, model: Any) -> Kept:
    """The gradients that tensors hold before the loss is computed: (tensor, gradient, its version)."""
    core = state._core
    leaves = core.leaves(state._node)
    if not any(core.leaf_info(leaf)[2] == "torch" for leaf in leaves[:1] + leaves[-1:]):
        return []
    arrays = [array for _, array in _core.Model(model, "train_").leaves() if _arrays.is_tensor(array)]
    return [(array, array.grad, _version(array.grad)) for array in arrays if array.is_leaf]


def backward_if_needed(loss: Any, before: Kept) -> None:
    """Call `loss.backward()`, unless some gradient is another one since, or was added to."""
    if not before or not _arrays.is_tensor(loss) or not loss.requires_grad:
        return
    if all(array.grad is grad and _version(grad) == version for array, grad, version in before):
        loss.backward()


def _version(grad: Any) -> int:
    return -1 if grad is None else int(grad._version)
