"""setup: from a rule and a model to a state tree."""

from __future__ import annotations

import warnings
from typing import Any

from . import _core
from ._destructure import Restructure
from ._resolve import resolve
from ._state import State, handle


def setup(rule: Any, model: Any, *, layout: Restructure[Any] | None = None) -> State:
    """Return the state of a rule for every trained array of a model.

    Args:
        rule: a rule; or a tree of rules with the model's containers, down to where one rule covers
            all below; or a function `(path, leaf) -> rule`.
        model: nested dicts, lists, tuples, named tuples and dataclasses of NumPy arrays and torch
            tensors, or one array. With `layout`, the flat vector.
        layout: the second result of `destructure`. The leaves are then segments of the vector, and
            the state has the shape of the model.

    Returns:
        A `StateTree` of the model's shape; for one array a `Leaf`.

    Raises:
        ValueError: arrays overlap, the model contains itself, a leaf has no rule, or the vector has
            the wrong length.
        TypeError: `rule` is no rule.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Momentum(), {"w": np.zeros((2, 3)), "b": np.zeros(3)})
        >>> state["w"].state.v.shape
        (2, 3)
    """
    if layout is not None:
        if not isinstance(layout, Restructure):
            raise _core.InvalidTypeError(
                f"setup: layout must be the second result of destructure, got {type(layout).__name__}"
            )
        native = layout._native
        core = native.segmented_state(resolve(rule, native), model)
        return handle(core, 0)  # type: ignore[no-any-return]
    native = _core.Model(model, "setup")
    if native.leaf_count() == 0:
        warnings.warn("setup: the model has no trained array", stacklevel=2)
    return handle(native.state(resolve(rule, native)), 0)  # type: ignore[no-any-return]
