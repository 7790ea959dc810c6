"""What a training has seen, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ._state import State


class History:
    """What `train_` has seen: one loss a step.

    Pickled it is without state and model.

    Args:
        losses: of each step that was applied.
        epochs: number of losses at the end of each complete epoch.
        stopped: why training ended before the data did; `None` if it did not.

    Attributes:
        skipped: steps that were left out, with `non_finite="skip"`.
        start: number of steps done before the first loss.
        applied: steps after which the parameters were written: fewer than losses where `AccumGrad` gathers.
        state, model: as training left them: those it was given, or, where arrays cannot be written (JAX), new ones.
        progress: what `minimize` goes on from.

    Example:
        >>> import optimisers as opt
        >>> opt.History([2.0, 1.0])
        History(2 steps, 0 epochs, last loss 1.0)
    """

    __slots__ = ("applied", "epochs", "losses", "model", "progress", "skipped", "start", "state", "stopped")
    progress: Any
    state: Any
    model: Any

    def __init__(self, losses: Iterable[float] = (), epochs: Iterable[int] = (), stopped: str | None = None) -> None:
        self.losses: list[float] = list(losses)
        self.epochs: list[int] = list(epochs)
        self.stopped = stopped
        self.start, self.skipped, self.applied = 0, 0, len(self.losses)
        self.state = self.model = self.progress = None

    def __len__(self) -> int:
        return len(self.losses)

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.6}" if self.losses else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"History({len(self)} steps, {len(self.epochs)} epochs{last}{skipped}{stopped})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _history, (
            self.losses,
            self.epochs,
            self.stopped,
            (self.start, self.skipped, self.applied),
            self.progress,
        )

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


def _history(
    losses: list[float], epochs: list[int], stopped: str | None, counts: tuple[int, int, int], progress: Any = None
) -> History:
    history = History(losses, epochs, stopped)
    history.start, history.skipped, history.applied = counts
    history.progress = progress
    return history


class Step:
    """What a callback gets.

    Args:
        step: number of steps done, those before this training included.
        applied: number of steps after which the parameters were written, which is what schedules go by: one of n
            where an `AccumGrad(n)` gathers.
        epoch: from 0.
        loss: of the last step; NaN before the first.
        state, model: as given to `train_`; where arrays cannot be written, those of the last step.
        history: with the last step's loss in it.
    """

    __slots__ = ("_windows", "applied", "epoch", "history", "loss", "model", "state", "step")

    def __init__(self, state: State, model: Any, history: History | None = None, step: int | None = None) -> None:
        self.state, self.model, self.loss = state, model, math.nan
        self.history = History() if history is None else history
        self._windows = Windows(state)
        self.step = self.history.start + len(self.history) if step is None else step
        self.history.start = self.step - len(self.history)
        self.applied = self.history.applied if history is not None else self.step // self._windows.length()
        self.epoch = len(self.history.epochs)
        self.history.stopped = None
        self.took(state, model)

    def took(self, state: State, model: Any) -> None:
        """These are state and model from now on."""
        self.state, self.model = state, model
        self.history.state, self.history.model = state, model

    def record(self, loss: float) -> None:
        """A step was applied."""
        self.loss = loss
        self.step += 1
        self.applied += self._windows.closed(self.state)
        self.history.losses.append(loss)
        self.history.applied = self.applied


class Windows:
    """The windows of `AccumGrad`: whether the last step closed one."""

    def __init__(self, state: State) -> None:
        core, rules = state._core, state._core.rules
        gathers = {id(rule): any(type(stage).__name__ == "AccumGrad" for stage in rule._stages()) for rule in rules}
        leaves = core.leaves(state._node)
        every = bool(leaves) and all(gathers[id(rules[leaf])] for leaf in leaves)
        # One leaf for each rule tells of all; where some gather nothing, each step writes those.
        self.leaves = list({id(rules[leaf]): leaf for leaf in reversed(leaves)}.values()) if every else []
        self.lengths = [self._length(state, leaf) for leaf in self.leaves]

    @staticmethod
    def _length(state: State, leaf: int) -> int:
        fields = [value for value in state._core.rule_values(leaf) if value.name == "AccumGrad"]
        return math.prod(value.values()[0] for value in fields)

    def length(self) -> int:
        """Steps until the first of them closes."""
        return min(self.lengths, default=1)

    def closed(self, state: State) -> bool:
        return not self.leaves or any(self._is_closed(state, leaf) for leaf in self.leaves)

    @staticmethod
    def _is_closed(state: State, leaf: int) -> bool:
        clocks = [dict(clock) for clock in state._core.clocks(leaf)]
        return all(clock.get("calls", 0) == 0 for clock in clocks)
