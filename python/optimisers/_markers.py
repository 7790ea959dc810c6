"""Marker: naming parts of a model where it is built, to choose rules for them later."""

from __future__ import annotations

import os
from typing import Any, TypeVar
from weakref import WeakValueDictionary, ref

from . import _core
from ._core import InvalidTypeError, InvalidValueError

T = TypeVar("T")


class Marker:
    """Marks parts of a model, so that rules can be chosen for them without knowing where they stand.

    Calling a marker with an array, or with any part of a model, marks the array, or the trained
    arrays below the part as they are now, and returns its argument. The marks are weak references:
    they keep nothing alive, and end with the array. A dict from markers to rules given to `setup`
    chooses rules by them; where an array has several, the first in the order of the dict wins.
    `state.marked(marker)` has the leaves that were marked at `setup`, for `adjust_`, `freeze_` and
    `thaw_`.

    Args:
        name: what messages call it. Markers of equal names are different markers.

    Raises:
        ValueError: there is no trained array in what is to be marked.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> enc = opt.Marker("enc")
        >>> model = [enc({"w": np.ones(2)}), {"w": np.ones(3)}]
        >>> state = opt.setup({enc: opt.Adam(1e-4), ...: opt.Adam(1e-2)}, model)
        >>> [leaf["w"].rule.eta for leaf in state]
        [0.0001, 0.01]
        >>> opt.freeze_(state.marked(enc))
        Marked('enc', 1 leaf)
    """

    __slots__ = ("__weakref__", "_arrays", "_token", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidTypeError(f"Marker: the name must be a str, got {type(name).__name__}")
        self.name = name
        self._token = os.urandom(16).hex()
        self._arrays: dict[int, ref[Any]] = {}
        _known[self._token] = self

    def __call__(self, part: T) -> T:
        arrays = _core.array_places(part)
        if not arrays:
            raise InvalidValueError(f"{self!r}: no trained array in the {type(part).__name__} that is to be marked")
        for array in arrays:
            self._arrays[id(array)] = ref(array, self._forget(id(array)))
        return part

    def _forget(self, key: int) -> Any:
        marks = self._arrays
        return lambda gone: marks.pop(key) if marks.get(key) is gone else None

    def __contains__(self, array: object) -> bool:
        known = self._arrays.get(id(array))
        return known is not None and known() is array

    def __reduce__(self) -> tuple[Any, ...]:
        return _marker, (self.name, self._token)

    def __repr__(self) -> str:
        return f"Marker({self.name!r})"


_known: WeakValueDictionary[str, Marker] = WeakValueDictionary()


def _marker(name: str, token: str) -> Marker:
    """The marker with this token; in another process a new one."""
    known = _known.get(token)
    if known is None:
        known = Marker(name)
        known._token = token
        _known[token] = known
    return known


def marks_of(model: _core.Model, rules: list[Any]) -> list[tuple[Marker, list[int]]]:
    """What each marker marks of a model, by the leaves' numbers in the state: those without a rule have none."""
    used = sorted((m for m in list(_known.values()) if m._arrays), key=lambda m: m._token)
    if not used:
        return []
    numbers = {leaf: number for number, leaf in enumerate(i for i, r in enumerate(rules) if r is not None)}
    places = model.places()
    found = [(m, {numbers[leaf] for leaf, _, array, _ in places if leaf in numbers and array in m}) for m in used]
    return [(marker, sorted(leaves)) for marker, leaves in found if leaves]
