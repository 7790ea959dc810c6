"""What a schedule is: a function of the number of steps done that is a plain value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from ._core import InvalidTypeError, InvalidValueError

P = ParamSpec("P")


class Schedule:
    """A hyperparameter as a function of the number of steps done (0 before the first).

    Schedules print as they were made, compare by value, are hashable and can be pickled. Any function of the number
    of steps does as well where one is asked for.

    Example:
        >>> from optimisers import schedules
        >>> schedules.linear(1.0, 0.0, steps=4)
        linear(start=1.0, end=0.0, steps=4)
        >>> schedules.linear(1.0, 0.0, steps=4) == schedules.linear(1.0, 0.0, 4)
        True
    """

    __slots__ = ("_arguments", "_at", "_make")
    _make: Callable[..., Schedule]
    _arguments: dict[str, Any]
    _at: Callable[[float], float]

    def __init__(self, make: Callable[..., Schedule], arguments: dict[str, Any], at: Callable[[float], float]) -> None:
        for name, value in (("_make", make), ("_arguments", arguments), ("_at", at)):
            object.__setattr__(self, name, value)

    def __call__(self, step: float) -> float:
        """The value after `step` steps."""
        return self._at(step)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("schedules are immutable; make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return self._make, tuple(self._arguments.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (self._make, self._arguments) == (other._make, other._arguments)

    def __hash__(self) -> int:
        values = (tuple(v.items()) if isinstance(v, dict) else v for v in self._arguments.values())
        return hash((self._make, *values))

    def __repr__(self) -> str:
        return f"{self._make.__name__}({', '.join(f'{k}={v!r}' for k, v in self._arguments.items())})"


def schedule(make: Callable[P, Callable[[float], float]]) -> Callable[P, Schedule]:
    """What makes a function of a step number, so that it makes a `Schedule` which knows how it was made."""
    code = make.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = make.__defaults__ or ()
    optional = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(given) != len(args) + len(kwargs) or not {*names} - {*optional} <= {*given} <= {*names}:
            make(*args, **kwargs)  # which says what is wrong
        _check_kinds(make, given)
        arguments = {name: _kept(given.get(name, optional.get(name))) for name in names}
        return Schedule(made, arguments, make(**arguments))  # type: ignore[call-arg]

    made.__module__ = "optimisers.schedules"
    return made


# By how annotations begin: what an argument must be, and whether it is.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "float": ("a number", lambda value: hasattr(value, "__float__") or hasattr(value, "__index__")),
    "Callable": ("a schedule, or another function of a number of steps", callable),
    "Mapping": ("a dict from steps to numbers", lambda value: isinstance(value, Mapping)),
    "Sequence": ("a list", lambda value: isinstance(value, Sequence) and not isinstance(value, str)),
}


def _check_kinds(make: Callable[..., Any], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        expected, holds = _KINDS.get(make.__annotations__[name].partition("[")[0], ("", lambda _: True))
        if not holds(value):
            raise InvalidTypeError(f"{make.__name__}: {name} must be {expected}, got {value!r}")


def _kept(value: Any) -> Any:
    """The same for good: what the caller does with a list or a dict later is not seen."""
    if isinstance(value, Mapping):
        return dict(sorted(value.items()))
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


# From 0 at the beginning of a stretch to 1 at its end.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "cosine": lambda t: (1 - math.cos(math.pi * t)) / 2,
    "sqrt": math.sqrt,
}


def shape_named(call: str, shape: str, names: tuple[str, ...] = ("linear", "cosine")) -> Callable[[float], float]:
    check(call, shape in names, f"shape must be {' or '.join(map(repr, names))}, got {shape!r}")
    return SHAPES[shape]


def check(call: str, holds: bool, message: str) -> None:
    if not holds:
        raise InvalidValueError(f"{call}: {message}")


def check_length(call: str, name: str, value: float) -> None:
    check(call, 0 < value < math.inf, f"{name} must be > 0, got {value}")


def between(start: float, end: float, part: float) -> float:
    """Exactly the start at 0, the end at 1, and never beyond them."""
    if part <= 0:
        return start
    if part >= 1:
        return end
    value = start + (end - start) * part
    return min(max(value, min(start, end)), max(start, end))
