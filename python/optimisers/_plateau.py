"""reduce_on_plateau: learning rates that follow what is measured, and not the number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from ._adjust import adjust_
from ._schedule import check
from ._state import State


class reduce_on_plateau:  # noqa: N801  called like the schedules
    """Multiply every learning rate by a factor when something has not become better for a while.

    A callback for `train_`; in a loop of one's own call `observe_(state, value)`. It prints, compares and can be
    pickled with what it has seen, so that a training can go on.

    As torch's ReduceLROnPlateau: the rates fall with observation `patience + 1` without an improvement. (optax counts
    one less.) Each rate is multiplied by its own, so that their ratios stay.

    Args:
        factor: in (0, 1), default 0.1.
        patience: observations without improvement that are let pass; >= 0, default 10.
        threshold: what counts as an improvement; >= 0, default 1e-4.
        threshold_mode: `"rel"` (default): by that part of the best; `"abs"`: by so much.
        cooldown: observations after a fall in which none counts; >= 0, default 0.
        min_scale: the product of all factors does not fall below; >= 0, default 0.
        mode: `"min"` (default) or `"max"`: which is better.
        monitor: function of the `Step`; one that returns `None` observes nothing at that step. The loss if not given.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Descent(0.1), np.zeros(1))
        >>> plateau = opt.schedules.reduce_on_plateau(0.5, patience=1)
        >>> [plateau.observe_(state, loss) for loss in (1.0, 1.0, 1.0)], state.rule
        ([False, False, True], Descent(eta=0.05))
    """

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_scale: float = 0.0,
        mode: Literal["min", "max"] = "min",
        monitor: Callable[[Any], float | None] | None = None,
    ) -> None:
        self.factor, self.patience, self.threshold, self.threshold_mode = factor, patience, threshold, threshold_mode
        self.cooldown, self.min_scale, self.mode, self.monitor = cooldown, min_scale, mode, monitor
        call = "reduce_on_plateau"
        check(call, 0 < factor < 1, f"factor must be in (0, 1), got {factor}")
        for name in ("patience", "threshold", "cooldown", "min_scale"):
            value = getattr(self, name)
            check(call, 0 <= value < math.inf, f"{name} must be >= 0, got {value}")
        for name, choices in (("threshold_mode", ("rel", "abs")), ("mode", ("min", "max"))):
            value = getattr(self, name)
            check(call, value in choices, f"{name} must be {choices[0]!r} or {choices[1]!r}, got {value!r}")
        self.best = math.inf if mode == "min" else -math.inf
        self.waited, self.resting, self.scale = 0, 0, 1.0

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, reduce_on_plateau) else NotImplemented

    def __repr__(self) -> str:
        return f"reduce_on_plateau({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __call__(self, info: Any) -> None:
        """Observe a step of `train_`."""
        value = info.loss if self.monitor is None else self.monitor(info)
        if value is not None:
            self.observe_(info.state, value)

    def observe_(self, state: State, value: float) -> bool:
        """Look at a value, and lower the learning rates of a state if it is time. Returns whether they fell."""
        value = float(value)
        better = self._is_better(value)
        waited, resting = (0 if better else self.waited + 1), self.resting
        if resting > 0:
            waited, resting = 0, resting - 1
        scale = self.scale
        if waited > self.patience:
            waited, resting = 0, self.cooldown
            scale = min(max(scale * self.factor, self.min_scale), scale)
        fell = scale < self.scale
        if fell:
            adjust_(state, scale=self.factor if scale > self.min_scale else scale / self.scale)
        self.best = value if better else self.best
        self.waited, self.resting, self.scale = waited, resting, scale
        return fell

    def _is_better(self, value: float) -> bool:
        if math.isinf(self.best):  # nothing seen yet
            return value < self.best if self.mode == "min" else value > self.best
        margin = self.threshold if self.mode == "max" else -self.threshold
        least = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return value < least if self.mode == "min" else value > least
