"""Callbacks for train_."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._adjust import adjust_
from ._core import InvalidTypeError, InvalidValueError
from ._history import Step


class Adjusting:
    """A callback for `train_` that sets hyperparameters before every step.

    Where no value has changed since, it does nothing.

    Args:
        **schedules: by the field's name, a function of the number of steps that were applied (`Step.applied`), such
            as those of `schedules`.

    Raises:
        TypeError: something without a name, or not callable; `scale`, which would multiply once more at every step.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> x = np.array([1.0])
        >>> state = opt.setup(opt.Descent(), x)
        >>> halving = opt.Adjusting(eta=opt.schedules.exponential(0.5, 0.5))
        >>> history = opt.train_(lambda x: (x.sum(), np.ones(1)), state, x, [()] * 3, callbacks=halving)
        >>> state.rule, x
        (Descent(eta=0.125), array([0.125]))
    """

    def __init__(self, *unnamed: Any, **schedules: Callable[[int], Any]) -> None:
        if unnamed:
            raise InvalidTypeError("Adjusting: each schedule goes with the name of its field, as in Adjusting(eta=...)")
        if "scale" in schedules:
            raise InvalidTypeError("Adjusting: scale would multiply once more at every step; give eta a schedule")
        for name, schedule in schedules.items():
            if not callable(schedule):
                raise InvalidTypeError(
                    f"Adjusting: {name} must be a function of the number of steps, got {schedule!r}; "
                    f"for a constant write adjust_(state, {name}=...) once"
                )
        self.schedules = schedules
        self._set: tuple[Any, ...] = ()  # where and what was set last, and the state's revision then

    def before_step(self, info: Step) -> None:
        step = info.applied
        values = [schedule(step) for schedule in self.schedules.values()]
        state = info.state
        core = state._core
        if self._set == (values, state._node, core.revision, id(core)):
            return
        adjust_(state, **dict(zip(self.schedules, values, strict=True)))
        self._set = (values, state._node, core.revision, id(core))

    def __call__(self, info: Step) -> None:
        """Nothing is left to be done after a step."""

    def __repr__(self) -> str:
        return f"Adjusting({', '.join(f'{name}={schedule!r}' for name, schedule in self.schedules.items())})"

    def __getstate__(self) -> dict[str, Any]:
        return {"schedules": self.schedules, "_set": ()}


class EarlyStop:
    """A callback for `train_` that stops when something has not become smaller for a while.

    Args:
        patience: how many steps without improvement are allowed; >= 0.
        min_delta: what counts as an improvement; >= 0, default 0.
        monitor: function of the `Step`; the loss if not given.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> x = np.zeros(1)
        >>> state = opt.setup(opt.Descent(), x)
        >>> opt.train_(lambda x: (1.0, np.zeros(1)), state, x, [()] * 9, callbacks=opt.EarlyStop(2))
        History(3 steps, 0 epochs, last loss 1.0, stopped: EarlyStop at step 3)
    """

    def __init__(self, patience: int, min_delta: float = 0.0, monitor: Callable[[Step], float] | None = None) -> None:
        if patience < 0 or not min_delta >= 0:
            raise InvalidValueError(
                f"EarlyStop: patience and min_delta must be >= 0, got patience={patience}, min_delta={min_delta}"
            )
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.best, self.waited = math.inf, 0

    def __call__(self, info: Step) -> bool:
        value = info.loss if self.monitor is None else float(self.monitor(info))
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        return self.waited >= self.patience
