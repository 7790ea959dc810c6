"""The shapes of schedules, each in one stretch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ._schedule import between, check, check_length, schedule, shape_named


@schedule
def constant(value: float) -> Callable[[float], float]:
    """Return the value at every step.

    Args:
        value: the hyperparameter.

    Example:
        >>> from optimisers import schedules
        >>> schedules.constant(0.1)(1000)
        0.1
    """
    return lambda step: value


@schedule
def linear(start: float, end: float, steps: float) -> Callable[[float], float]:
    """Go from `start` to `end` along a straight line, and stay there.

    Args:
        start: value at step 0.
        end: value from step `steps` on.
        steps: length; > 0.

    Raises:
        ValueError: `steps` is not positive.

    Example:
        >>> from optimisers import schedules
        >>> [schedules.linear(1.0, 0.0, steps=4)(step) for step in (0, 1, 4, 9)]
        [1.0, 0.75, 0.0, 0.0]
    """
    check_length("linear", "steps", steps)
    return lambda step: between(start, end, step / steps)


@schedule
def cosine(start: float, end: float, steps: float) -> Callable[[float], float]:
    """Go from `start` to `end` along half a cosine: end + (start−end) · (1 + cos(π·step/steps))/2, and stay there.

    Args:
        start: value at step 0.
        end: value from step `steps` on.
        steps: length; > 0.

    Raises:
        ValueError: `steps` is not positive.

    Reference:
        Loshchilov & Hutter 2017, arXiv:1608.03983. With restarts: `restarts`.

    Example:
        >>> from optimisers import schedules
        >>> [round(schedules.cosine(1.0, 0.0, steps=4)(step), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    check_length("cosine", "steps", steps)
    shape = shape_named("cosine", "cosine")
    return lambda step: between(start, end, shape(min(max(step / steps, 0.0), 1.0)))


@schedule
def polynomial(start: float, end: float, steps: float, power: float = 1.0) -> Callable[[float], float]:
    """Go from `start` to `end` as end + (start−end) · (1−step/steps)^power, and stay there.

    Args:
        start: value at step 0.
        end: value from step `steps` on.
        steps: length; > 0.
        power: > 0, default 1, a straight line.

    Raises:
        ValueError: `steps` or `power` is not positive.

    Example:
        >>> from optimisers import schedules
        >>> [schedules.polynomial(1.0, 0.0, 4, power=2)(step) for step in (0, 2, 4)]
        [1.0, 0.25, 0.0]
    """
    check_length("polynomial", "steps", steps)
    check_length("polynomial", "power", power)
    return lambda step: between(end, start, max(1 - step / steps, 0.0) ** power)


@schedule
def exponential(
    start: float, decay: float, every: float = 1, end: float = 0.0, staircase: bool = False
) -> Callable[[float], float]:
    """Multiply by `decay` once in `every` steps: max(end, start · decay^(step/every)).

    Args:
        start: value at step 0.
        decay: factor; > 0, below 1 to fall.
        every: steps in which the factor applies once; > 0, default 1.
        end: lower bound; default 0.
        staircase: apply it all at once, when `every` steps are done, and not smoothly.

    Raises:
        ValueError: `decay` or `every` is not positive.

    Example:
        >>> from optimisers import schedules
        >>> schedules.exponential(0.1, 0.5, every=10)(20)
        0.025
    """
    check("exponential", decay > 0 and every > 0, f"decay and every must be > 0, got decay={decay}, every={every}")
    if staircase:
        return lambda step: max(end, start * decay ** (step // every))
    return lambda step: max(end, start * decay ** (step / every))


@schedule
def inverse(start: float, gamma: float, power: float = 1.0) -> Callable[[float], float]:
    """Fall as start / (1 + gamma · step)^power.

    Args:
        start: value at step 0.
        gamma: how fast; >= 0, per step.
        power: 1 (default), or 0.5 for the inverse square root: `warmup(inverse(peak, 1 / n, 0.5), n)` is the
            schedule of the Transformer.

    Raises:
        ValueError: `gamma` is negative.

    Example:
        >>> from optimisers import schedules
        >>> schedules.inverse(0.1, 0.25)(4)
        0.05
    """
    check("inverse", gamma >= 0, f"gamma must be >= 0, got {gamma}")
    return lambda step: start / (1 + gamma * step) ** power


@schedule
def stepwise(start: float, values: Mapping[float, float]) -> Callable[[float], float]:
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
    from bisect import bisect_right

    begins = sorted(values)
    held = [start, *(values[begin] for begin in begins)]
    return lambda step: held[bisect_right(begins, step)]


@schedule
def piecewise(points: Mapping[float, float], shape: str = "linear") -> Callable[[float], float]:
    """Go through the points, and hold the first and the last value outside.

    Args:
        points: from steps to values there; at least one.
        shape: of the way from each to the next: `"linear"` (default) or `"cosine"`.

    Raises:
        ValueError: no points, or another shape.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.piecewise({0: 0.0, 10: 1.0, 30: 0.5})
        >>> eta(5), eta(10), eta(20), eta(99)
        (0.5, 1.0, 0.75, 0.5)
    """
    check("piecewise", len(points) > 0, "at least one point is needed")
    from bisect import bisect_right

    way = shape_named("piecewise", shape)
    steps = sorted(points)
    values = [points[step] for step in steps]

    def at(step: float) -> float:
        i = bisect_right(steps, step)
        if i in (0, len(steps)):
            return values[max(i - 1, 0)]
        return between(values[i - 1], values[i], way((step - steps[i - 1]) / (steps[i] - steps[i - 1])))

    return at
