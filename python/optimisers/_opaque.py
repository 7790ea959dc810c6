"""What stands in a model and is neither a container nor an array: whether it may, and why not."""

from __future__ import annotations

import enum
import types
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, dropwhile, filterfalse, islice, starmap, takewhile
from typing import Any

import numpy as np

from . import _core
from ._paths import KeyPath

# Objects that are looked into, for a plain object of a model: the state of a whole program may hang on one.
_MOST_OBJECTS = 10_000
_EXPECTED = "expected a NumPy array or a torch tensor"
_EMPTY: dict[Any, Any] = {}
_ONCE: tuple[Any, ...] = (
    types.GeneratorType,
    *(map, filter, zip, enumerate, reversed, chain, dropwhile, filterfalse, islice, starmap, takewhile),
    *map(type, (iter([]), iter(()), iter(_EMPTY), iter(_EMPTY.values()), iter(_EMPTY.items()))),
)
_VIEWS: tuple[Any, ...] = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()), set, frozenset)
_CODE: tuple[Any, ...] = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    partial,
    enum.Enum,
)


def objection(x: Any) -> str | None:
    """Why x may not stand in a model, as the end of a sentence that begins with its place; None: it passes through."""
    if isinstance(x, _ONCE):
        return f"is a {kind_of_iterator(x)}"
    if isinstance(x, _VIEWS):
        found = _first_array(list(x))
        return None if found is None else f"is {a_type(x)}, which is no container; pass a list of the arrays"
    if isinstance(x, _CODE):
        return None
    if (remedy := unread_array(x)) is not None:
        return remedy
    path = _first_array(x)
    if path is None:
        return None
    name = type(x).__name__
    return (
        f'is {a_type(x)}, which is no container, and holds an array at "{path}"; register its class with '
        "register_container to train it, or say that nothing of it is trained: "
        f"trainable.register({name}, lambda x: {{}})"
    )


def a_type(x: Any) -> str:
    """The name of its class with the article."""
    name = type(x).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def kind_of_iterator(x: Iterator[Any]) -> str:
    name = getattr(getattr(x, "gi_code", None), "co_name", "")
    if name in ("parameters", "named_parameters", "buffers", "named_buffers"):
        kind = "dict" if name.startswith("named") else "list"
        return f"generator: pass {kind}(module.{name}()) or, better, the module"
    return f"{type(x).__name__}, which can be walked over only once: pass a list"


# ------------------------------------------------------------------------------ arrays of kinds that are not read


def unread_array(x: Any) -> str | None:
    """Of an array, or what passes for one, that nobody can train as it is: what it is and how to make it one."""
    name = type(x).__name__
    if isinstance(x, np.ndarray):
        if x.dtype.names is None or not _may_train(x.dtype):
            return None
        field = x.dtype.names[0]
        return (
            f"has a structured dtype ({', '.join(x.dtype.names)}); pass a dict of its fields, {field}=x[{field!r}], ..."
        )
    if type(x).__module__.startswith("scipy.sparse") and hasattr(x, "toarray"):
        data = getattr(x, "data", None)
        if isinstance(data, np.ndarray) and not _may_train(data.dtype) and data.dtype != object:
            return None
        return f"is a sparse {name}, which cannot be trained; pass x.toarray(), or x.data alone"
    if _has(x, "__dlpack__"):
        return f"is {a_type(x)}, {_EXPECTED}; pass numpy.from_dlpack(x), which shares its memory"
    if not any(_has(x, protocol) for protocol in ("__array__", "__array_interface__", "__array_struct__")):
        return _unread_buffer(x)
    if (dtype := _dtype_of(x)) is not None and not _may_train(dtype):
        return None
    return f"is {a_type(x)}, {_EXPECTED}; pass numpy.asarray(x), and keep that in the model"


def _unread_buffer(x: Any) -> str | None:
    try:
        with memoryview(x) as view, warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy guesses at some of ctypes'
            read_only = view.readonly
            dtype = np.asarray(view).dtype
    except TypeError:
        return None
    except (ValueError, BufferError, RuntimeError, NotImplementedError, Warning):
        return f"is {a_type(x)} whose elements NumPy cannot read; pass a NumPy array"
    if not _may_train(dtype):
        return None
    how = "numpy.array(x), a copy that may be written" if read_only else "numpy.asarray(x), which shares its memory"
    return f"is {a_type(x)}, {_EXPECTED}; pass {how}"


def _has(x: Any, protocol: str) -> bool:
    """As NumPy looks for it, without asking a class that answers to any name."""
    return hasattr(type(x), protocol) or protocol in _attributes(x)


def _dtype_of(x: Any) -> np.dtype[Any] | None:
    """None: it cannot be told."""
    try:
        return np.dtype(x.dtype)  # type: ignore[no-any-return]
    except Exception:  # another library's dtype, or anything that stands under this name
        pass
    try:
        read: np.ndarray[Any, Any] = np.asarray(x)
    except Exception:
        return None
    return read.dtype  # type: ignore[no-any-return]


def _may_train(dtype: np.dtype[Any]) -> bool:
    """Whether numbers with a fraction may be in it; objects may be anything."""
    if dtype.subdtype is not None:
        return _may_train(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_may_train(dtype[name]) for name in dtype.names)
    return dtype.kind in "fcO" or (dtype.kind == "V" and dtype.type is not np.void)


# --------------------------------------------------------------------------------------------- inside of objects


def _attributes(x: Any) -> dict[str, Any]:
    """Of an object, without running its code: those in its dict and its slots."""
    try:
        found = dict(object.__getattribute__(x, "__dict__"))
    except (AttributeError, TypeError):
        found = {}
    for cls in type(x).__mro__:
        for name, slot in vars(cls).items():
            if isinstance(slot, types.MemberDescriptorType) and name != "__dict__":
                try:
                    found[name] = slot.__get__(x)
                except (AttributeError, TypeError):
                    continue
    return found


def _children(x: Any) -> Iterable[tuple[Any, Any]]:
    try:
        children = _core.children(x)
    except Exception:
        return ()
    if children is not None:
        return [(key, child) for key, child, _ in children]
    return enumerate(x) if isinstance(x, (set, frozenset)) else _attributes(x).items()


def _first_array(top: Any) -> KeyPath | None:
    """Where, below an object, there is an array that could be trained; nearest first."""
    open_: deque[tuple[Any, KeyPath]] = deque([(top, KeyPath())])
    seen: dict[int, Any] = {id(top): top}
    while open_ and len(seen) < _MOST_OBJECTS:
        node, path = open_.popleft()
        for key, child in _children(node):
            if child is None or isinstance(child, (str, bytes, int, float, complex, *_CODE)) or id(child) in seen:
                continue
            seen[id(child)] = child
            if _core.is_numeric(child) or unread_array(child) is not None:
                return KeyPath(*path, key)
            open_.append((child, KeyPath(*path, key)))
    return None
