"""train_: the training loop, with any function that returns a loss and its gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Literal

from ._adjust import adjust_
from ._core import InvalidTypeError, InvalidValueError, NonFiniteError, update_
from ._state import State

Callback = Callable[["Step"], Any]


class History:
    """What `train_` has seen: one loss a step.

    Args:
        losses: of each step that was applied.
        epochs: number of steps after each complete epoch.
        stopped: why training ended before the data did; `None` if it did not.

    Example:
        >>> import optimisers as opt
        >>> opt.History([2.0, 1.0])
        History(2 steps, 0 epochs, last loss 1.0)
    """

    __slots__ = ("epochs", "losses", "stopped")

    def __init__(self, losses: Iterable[float] = (), epochs: Iterable[int] = (), stopped: str | None = None) -> None:
        self.losses: list[float] = list(losses)
        self.epochs: list[int] = list(epochs)
        self.stopped = stopped

    def __len__(self) -> int:
        return len(self.losses)

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.6}" if self.losses else ""
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"History({len(self)} steps, {len(self.epochs)} epochs{last}{stopped})"

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the steps, with a line at each epoch; needs matplotlib.

        Args:
            ax: the matplotlib axes to draw on; a new figure's if there are none.

        Returns:
            The axes.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots()
        ax.plot(range(1, len(self) + 1), self.losses)
        for end in self.epochs[:-1]:
            ax.axvline(end, color="0.85", zorder=0)
        ax.set(xlabel="step", ylabel="loss")
        return ax


class Step:
    """What a callback gets.

    Args:
        step: number of steps done.
        epoch: from 0.
        loss: of the last step; NaN before the first.
        state, model: as given to `train_`.
        history: with the last step's loss in it.
    """

    __slots__ = ("epoch", "history", "loss", "model", "state", "step")

    def __init__(self, state: State, model: Any) -> None:
        self.step, self.epoch, self.loss = 0, 0, math.nan
        self.state, self.model, self.history = state, model, History()


class Adjusting:
    """A callback for `train_` that sets hyperparameters before every step.

    Args:
        **schedules: by the field's name, a function of the number of steps done; see `schedules`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> x = np.array([1.0])
        >>> state = opt.setup(opt.Descent(), x)
        >>> halving = opt.Adjusting(eta=opt.schedules.exponential(0.5, 0.5))
        >>> history = opt.train_(lambda x: (x.sum(), np.ones(1)), state, x, [()] * 3, callbacks=[halving])
        >>> state.rule, x
        (Descent(eta=0.125), array([0.125]))
    """

    def __init__(self, **schedules: Callable[[int], Any]) -> None:
        self.schedules = schedules

    def before_step(self, info: Step) -> None:
        adjust_(info.state, **{name: schedule(info.step) for name, schedule in self.schedules.items()})

    def __call__(self, info: Step) -> None:
        """Nothing is left to be done after a step."""


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
        >>> opt.train_(lambda x: (1.0, np.zeros(1)), state, x, [()] * 9, callbacks=[opt.EarlyStop(2)])
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
        FloatingPointError: the loss is not finite; nothing was applied.
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
    result = value_and_grad(model, *batch)
    has_grads = isinstance(result, tuple)
    if has_grads and len(result) != 2:
        raise InvalidTypeError(f"train_: value_and_grad must return (loss, grads), got a tuple of length {len(result)}")
    loss = _number(result[0] if has_grads else result)
    if not math.isfinite(loss):
        raise _LossError(loss)
    if has_grads:
        update_(state, model, result[1])
    else:
        update_(state, model, zero_grad=True)
    return loss


def train_(
    value_and_grad: Callable[..., Any],
    state: State,
    model: Any,
    data: Iterable[Any],
    *,
    epochs: int = 1,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    non_finite: Literal["stop", "raise"] = "stop",
) -> History:
    """Train a model in place: one `update_` for each batch.

    Args:
        value_and_grad: called as `value_and_grad(model, *batch)`; returns `(loss, grads)`. One that
            returns the loss alone has left the gradients with the arrays (`loss.backward()` in
            torch): they are used and set to zero.
        state: what `setup` returned for the model.
        model: what `value_and_grad` differentiates.
        data: batches; a tuple is passed as several arguments, anything else as one.
        epochs: how often to go through the data; >= 1, default 1.
        callbacks: functions of a `Step`, called after every step; one that returns true ends the
            training. Their method `before_step`, where there is one, is called before every step.
        progress: show a progress bar, if tqdm is installed.
        non_finite: a loss that is not finite is never applied; `"stop"` (default) warns, ends the
            training and returns the history, `"raise"` raises.

    Returns:
        A `History`.

    Raises:
        FloatingPointError: the loss is not finite, with `non_finite="raise"`.
        ValueError, TypeError: as `update_`; `epochs` > 1 for data that can be read only once.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"w": np.zeros(1)}
        >>> def value_and_grad(model, x, y):
        ...     error = model["w"] * x - y
        ...     return float(error @ error), {"w": 2 * x * error}
        >>> data = [(np.array([1.0]), np.array([2.0]))] * 20
        >>> history = opt.train_(value_and_grad, opt.setup(opt.Descent(), model), model, data)
        >>> history.losses[0], round(history.losses[-1], 3)
        (4.0, 0.001)
    """
    if epochs < 1:
        raise InvalidValueError(f"train_: epochs must be >= 1, got {epochs}")
    if epochs > 1 and isinstance(data, Iterator):
        raise InvalidTypeError("train_: epochs > 1 needs data that can be read again, such as a list; got an iterator")
    if non_finite not in ("stop", "raise"):
        raise InvalidValueError(f'train_: non_finite must be "stop" or "raise", got {non_finite!r}')
    callbacks = list(callbacks)
    info = Step(state, model)
    bar = _progress_bar(data, epochs) if progress else None
    try:
        for info.epoch in range(epochs):
            for batch in data:
                if not _one_step(value_and_grad, info, batch, callbacks, non_finite):
                    return info.history
                if bar is not None:
                    bar.set_postfix(loss=f"{info.loss:.4g}", refresh=False)
                    bar.update()
            info.history.epochs.append(info.step)
    finally:
        if bar is not None:
            bar.close()
    return info.history


def _one_step(f: Callable[..., Any], info: Step, batch: Any, callbacks: list[Callback], non_finite: str) -> bool:
    """One batch with its callbacks; false where training ends."""
    for callback in callbacks:
        if hasattr(callback, "before_step"):
            callback.before_step(info)
    try:
        loss = train_step_(f, info.state, info.model, *(batch if isinstance(batch, tuple) else (batch,)))
    except _LossError as error:
        if non_finite == "raise":
            raise
        info.history.stopped = f"loss is {error.loss} at step {info.step + 1}"
        warnings.warn(f"train_: {info.history.stopped}; the step was not applied, training ends", stacklevel=3)
        return False
    info.loss = loss
    info.step += 1
    info.history.losses.append(loss)
    stopping = [callback for callback in callbacks if callback(info)]
    if stopping:
        name = getattr(stopping[0], "__name__", type(stopping[0]).__name__)
        info.history.stopped = f"{name} at step {info.step}"
    return not stopping


class _LossError(NonFiniteError):
    def __init__(self, loss: float) -> None:
        super().__init__(f"train_: the loss is {loss}; the step was not applied")
        self.loss = loss


def _number(loss: Any) -> float:
    try:
        return float(loss.detach() if hasattr(loss, "detach") else loss)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidTypeError(f"train_: the loss must be one real number, got {type(loss).__name__}") from None


def _progress_bar(data: Iterable[Any], epochs: int) -> Any:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    total = len(data) * epochs if isinstance(data, Sized) else None
    return tqdm(total=total, unit="step")
