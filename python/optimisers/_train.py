"""train_: the training loop, with any function that returns a loss and its gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from . import _core
from ._backward import backward_if_needed, kept_before
from ._batches import END, Batches
from ._core import Duplicated, InvalidTypeError, InvalidValueError, NonFiniteError, update_
from ._history import History, Step
from ._interrupts import Interrupts
from ._state import State, check_state
from ._update import update

Callback = Callable[[Step], Any]
_KEPT: Any = object()  # the gradients are with the arrays


def train_step_(value_and_grad: Callable[..., Any], state: State, model: Any, *batch: Any) -> float:
    """Take one step of `train_` and return the loss.

    Args:
        value_and_grad: see `train_`.
        state: what `setup` returned for the model.
        model: updated in place.
        *batch: passed on to `value_and_grad`.

    Returns:
        The loss before the step.

    Raises:
        FloatingPointError: the loss or a gradient is not finite; nothing was applied.
        ValueError, TypeError: as `update_`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> x = np.array([3.0])
        >>> state = opt.setup(opt.Descent(0.5), x)
        >>> opt.train_step_(lambda x, y: (float((x[0] - y) ** 2), 2 * (x - y)), state, x, 1.0)
        4.0
        >>> x
        array([1.])
    """
    loss, grads = _computed(value_and_grad, state, model, batch)
    if grads is _KEPT:
        update_(state, model, zero_grad=True, non_finite="raise")
    else:
        update_(state, model, grads, non_finite="raise")
    return loss


def train_(
    value_and_grad: Callable[..., Any],
    state: State,
    model: Any,
    data: Iterable[Any] | Callable[..., Any],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    callbacks: Callback | Iterable[Callback] = (),
    progress: bool = True,
    non_finite: Literal["stop", "raise", "skip"] = "stop",
    history: History | None = None,
    start: int | None = None,
) -> History:
    """Train a model in place: one `update_` for each batch.

    Ctrl-C ends the training: the step at hand is either applied and recorded or neither, and the history is returned
    as after any other end. Models whose arrays cannot be written (JAX, read-only) go through `update`, which copies
    model and state at each step: the new ones are `history.model` and `history.state`, the old ones stay as they are.

    Args:
        value_and_grad: called as `value_and_grad(model, *batch)`; returns `(loss, grads)`. One that
            returns the loss alone leaves the gradients with the arrays (`loss.backward()` in
            torch, which is called here if it has not been): they are used and set to zero.
        state: what `setup` returned for the model.
        model: what `value_and_grad` differentiates.
        data: batches; a tuple or list is passed as several arguments, anything else as one. With `steps` also a
            function that returns a batch; if it takes an argument, it gets the number of steps done.
        epochs: how often to go through the data; >= 1, default 1.
        steps: instead of `epochs`: how many steps to take, over and over through the data; >= 1.
        callbacks: a function of a `Step`, or several, called after every step; one that returns `True` ends the
            training. Their method `before_step`, where there is one, is called before every step.
        progress: show a progress bar, if tqdm is installed.
        non_finite: a step with a loss or gradient that is not finite is never applied; `"stop"` (default) warns, ends
            the training and returns the history, `"raise"` raises, `"skip"` goes on with the next batch, counts it in
            `history.skipped` and warns at the end.
        history: of an earlier training that this one goes on from, also unpickled; it gets longer, and is returned.
        start: number of steps done before, for callbacks and schedules; that of `history` if not given. The data
            are read from where they begin.

    Returns:
        A `History`.

    Raises:
        FloatingPointError: loss or gradient is not finite, with `non_finite="raise"`.
        ValueError: as `update_`; the data have no batch, or fewer than `steps`.
        TypeError: as `update_`; `epochs` > 1 for data that can be read only once.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"w": np.zeros(1)}
        >>> def value_and_grad(model, x, y):
        ...     error = model["w"] * x - y
        ...     return float(error @ error), {"w": 2 * x * error}
        >>> data = [(np.array([1.0]), np.array([2.0]))] * 20
        >>> state = opt.setup(opt.Descent(), model)
        >>> history = opt.train_(value_and_grad, state, model, data)
        >>> history.losses[0], round(history.losses[-1], 3)
        (4.0, 0.001)
        >>> history = opt.train_(value_and_grad, state, model, data, steps=30, history=history)
        >>> len(history), history.epochs
        (50, [20, 40])
    """
    check_state(state, "train_")
    if non_finite not in ("stop", "raise", "skip"):
        raise InvalidValueError(f'train_: non_finite must be "stop", "raise" or "skip", got {non_finite!r}')
    if history is not None and not isinstance(history, History):
        raise InvalidTypeError(f"train_: history must be a History, got {type(history).__name__}")
    if start is not None and (not hasattr(start, "__index__") or start < 0):
        raise InvalidValueError(f"train_: start must be an integer >= 0, got {start!r}")
    batches = Batches(data, epochs, steps)
    skipped_before = 0 if history is None else history.skipped
    loop = Loop(value_and_grad, _listed(callbacks), non_finite, Step(state, model, history, start), pure(model))
    bar = _progress_bar(batches.total()) if progress else None
    try:
        with Interrupts() as interrupts:
            loop.run(batches, interrupts, bar)
    except KeyboardInterrupt:
        loop.info.history.stopped = f"interrupted at step {loop.info.step + 1}"
    finally:
        if bar is not None:
            bar.close()
    if skipped := loop.info.history.skipped - skipped_before:
        warnings.warn(f"train_: {skipped} steps were left out: loss or gradients were not finite", stacklevel=2)
    return loop.info.history


class Loop(NamedTuple):
    value_and_grad: Callable[..., Any]
    callbacks: list[Any]
    non_finite: str
    info: Step
    pure: bool  # arrays cannot be written
    call: str = "train_"

    def run(self, batches: Batches, interrupts: Interrupts, bar: Any) -> None:
        info = self.info
        for batch in batches.read(info.step):
            if batch is END:
                info.history.epochs.append(len(info.history))
                info.epoch += 1
            elif not self.step(batch, interrupts):
                return
            elif bar is not None:
                bar.set_postfix(loss=f"{info.loss:.4g}", refresh=False)
                bar.update()

    def step(self, batch: Any, interrupts: Interrupts) -> bool:
        """One batch with its callbacks; false where training ends."""
        info = self.info
        for callback in self.callbacks:
            if hasattr(callback, "before_step"):
                callback.before_step(info)
        arguments = batch if isinstance(batch, tuple | list) else (batch,)
        try:
            loss, grads = _computed(self.value_and_grad, info.state, info.model, arguments)
            with interrupts.held():
                if not self.apply(loss, grads):
                    return True
        except NonFiniteError as error:
            return self.goes_on_after(error)
        stopping = [callback for callback in self.callbacks if _is_true(callback(info))]
        if stopping:
            name = getattr(stopping[0], "__name__", type(stopping[0]).__name__)
            info.history.stopped = f"{name} at step {info.step}"
        return not stopping

    def apply(self, loss: float, grads: Any) -> bool:
        """Update and record; false where the step was left out."""
        info = self.info
        what: Literal["skip", "raise"] = "skip" if self.non_finite == "skip" else "raise"
        given = () if grads is _KEPT else (grads,)
        before = info.state.skipped
        if self.pure:
            info.took(*update(info.state, info.model, *given, non_finite=what))
        elif given:
            update_(info.state, info.model, grads, non_finite=what)
        else:
            update_(info.state, info.model, zero_grad=True, non_finite=what)
        if info.state.skipped != before:
            info.history.skipped += 1
            return False
        info.record(loss)
        return True

    def goes_on_after(self, error: NonFiniteError) -> bool:
        if self.non_finite == "raise":
            raise error
        history = self.info.history
        if self.non_finite == "skip" and isinstance(error, LossError):
            _forget_kept_gradients(self.info.model)
            history.skipped += 1
            return True
        reason = error.reason if isinstance(error, LossError) else str(error).partition(";")[0]
        history.stopped = f"{reason} at step {self.info.step + 1}"
        what = "training" if self.call == "train_" else self.call
        warnings.warn(f"{self.call}: {history.stopped}; the step was not applied, {what} ends", stacklevel=5)
        return False


class LossError(NonFiniteError):
    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call}: the {reason}; the step was not applied")
        self.reason = reason


def _computed(value_and_grad: Callable[..., Any], state: State, model: Any, batch: Any) -> tuple[float, Any]:
    """The loss, which is finite, and the gradients."""
    before = kept_before(state, model)
    result = value_and_grad(model, *batch)
    has_grads = isinstance(result, tuple)
    if has_grads and len(result) != 2:
        raise InvalidTypeError(f"train_: value_and_grad must return (loss, grads), got a tuple of length {len(result)}")
    loss = _number(result[0] if has_grads else result)
    if not math.isfinite(loss):
        raise LossError("train_", f"loss is {loss}")
    if not has_grads:
        _check_kept(state)
        backward_if_needed(result, before)
    return loss, result[1] if has_grads else _KEPT


def _check_kept(state: State) -> None:
    """Whether the gradients can be with the arrays, where nothing but a loss was returned."""
    core = state._core
    leaves = core.leaves(state._node)
    if not core.has_layout() and leaves and core.leaf_info(leaves[0])[2] != "torch":
        raise InvalidTypeError(
            "train_: value_and_grad returned a loss without gradients, which only arrays of torch keep themselves; "
            "return (loss, grads)"
        )


def _number(loss: Any) -> float:
    try:
        return float(loss.detach() if hasattr(loss, "detach") else loss)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"train_: the loss must be one real number, got {type(loss).__name__}") from None


def _is_true(answer: Any) -> bool:
    return answer is True or (type(answer).__module__ == "numpy" and isinstance(answer, _numpy_bool()) and bool(answer))


def _numpy_bool() -> type:
    import numpy as np

    return np.bool_


def _listed(callbacks: Any) -> list[Any]:
    if callable(callbacks):
        return [callbacks]
    if callbacks is None:
        return []
    if not isinstance(callbacks, Iterable):
        raise InvalidTypeError(f"train_: callbacks must be functions of a Step, got {type(callbacks).__name__}")
    listed = list(callbacks)
    for callback in listed:
        if not callable(callback):
            raise InvalidTypeError(f"train_: callbacks must be functions of a Step, got {callback!r}")
    return listed


def pure(model: Any) -> bool:
    """Whether some trained array cannot be written, so that a step makes new ones."""
    if isinstance(model, Duplicated):
        return False
    return any(not _core.may_write(array) for _, array in _core.Model(model, "train_").leaves())


def _forget_kept_gradients(model: Any) -> None:
    """Those of a step that is left out, to which the next ones would be added."""
    if isinstance(model, Duplicated):
        for _, array in _core.Model(model.grads, "train_").leaves():
            array[...] = 0
        return
    for _, array in _core.Model(model, "train_").leaves():
        if getattr(array, "grad", None) is not None:
            array.grad = None


def _progress_bar(total: int | None) -> Any:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    return tqdm(total=total, unit="step")
