"""Schedules: plain functions from the number of steps done (0 before the first) to a hyperparameter.

Hand them to `Adjusting` in `train_`, or write `adjust_(state, schedule(step))` in a loop of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ._core import InvalidValueError

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """Return the value at every step.

    Args:
        value: the hyperparameter.

    Example:
        >>> from optimisers import schedules
        >>> schedules.constant(0.1)(1000)
        0.1
    """
    return lambda step: value


def warmup_cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> Schedule:
    """Rise linearly to the peak in `warmup` steps, then fall to `end` along half a cosine.

    step < warmup:  peak · (step+1)/warmup
    else:           end + (peak−end) · (1 + cos(π·(step−warmup)/(steps−warmup)))/2

    Args:
        peak: the highest value.
        steps: when `end` is reached; > warmup. Later steps stay there.
        warmup: length of the rise; >= 0, default 0. The first step is not 0, which would be wasted.
        end: the last value; default 0.

    Raises:
        ValueError: `warmup` is negative or not below `steps`.

    Reference:
        Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.warmup_cosine(0.1, steps=100, warmup=10)
        >>> eta(0), eta(9), eta(100)
        (0.01, 0.1, 0.0)
    """
    if not 0 <= warmup < steps:
        raise InvalidValueError(f"warmup_cosine: warmup must be in [0, steps), got warmup={warmup}, steps={steps}")

    def schedule(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        done = min((step - warmup) / (steps - warmup), 1.0)
        return end + (peak - end) * (1 + math.cos(math.pi * done)) / 2

    return schedule


def exponential(start: float, decay: float, every: int = 1, end: float = 0.0) -> Schedule:
    """Multiply by `decay` once in `every` steps, smoothly: max(end, start · decay^(step/every)).

    Args:
        start: value at step 0.
        decay: factor; > 0, below 1 to fall.
        every: steps in which the factor applies once; > 0, default 1.
        end: lower bound; default 0.

    Raises:
        ValueError: `decay` or `every` is not positive.

    Example:
        >>> from optimisers import schedules
        >>> schedules.exponential(0.1, 0.5, every=10)(20)
        0.025
    """
    if not (decay > 0 and every > 0):
        raise InvalidValueError(f"exponential: decay and every must be > 0, got decay={decay}, every={every}")
    return lambda step: max(end, start * decay ** (step / every))


def inverse(start: float, gamma: float, power: float = 1.0) -> Schedule:
    """Fall as start / (1 + gamma · step)^power.

    Args:
        start: value at step 0.
        gamma: how fast; >= 0, per step.
        power: 1 (default), or 0.5 for the inverse square root.

    Raises:
        ValueError: `gamma` is negative.

    Example:
        >>> from optimisers import schedules
        >>> schedules.inverse(0.1, 0.25)(4)
        0.05
    """
    if not gamma >= 0:
        raise InvalidValueError(f"inverse: gamma must be >= 0, got {gamma}")
    return lambda step: start / (1 + gamma * step) ** power


def stepwise(start: float, values: Mapping[int, float]) -> Schedule:
    """Hold one value until a step at which the next begins.

    Args:
        start: value at step 0.
        values: from the step at which it begins to each further value.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.stepwise(0.1, {100: 0.01, 200: 0.001})
        >>> eta(99), eta(100), eta(500)
        (0.1, 0.01, 0.001)
    """
    ordered = sorted(values.items())

    def schedule(step: int) -> float:
        value = start
        for begin, following in ordered:
            if step < begin:
                break
            value = following
        return value

    return schedule
