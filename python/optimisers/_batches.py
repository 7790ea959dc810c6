"""Where the batches of train_ come from: data read once or several times, or so many steps of anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from ._core import InvalidTypeError, InvalidValueError

END: Any = object()  # of an epoch


class Batches:
    """The batches of a training, with `END` after each complete reading of the data."""

    def __init__(self, data: Any, epochs: int | None, steps: int | None) -> None:
        self.data, self.steps = data, steps
        self.epochs = 1 if epochs is None and steps is None else epochs
        self.made: Callable[[int], Any] | None = None
        if steps is not None:
            if epochs is not None:
                raise InvalidTypeError("train_: epochs and steps both say when to end; give one of them")
            _check_count("steps", steps)
        else:
            _check_count("epochs", self.epochs)
        if not isinstance(data, Iterable):
            if not callable(data):
                raise InvalidTypeError(f"train_: data must give batches, got {type(data).__name__}")
            if steps is None:
                raise InvalidTypeError("train_: data is a function; say with steps= how often to call it")
            self.made = data if _takes_an_argument(data) else lambda step: data()
        elif epochs is not None and epochs > 1 and isinstance(data, Iterator):
            raise InvalidTypeError(
                "train_: epochs > 1 needs data that can be read again, such as a list; got an iterator"
            )

    def total(self) -> int | None:
        """How many steps there will be, if that is known."""
        if self.epochs is None:
            return self.steps
        return len(self.data) * self.epochs if isinstance(self.data, Sized) else None

    def read(self, done: int) -> Iterator[Any]:
        """Each batch; a function is called with the number of steps done."""
        if self.made is not None:
            assert self.steps is not None
            for step in range(done, done + self.steps):
                yield self.made(step)
            return
        readings = taken = 0
        while readings != self.epochs and taken != self.steps:
            before = taken
            for batch in self._until_enough(taken):
                taken += 1
                yield batch
            if taken == before or (isinstance(self.data, Iterator) and self.steps not in (None, taken)):
                raise InvalidValueError(self._nothing_left(readings, taken))
            if self.epochs is not None or self._was_all(taken - before, taken):
                yield END
            readings += 1

    def _until_enough(self, taken: int) -> Iterator[Any]:
        if self.steps is None:
            yield from self.data
            return
        batches = iter(self.data)
        for _ in range(self.steps - taken):  # no batch is read that is not taken
            try:
                yield next(batches)
            except StopIteration:
                return

    def _was_all(self, count: int, taken: int) -> bool:
        """Whether a reading that may have been broken off came to the end of the data."""
        return count == len(self.data) if isinstance(self.data, Sized) else taken != self.steps

    def _nothing_left(self, readings: int, taken: int) -> str:
        once = isinstance(self.data, Iterator) or readings > 0
        why = (
            "a generator can be read only once, and this one is used up; pass a list, or an object whose __iter__ "
            "begins anew"
            if once
            else "it is empty"
        )
        when = f" after {taken} of {self.steps} steps, which were applied" if self.steps and taken else ""
        when = when or (f" in epoch {readings + 1}, after {taken} steps, which were applied" if readings else "")
        return f"train_: the data has no batch{' left' if when else ''}{when}: {why}"


def _check_count(name: str, value: Any) -> None:
    try:
        count = value.__index__()
    except AttributeError:
        raise InvalidTypeError(f"train_: {name} must be an integer, got {value!r}") from None
    if count < 1:
        raise InvalidValueError(f"train_: {name} must be >= 1, got {value}")


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    import inspect

    try:
        inspect.signature(function).bind(0)
    except (TypeError, ValueError):
        return False
    return True
