"""minimize: train_'s loop around a function of x."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, Literal, TypeVar

from .._callbacks import Adjusting
from .._core import InvalidTypeError, InvalidValueError
from .._history import Step
from .._plateau import reduce_on_plateau
from .._rule import Rule
from .._setup import setup
from .._state import State
from .._train import Loop, pure
from ._bounds import Bounds
from ._evaluate import Evaluation, Function, telling
from ._leaves import CALL, Structure, like
from ._result import OptimizeResult
from ._stopping import DONE, INTERRUPTED, MAXITER, NOT_FINITE, Limits, Progress, Stop

T = TypeVar("T")


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    rule: Any,
    *,
    jac: Any = True,
    args: Any = (),
    bounds: Any = None,
    maxiter: int | None = None,
    gtol: float | None = None,
    ftol: float | None = None,
    xtol: float | None = None,
    patience: int | None = None,
    schedule: Any = None,
    callback: Callable[..., Any] | None = None,
    batches: Iterable[Any] | None = None,
    non_finite: Literal["stop", "raise", "skip"] = "stop",
    state: Any = None,
) -> OptimizeResult:
    """Minimise a function whose gradient is known by a rule, and return the best x that was seen.

    The arguments that SciPy's `minimize` has mean what they do there; as a method of that function the rules are
    `scipy_method`. `x0` is not written; functions and callbacks get copies of x; float32 stays float32. A rule takes
    steps without looking whether the value falls: where L-BFGS can be used, on smooth functions without noise, it
    needs far fewer evaluations.

    Args:
        fun: called as `fun(x, *args)`, returns `(value, gradient)`; with `jac` a function, the value.
        x0: where to begin: an array of floats, real or complex, or a tree of them. The gradient has its structure.
        rule: as for `setup`; `None` with `state`.
        jac: function `jac(x, *args)` that returns the gradient; `True` (default): `fun` does.
        args: further arguments, a tuple.
        bounds: `(lower, upper)` for all elements; one pair an element; or `scipy.optimize.Bounds`; with `None` for no
            bound. For a tree one of these for all leaves, or a tree that has one at each bounded leaf. x0, and x after
            every step, are projected onto them. In float32 they are rounded inwards, in 16-bit arrays to the nearest.
        maxiter: steps to take, >= 0; default 1000, with `batches` as many as there are.
        gtol: end where no element of the gradient is larger; with bounds, of x − P(x − gradient). Default 1e-5, with
            `batches` off; with 0 where it is zero.
        ftol: end where |f − f'| <= ftol · max(|f|, |f'|, 1) for two successive values; default off.
        xtol: end where no element of x moved by more than xtol · max(‖x‖∞, 1); default off.
        patience: end after so many steps without a new smallest value, >= 1; default off. Equal is no smaller.
        schedule: function of the number of steps that sets `eta`, such as those of `schedules`; or `Adjusting`
            for other fields, or `reduce_on_plateau`.
        callback: called after every step as `callback(x)`, or `callback(intermediate_result=...)` if this is its one
            parameter, with fields x, fun, nit, nfev. Raising `StopIteration`, or returning `True`, ends it.
        batches: for functions that are noisy: `fun(x, batch, *args)` gets one after the other, each for one step. Such
            values cannot be compared: the result has the last x, with the value of the last batch before that step.
        non_finite: where value or gradient is not finite, `"stop"` (default) warns and returns the best so far,
            `"raise"` raises; `"skip"`, with `batches`, goes on with the next one. Such a step is never taken.
        state: the result of an earlier call, from which this one goes on, with the bits of a call that had not
            ended: x0 gives the structure alone. Or the state of x0 that `setup` returned, with its rules, frozen parts
            and layout. Neither is changed. Both can be pickled.

    Returns:
        A dict with attributes, as SciPy's `OptimizeResult`: `x`, `fun`, `jac`: the best, its value and gradient, where
        gtol was met that x, unless its value is larger by more than 1e-8 (relative to it, or to 1);
        `success`, `message`, `status`: 0 a tolerance or the patience was met, 1 maxiter or the batches came to an end,
        2 not finite, 3 Ctrl-C, 99 the callback; `nit`, `nfev`, `njev`: steps and evaluations, those of the result that
        it went on from included; `history`: a `History`, the value before each step; `state`: of the rule, after the
        last step; `last`: x after the last step.

    Raises:
        ValueError: bounds with lower > upper, bounds or a gradient of another shape, an argument out of range.
        TypeError: integers, or numbers in a list, as x0; `fun` does not return what it should.
        FloatingPointError: value or gradient is not finite, with `non_finite="raise"`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> def fun(x, a):
        ...     return np.sum((x - a) ** 2), 2 * (x - a)
        >>> found = opt.minimize(fun, np.zeros(3), opt.Adam(0.1), args=(2.0,), bounds=(None, 1.5))
        >>> found.x, found.success
        (array([1.5, 1.5, 1.5]), True)
    """
    if non_finite not in ("stop", "raise", "skip") or (non_finite == "skip" and batches is None):
        allowed = '"stop" or "raise"; "skip" goes with batches, since the same x would give the same value'
        raise InvalidValueError(f"{CALL}: non_finite must be {allowed}; got {non_finite!r}")
    limits = Limits.checked(
        CALL, batches is not None, maxiter=maxiter, gtol=gtol, ftol=ftol, xtol=xtol, patience=patience
    )
    if batches is not None and not isinstance(batches, Iterable):
        raise InvalidTypeError(f"{CALL}: batches must give one batch after the other, got {type(batches).__name__}")
    earlier = state if _is_result(state) else None
    structure = Structure(x0)
    if earlier is not None:
        structure.check_same(earlier.last)
    x = structure.copy(x0 if earlier is None else earlier.last)
    structure = Structure(x)
    box = None if bounds is None else Bounds(bounds, structure)
    evaluation = Evaluation(Function(fun, jac, args, structure), box, limits, telling(callback))
    callbacks = _scheduled(schedule)
    info = Step(_state(state, rule, x), x, None if earlier is None else _copy(earlier.history))
    evaluation.begin(info, batches is not None, non_finite == "skip", earlier)
    status, message = _ended(Loop(evaluation, callbacks, non_finite, info, pure(x), CALL), evaluation, batches)
    return _result(evaluation, status, message)


def _ended(loop: Loop, evaluation: Evaluation, batches: Iterable[Any] | None) -> tuple[int, str]:
    """Take the steps; status and message of the end."""
    info = loop.info
    try:
        with evaluation.interrupts as interrupts:
            for batch in repeat(()) if batches is None else _each(batches, evaluation):
                if not loop.step(batch, interrupts):
                    return NOT_FINITE, f"{info.history.stopped}; the step was not applied"
    except Stop as stop:
        return stop.status, stop.message
    except KeyboardInterrupt:
        return INTERRUPTED, f"interrupted at step {info.step + 1}"
    if info.step >= evaluation.end:
        return MAXITER, evaluation.maxiter_message()
    return MAXITER, "the batches have come to an end"


def _each(batches: Iterable[Any], evaluation: Evaluation) -> Iterator[tuple[Any]]:
    """One batch a step, as the one argument it is; none is read that is not taken."""
    reading, taken = iter(batches), 0
    while evaluation.info.step < evaluation.end:
        try:
            batch = next(reading)
        except StopIteration:
            if not taken:
                raise InvalidValueError(f"{CALL}: there are no batches, or they have been read before") from None
            return
        taken += 1
        yield (batch,)


def _result(evaluation: Evaluation, status: int, message: str) -> OptimizeResult:
    evaluation.project()
    info, best, structure = evaluation.info, evaluation.best, evaluation.structure
    info.history.stopped = None if status == MAXITER else message
    info.history.progress = evaluation.progress
    at_last = evaluation.stochastic or not best.x
    return OptimizeResult(
        message=message,
        success=status == DONE,
        status=status,
        fun=best.value,
        x=structure.copy(info.model) if at_last else structure.tree(best.x),
        jac=structure.tree([like(g, a) for g, a in zip(best.jac, structure.arrays, strict=True)]) if best.jac else None,
        nit=info.step,
        nfev=evaluation.nfev,
        njev=evaluation.nfev,
        history=info.history,
        state=info.state,
        last=info.model,
    )


def _copy(thing: T) -> T:
    import copy  # which is not loaded with the package

    return copy.deepcopy(thing)


def _is_result(state: Any) -> bool:
    """Whether it is what minimize returned, also through SciPy."""
    return isinstance(state, dict) and isinstance(getattr(state.get("history"), "progress", None), Progress)


def _state(given: Any, rule: Any, x: Any) -> State:
    """The state to step with, which nobody else has."""
    if given is None:
        return setup(rule, x)
    state = given["state"] if _is_result(given) else given
    if not isinstance(state, State):
        raise InvalidTypeError(
            f"{CALL}: state must be the result of an earlier call, or what setup returned for x0, got "
            f"{type(given).__name__}"
        )
    before = state._core.setup_rule
    if isinstance(rule, Rule) and isinstance(before, Rule) and rule != before:
        raise InvalidValueError(
            f"{CALL}: the state was set up with {before!r}, the rule is {rule!r}; its hyperparameters are changed by "
            "adjust_(result.state, ...), and rule=None takes it as it is"
        )
    if state._core.path(state._node):
        raise InvalidValueError(f"{CALL}: the state is a part of one; set one up for x0")
    return _copy(state)


def _scheduled(schedule: Any) -> list[Any]:
    if schedule is None:
        return []
    if isinstance(schedule, (Adjusting, reduce_on_plateau)) or hasattr(schedule, "before_step"):
        return [schedule]
    if not callable(schedule):
        raise InvalidTypeError(
            f"{CALL}: schedule must be a function of the number of steps that returns eta, or Adjusting(...), got "
            f"{schedule!r}; a constant is the rule's own eta"
        )
    return [Adjusting(eta=schedule)]
