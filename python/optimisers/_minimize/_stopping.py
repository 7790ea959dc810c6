"""When minimize ends, and what it has seen that decides it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._core import InvalidTypeError, InvalidValueError

DONE, MAXITER, NOT_FINITE, INTERRUPTED, CALLBACK = 0, 1, 2, 3, 99  # status; 99 is SciPy's
SAME_VALUE = 1e-8  # relative to the value, or to 1


class Stop(Exception):  # noqa: N818  no error
    """Raised where an evaluation was the last one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Limits(NamedTuple):
    maxiter: int | None
    gtol: float | None
    ftol: float | None
    xtol: float | None
    patience: int | None

    @classmethod
    def checked(cls, call: str, stochastic: bool, **given: Any) -> Limits:
        """These values, if they can be, with defaults."""
        for name in ("maxiter", "patience"):
            value = given[name]
            if value is not None and (not hasattr(value, "__index__") or isinstance(value, bool)):
                raise InvalidTypeError(f"{call}: {name} must be an integer, got {value!r}")
            if value is not None and value < (name == "patience"):
                raise InvalidValueError(f"{call}: {name} must be >= {int(name == 'patience')}, got {value}")
        for name in ("gtol", "ftol", "xtol"):
            value = given[name]
            try:
                good = value is None or 0 <= value < math.inf
            except TypeError:
                raise InvalidTypeError(f"{call}: {name} must be a number, got {value!r}") from None
            if not good:
                raise InvalidValueError(f"{call}: {name} must be >= 0 and finite, got {value}")
        if not stochastic:  # gradients of single batches say little
            given["maxiter"] = 1000 if given["maxiter"] is None else given["maxiter"]
            given["gtol"] = 1e-5 if given["gtol"] is None else given["gtol"]
        return cls(**given)


class Progress(NamedTuple):
    """What earlier evaluations said."""

    value: float = math.inf  # the best
    waited: int = 0  # iterations since it was found
    last: float | None = None
    step: int = -1  # of the last evaluation
    applied: int = -1

    def after(self, value: float, step: int, applied: int) -> Progress:
        """With one more; one that is repeated, or at an x that has not moved, is not counted."""
        if step == self.step:
            return self
        moved = applied != self.applied
        waited = 0 if value < self.value else self.waited + moved
        return Progress(min(value, self.value), waited, value, step, applied)


def check(limits: Limits, value: float, last: float | None, waited: int) -> None:
    """End where the values no longer fall."""
    if (
        limits.ftol is not None
        and last is not None
        and abs(value - last) <= limits.ftol * max(abs(value), abs(last), 1)
    ):
        raise Stop(DONE, "converged: the value changed by no more than ftol")
    if limits.patience is not None and waited >= limits.patience:
        raise Stop(DONE, f"the value has not become smaller for {waited} iterations (patience)")


def check_moved(limits: Limits, moved: float, size: float) -> None:
    if limits.xtol is not None and moved <= limits.xtol * max(size, 1):
        raise Stop(DONE, "converged: no element of x moved by more than xtol")
