"""KeyPath: where something stands in a model, and how to get there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from itertools import islice
from typing import Any, TypeVar

from . import _core
from ._core import InvalidTypeError, InvalidValueError

M = TypeVar("M")


def key_text(key: Any) -> str:
    """`str(key)`; where the key's own method fails or gives no string, what object's would."""
    try:
        return str(key)
    except Exception:
        return f"<{type(key).__name__} object>"


class KeyPath(tuple[Any, ...]):
    """The keys that lead to a place in a model: dict keys, fields, attributes, positions.

    A tuple, printed with dots between the keys.

    Args:
        *keys: the keys in order; a `KeyPath` among them stands for its keys.

    Example:
        >>> from optimisers import KeyPath
        >>> print(KeyPath(KeyPath("layers", 0), "weight"))
        layers.0.weight
    """

    __slots__ = ()

    def __new__(cls, *keys: Any) -> KeyPath:
        flat: list[Any] = []
        for key in keys:
            flat.extend(key if isinstance(key, KeyPath) else (key,))
        return tuple.__new__(cls, flat)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __add__(self, other: tuple[Any, ...]) -> KeyPath:
        return KeyPath(*self, *other)

    def __getitem__(self, item: Any) -> Any:
        found = super().__getitem__(item)
        return KeyPath(*found) if isinstance(item, slice) else found

    def __str__(self) -> str:
        return ".".join(map(key_text, self))

    def __repr__(self) -> str:
        return f"KeyPath({', '.join(map(repr, self))})"


_MISSING: Any = object()


def _step(node: Any, key: Any) -> Any:
    """The child of a node, or _MISSING."""
    if isinstance(node, dict):
        return node.get(key, _MISSING)
    if isinstance(node, (list, tuple)) and isinstance(key, int):
        return node[key] if -len(node) <= key < len(node) else _MISSING
    if isinstance(node, _core.Handle):
        try:
            return node[key]  # type: ignore[index]
        except (LookupError, InvalidValueError):
            return _MISSING
    for known, child, _ in _core.children(node) or ():
        if known == key:
            return child
    return getattr(node, key, _MISSING) if isinstance(key, str) else _MISSING


def shown(path: tuple[Any, ...]) -> str:
    """A path as messages have it."""
    return f'"{KeyPath(*path)}"' if path else "the model's root"


def listed(keys: Iterable[Any]) -> str:
    """Keys as messages have them: all, or the first few."""
    first = [repr(key) for key in islice(keys, 11)]
    return ", ".join(first[:10]) + (", ..." if len(first) > 10 else "") if first else "none"


def _walk(model: Any, path: tuple[Any, ...], call: str) -> tuple[Any, int]:
    """How far the path leads: what is there, and how many keys that took."""
    if not isinstance(path, tuple):
        raise InvalidTypeError(f'{call}: expected a KeyPath such as KeyPath("layers", 0), got {path!r}')
    node = model
    for depth, key in enumerate(path):
        child = _step(node, key)
        if child is _MISSING:
            return node, depth
        node = child
    return node, len(path)


def _refuse(model: Any, path: tuple[Any, ...], call: str) -> Any:
    node, depth = _walk(model, path, call)
    if depth == len(path):
        return node
    keys = [key for key, _, _ in _core.children(node) or ()]
    place = f'"{KeyPath(*path[:depth])}", which is a' if depth else "its root, a"
    there = f"its keys are {listed(keys)}" if keys else "it has no children"
    raise InvalidValueError(f"{call}: the model has no {path[depth]!r} at {place} {type(node).__name__}; {there}")


def getkeypath(model: Any, path: KeyPath) -> Any:
    """Return what stands at a path of a model.

    Args:
        model: any model, or state tree.
        path: a `KeyPath`, or a tuple of keys.

    Raises:
        ValueError: the path leads nowhere.

    Example:
        >>> import optimisers as opt
        >>> opt.getkeypath({"layers": [{"b": 2.0}]}, opt.KeyPath("layers", 0, "b"))
        2.0
    """
    return _refuse(model, path, "getkeypath")


def haskeypath(model: Any, path: KeyPath) -> bool:
    """Say whether a path leads somewhere in a model.

    Args:
        model: any model, or state tree.
        path: a `KeyPath`, or a tuple of keys.

    Example:
        >>> import optimisers as opt
        >>> opt.haskeypath({"layers": []}, opt.KeyPath("layers", 0))
        False
    """
    return _walk(model, path, "haskeypath")[1] == len(path)


def setkeypath_(model: M, path: KeyPath, value: Any) -> M:
    """Put a value at a path of a model, in place.

    Args:
        model: any model.
        path: a `KeyPath`, or a tuple of keys. All but its last key must lead somewhere; a dict or an
            object may get a new entry by it.
        value: what is to stand there.

    Returns:
        The model.

    Raises:
        ValueError: the path is empty or leads nowhere, or what would change is immutable.

    Example:
        >>> import optimisers as opt
        >>> opt.setkeypath_({"layers": [1.0, 2.0]}, opt.KeyPath("layers", 1), 3.0)
        {'layers': [1.0, 3.0]}
    """
    if isinstance(path, tuple) and not path:
        raise InvalidValueError("setkeypath_: the path is empty; a model cannot replace itself")
    parent = _refuse(model, path[:-1] if isinstance(path, tuple) else path, "setkeypath_")
    key = path[-1]
    try:
        if isinstance(parent, (MutableMapping, MutableSequence)):
            parent[key] = value
        elif isinstance(parent, (Mapping, Sequence)):
            raise TypeError(f"{type(parent).__name__} is immutable")
        else:
            setattr(parent, key, value)
    except (AttributeError, TypeError, LookupError) as error:
        raise InvalidValueError(
            f"setkeypath_: cannot set {key!r} of the {type(parent).__name__} at {shown(path[:-1])}: {error}"
        ) from error
    return model
