"""Schedules put together, and the usual ones in one piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ._schedule import between, check, check_length, schedule, shape_named
from ._shapes import cosine, piecewise


@schedule
def warmup(
    schedule: Callable[[float], float], steps: float, start: float = 0.0, shape: str = "linear"
) -> Callable[[float], float]:
    """Rise to where a schedule begins, then follow it.

    Args:
        schedule: what follows; its step 0 is step `steps` here.
        steps: length of the rise; >= 0.
        start: value at step 0; default 0, which wastes the first step.
        shape: of the rise: `"linear"` (default) or `"cosine"`.

    Raises:
        ValueError: `steps` is negative, or another shape.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.warmup(schedules.cosine(0.1, 0.0, steps=90), steps=10)
        >>> eta(0), eta(5), eta(10), eta(100)
        (0.0, 0.05, 0.1, 0.0)
    """
    check("warmup", 0 <= steps < math.inf, f"steps must be >= 0, got {steps}")
    way, peak = shape_named("warmup", shape), schedule(0)
    return lambda step: between(start, peak, way(max(step / steps, 0.0))) if step < steps else schedule(step - steps)


@schedule
def warmup_cosine(peak: float, steps: float, warmup: float = 0, end: float = 0.0) -> Callable[[float], float]:
    """Rise linearly to the peak in `warmup` steps, then fall to `end` along half a cosine.

    step < warmup:  peak · min((step+1)/warmup, 1)
    else:           end + (peak−end) · (1 + cos(π·(step−warmup)/(steps−warmup)))/2

    Args:
        peak: the highest value.
        steps: when `end` is reached; > warmup. Later steps stay there.
        warmup: length of the rise; >= 0, default 0. The first step is not 0, which would be wasted; where it is to
            be, as in optax, `warmup(cosine(...), ...)` has it.
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
    check("warmup_cosine", 0 <= warmup < steps, f"warmup must be in [0, steps), got warmup={warmup}, steps={steps}")
    fall = cosine(peak, end, steps - warmup)

    def at(step: float) -> float:
        if step >= warmup:
            return fall(step - warmup)
        return peak if step + 1 >= warmup else peak * (step + 1) / warmup

    return at


@schedule
def wsd(
    peak: float, steps: float, warmup: float, decay: float, end: float = 0.0, shape: str = "linear"
) -> Callable[[float], float]:
    """Warm up, stay, decay: rise from 0 to the peak, hold it, and fall to `end` in the last steps.

    Args:
        peak: the value that is held.
        steps: when `end` is reached; >= warmup + decay.
        warmup: steps of the rise, a straight line; >= 0.
        decay: steps of the fall; > 0.
        end: the last value; default 0.
        shape: of the fall: `"linear"` (default), `"cosine"`, or `"sqrt"`, which is 1 − √t.

    Raises:
        ValueError: lengths that do not fit, or another shape.

    Reference:
        Hu et al. 2024, arXiv:2404.06395; the root: Hägele et al. 2024, arXiv:2405.18392.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.wsd(1.0, steps=100, warmup=10, decay=20)
        >>> eta(5), eta(50), eta(90), eta(100)
        (0.5, 1.0, 0.5, 0.0)
    """
    check_length("wsd", "decay", decay)
    holds = warmup >= 0 and decay <= steps - warmup
    check("wsd", holds, f"warmup + decay must be at most steps, got warmup={warmup}, decay={decay}, steps={steps}")
    way, begin = shape_named("wsd", shape, ("linear", "cosine", "sqrt")), steps - decay

    def at(step: float) -> float:
        if step < warmup:
            return between(0.0, peak, step / warmup)
        return between(peak, end, way(min(max(step - begin, 0.0) / decay, 1.0)))

    return at


@schedule
def one_cycle(
    peak: float,
    steps: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    shape: str = "cosine",
) -> Callable[[float], float]:
    """Rise to the peak and fall far below where it began: one cycle, as torch's OneCycleLR.

    The peak is at step pct_start·steps − 1, the end at step steps − 1. optax puts both a step later:
    `piecewise({0: peak / 25, int(0.3 * steps): peak, steps: peak / 25e4}, "cosine")`.

    Args:
        peak: the highest value.
        steps: number of steps of the cycle; pct_start·steps > 1.
        pct_start: part of the cycle in which it rises; in (0, 1), default 0.3.
        div_factor: it begins at peak/div_factor; > 0, default 25.
        final_div_factor: it ends at peak/div_factor/final_div_factor; > 0, default 10000.
        shape: `"cosine"` (default) or `"linear"`.

    Raises:
        ValueError: an argument is out of range.

    Reference:
        Smith & Topin 2018, arXiv:1708.07120.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.one_cycle(1.0, steps=100)
        >>> eta(0), eta(29), eta(99)
        (0.04, 1.0, 4e-06)
    """
    check_length("one_cycle", "div_factor", div_factor)
    check_length("one_cycle", "final_div_factor", final_div_factor)
    holds = 0 < pct_start < 1 and pct_start * steps > 1
    check("one_cycle", holds, f"pct_start must be in (1/steps, 1), got pct_start={pct_start}, steps={steps}")
    first = peak / div_factor
    return piecewise({0: first, pct_start * steps - 1: peak, steps - 1: first / final_div_factor}, shape)


@schedule
def restarts(
    schedule: Callable[[float], float], steps: float, factor: float = 1.0, decay: float = 1.0
) -> Callable[[float], float]:
    """Begin a schedule again and again.

    Args:
        schedule: the first cycle, of which `steps` steps are taken.
        steps: length of the first cycle; > 0.
        factor: each cycle is so many times as long as the one before, and the schedule stretched to it; >= 1.
        decay: each cycle's values are so many times those of the one before; > 0.

    Raises:
        ValueError: an argument is out of range.

    Reference:
        Loshchilov & Hutter 2017, arXiv:1608.03983.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.restarts(schedules.cosine(1.0, 0.0, 10), steps=10, factor=2)
        >>> eta(0), eta(5), eta(10), eta(20), eta(30)
        (1.0, 0.5, 1.0, 0.5, 1.0)
    """
    check_length("restarts", "steps", steps)
    check_length("restarts", "decay", decay)
    check("restarts", 1 <= factor < math.inf, f"factor must be >= 1, got {factor}")

    def at(step: float) -> float:
        cycle, length = 0, float(steps)
        if factor == 1:
            cycle, step = int(step // steps), step % steps
        while step >= length:
            step -= length
            cycle += 1
            length *= factor
        return schedule(step * (steps / length)) * decay**cycle

    return at


@schedule
def join(schedules: Sequence[Callable[[float], float]], boundaries: Sequence[float]) -> Callable[[float], float]:
    """Follow one schedule after the other, each from its own step 0.

    Args:
        schedules: in order.
        boundaries: the steps at which all but the first begin; rising, one fewer than schedules.

    Raises:
        ValueError: another number of boundaries, or they do not rise.

    Example:
        >>> from optimisers import schedules
        >>> eta = schedules.join([schedules.constant(1.0), schedules.linear(0.5, 0.0, 10)], [100])
        >>> eta(99), eta(100), eta(105)
        (1.0, 0.5, 0.25)
    """
    count = len(schedules)
    check("join", count == len(boundaries) + 1, f"{count} schedules need {count - 1} boundaries, got {len(boundaries)}")
    check("join", sorted(set(boundaries)) == list(boundaries), f"boundaries must rise, got {boundaries}")
    from bisect import bisect_right

    begins = [0, *boundaries]

    def at(step: float) -> float:
        i = bisect_right(boundaries, step)
        return schedules[i](step - begins[i])

    return at
