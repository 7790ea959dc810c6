"""One evaluation: the value and its gradient at a copy of x, the best so far, and whether it was the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core import InvalidTypeError
from .._history import Step
from .._interrupts import Interrupts
from .._train import LossError
from ._bounds import Bounds
from ._leaves import CALL, Structure, copied, copy_into, largest, like, values
from ._result import OptimizeResult
from ._stopping import CALLBACK, DONE, MAXITER, SAME_VALUE, Limits, Progress, Stop, check, check_moved


class Function:
    """fun and jac as one function of x, that returns a real number and the gradient; both get copies of x."""

    def __init__(self, fun: Any, jac: Any, args: Any, structure: Structure) -> None:
        if not callable(fun):
            raise InvalidTypeError(f"{CALL}: fun must be a function of x, got {type(fun).__name__}")
        if jac is not True and not callable(jac):
            raise InvalidTypeError(
                f"{CALL}: jac must be a function that returns the gradient, or True where fun returns "
                f"(value, gradient); got {jac!r}, and no gradient is estimated here (scipy.optimize.approx_fprime does)"
            )
        self.fun, self.jac, self.structure = fun, jac, structure
        self.args = args if isinstance(args, tuple) else (args,)

    def __call__(self, x: Any, batch: tuple[Any, ...]) -> tuple[float, Any]:
        result = self.fun(self.structure.copy(x), *batch, *self.args)
        if self.jac is not True:
            value = _number(result)
            # Nothing is asked for where there is no value.
            return value, self.jac(self.structure.copy(x), *batch, *self.args) if math.isfinite(value) else None
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            what = f"{len(result)} things" if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
            raise InvalidTypeError(
                f"{CALL}: fun must return (value, gradient), got {what}; with jac=, a function for the gradient, it "
                "returns the value alone"
            )
        return _number(result[0]), result[1]


def _number(value: Any) -> float:
    value = values(value)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        shape = f" of shape {tuple(value.shape)}" if getattr(value, "shape", ()) else ""
        raise InvalidTypeError(
            f"{CALL}: the value of fun must be one real number, got a {type(value).__name__}{shape}"
        ) from None


class Best:
    """The x with the smallest value, and the gradient there."""

    def __init__(self, structure: Structure, earlier: Any = None) -> None:
        self.structure, self.value = structure, math.nan
        self.x: list[Any] = []
        self.jac: list[Any] = []
        if earlier is not None and earlier.jac is not None:
            self.value = earlier.fun
            self.x = [copied(x) for x in structure.leaves(earlier.x)]
            self.jac = [copied(g) for g in structure.leaves(earlier.jac)]

    def hold(self, value: float, x: list[Any], grads: list[Any]) -> None:
        """Of values that cannot be compared, the last."""
        self.value, self.x, self.jac = value, x, _filled(grads, x)

    def take(self, value: float, x: list[Any], grads: list[Any]) -> None:
        self.value, grads = value, _filled(grads, x)
        if not self.x:
            self.x = [copied(a) for a in x]
            self.jac = [like(g, a) for a, g in zip(x, grads, strict=True)]
            return
        self.x = [copy_into(mine, a) for mine, a in zip(self.x, x, strict=True)]
        self.jac = [
            like(g, a) if mine is g else copy_into(mine, g) for mine, a, g in zip(self.jac, x, grads, strict=True)
        ]


def _filled(grads: list[Any], x: list[Any]) -> list[Any]:
    return [0 * values(a) if g is None else g for a, g in zip(x, grads, strict=True)]


class Evaluation:
    """What the loop takes for the gradients: called with x, it returns them, or raises `Stop`."""

    def __init__(
        self, function: Function, bounds: Bounds | None, limits: Limits, tells: Callable[..., Any] | None
    ) -> None:
        self.function, self.bounds, self.limits, self.tells = function, bounds, limits, tells
        self.structure = function.structure
        self.stochastic = self.skips = False
        self.nfev, self.first, self.end = 0, 0, math.inf  # the step it begins with, and the one it ends with
        self.previous: list[Any] = []  # x of the evaluation before
        self.progress = Progress()
        self.best = Best(self.structure)
        self.interrupts = Interrupts()
        self.info: Step

    def begin(self, info: Step, stochastic: bool, skips: bool, earlier: Any) -> None:
        self.info, self.stochastic, self.skips = info, stochastic, skips
        self.first = info.step
        self.end = math.inf if self.limits.maxiter is None else info.step + self.limits.maxiter
        if earlier is not None:
            self.nfev, self.progress = earlier.nfev, earlier.history.progress
            self.best = Best(self.structure, earlier)

    def __call__(self, x: Any, *batch: Any) -> tuple[float, Any]:
        leaves = self.project()
        self.nfev += 1
        value, given = self.function(self.info.model, batch)
        if not math.isfinite(value):
            raise LossError(CALL, f"value is {value}")
        grads, each = self.structure.gradients(given)
        steepest = largest([g for g in each if g is not None])
        if math.isfinite(steepest):
            self.look(value, leaves, each, steepest)
        elif not self.skips:  # which the update does
            raise LossError(CALL, "gradient is not finite")
        return value, grads

    def project(self) -> list[Any]:
        """Bring x within its bounds."""
        leaves = self.structure.leaves(self.info.model)
        if self.bounds is None:
            return leaves
        inside = self.bounds.project(leaves)
        if any(new is not old for new, old in zip(inside, leaves, strict=True)):
            self.info.took(self.info.state, self.structure.tree(inside))
        return inside

    def look(self, value: float, leaves: list[Any], grads: list[Any], steepest: float) -> None:
        """Keep what is best, tell the callback, and end where it is time."""
        before, info = self.progress, self.info
        with self.interrupts.held():
            self.progress = before.after(value, info.step, info.applied)
            if self.stochastic:
                self.best.hold(value, leaves, grads)
            elif value < before.value or math.isnan(self.best.value):
                self.best.take(value, leaves, grads)
        if info.step > self.first:
            self.tell(value, leaves)
        self.look_at_gradient(value, leaves, grads, steepest)
        if info.step != before.step and info.applied != before.applied and before.step >= 0:
            check(self.limits, value, before.last, self.progress.waited)
        self.look_at_x(leaves, info.applied != before.applied)
        if info.step >= self.end:
            raise Stop(MAXITER, self.maxiter_message())

    def maxiter_message(self) -> str:
        return f"maxiter is reached: {self.limits.maxiter} iterations"

    def look_at_gradient(self, value: float, leaves: list[Any], grads: list[Any], steepest: float) -> None:
        if self.limits.gtol is None:
            return
        size = steepest if self.bounds is None else self.bounds.optimality(leaves, grads)
        if size > self.limits.gtol:
            return
        # Values say less about x than gradients do: a smaller one may be a matter of rounding.
        if not self.stochastic and value <= self.best.value + SAME_VALUE * max(abs(self.best.value), 1):
            with self.interrupts.held():
                self.best.take(value, leaves, grads)
        raise Stop(DONE, "converged: no element of the gradient is larger than gtol")

    def look_at_x(self, leaves: list[Any], moved: bool) -> None:
        if self.limits.xtol is None:
            return
        if self.previous and moved:
            steps = [values(a) - values(b) for a, b in zip(leaves, self.previous, strict=True)]
            check_moved(self.limits, largest(steps), largest(leaves))
        if self.previous:
            self.previous = [copy_into(mine, x) for mine, x in zip(self.previous, leaves, strict=True)]
        else:
            self.previous = [copied(x) for x in leaves]

    def tell(self, value: float, leaves: list[Any]) -> None:
        if self.tells is None:
            return
        x = self.structure.tree([copied(array) for array in leaves])
        try:
            stops = self.tells(value, x, self.info.step, self.nfev)
        except StopIteration:
            raise Stop(CALLBACK, "`callback` raised `StopIteration`.") from None
        if stops:
            raise Stop(CALLBACK, "`callback` returned True.")


def telling(callback: Any) -> Callable[..., Any] | None:
    """A function of (value, x, nit, nfev) that calls a callback in the way it wants, and returns whether to end."""
    if callback is None:
        return None
    if not callable(callback):
        raise InvalidTypeError(f"{CALL}: callback must be a function, got {callback!r}")
    import inspect

    try:
        by_name = set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):
        by_name = False

    def tells(value: float, x: Any, nit: int, nfev: int) -> bool:
        if by_name:
            answer = callback(intermediate_result=OptimizeResult(x=x, fun=value, nit=nit, nfev=nfev))
        else:
            answer = callback(x)
        return isinstance(answer, (bool, np.bool_)) and bool(answer)

    return tells
