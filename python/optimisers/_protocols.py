"""Containers nobody has registered here: Mappings, Sequences, models of pydantic, and what JAX knows as a pytree."""

from __future__ import annotations

import sys
from collections import UserString
from collections.abc import (
    Callable,
    Iterator,
    Mapping,
    MappingView,
    MutableMapping,
    MutableSequence,
    Sequence,
    Set,
)
from itertools import islice
from types import MappingProxyType
from typing import Any

from ._core import InvalidTypeError

# How objects of a class come apart, how they are put together again, and the name of their kind.
Functions = tuple[Callable[[Any], Any], Callable[[Any, Any], Any], str]

# Sequences of what is no child: text, numbers; and all that are buffers.
_NO_SEQUENCES = (str, bytes, bytearray, memoryview, range, UserString)
_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")


def functions_for(x: object) -> Functions | None:
    """The functions for objects of x's class; None: it is none of these, or what it is otherwise comes first."""
    cls = type(x)
    if issubclass(cls, (dict, list, tuple, type)):
        return None
    if is_node(x):
        named = _field_names(cls)
        return None if named is not None and named.issuperset(_one_level(x)[0]) else _PYTREE
    if _field_names(cls) is not None or any(hasattr(cls, name) for name in _ARRAY_PROTOCOLS):
        return None
    if hasattr(cls, "__pydantic_fields__") or hasattr(cls, "__fields_set__"):
        return _PYDANTIC
    if issubclass(cls, Mapping):
        return _MAPPING
    if not issubclass(cls, Sequence) or issubclass(cls, _NO_SEQUENCES) or _is_buffer(x):
        return None
    return _SEQUENCE


def _is_buffer(x: Any) -> bool:
    try:
        memoryview(x).release()
    except TypeError:
        return False
    except BufferError:
        return True
    return True


def _fields(cls: Any) -> Any:
    """Of a class whose fields are its children: a dataclass, or one of attrs, whose fields have the same attributes."""
    if not hasattr(cls, "__dataclass_fields__"):
        return getattr(cls, "__attrs_attrs__", None)
    import dataclasses

    return dataclasses.fields(cls)


def _field_names(cls: type) -> set[str] | None:
    fields = _fields(cls)
    return None if fields is None else {field.name for field in fields}


# ---------------------------------------------------------------------------------------------- JAX's pytrees


def _tree_util() -> Any:
    """Where JAX's registry is, once somebody has imported JAX."""
    tree_util = sys.modules.get("jax.tree_util")
    return tree_util if hasattr(tree_util, "tree_flatten_with_path") else None


def _flattened(x: object) -> tuple[list[Any], Any]:
    """The children of x alone, with their paths, and the structure of x above them."""
    is_root = [True]
    return _tree_util().tree_flatten_with_path(x, is_leaf=lambda _: not (is_root and is_root.pop()))  # type: ignore[no-any-return]


def is_node(x: object) -> bool:
    """Whether JAX knows the class of x as a pytree."""
    if _tree_util() is None or isinstance(x, (Iterator, MappingView, Set)):  # of which JAX warns
        return False
    found, _ = _flattened(x)
    return len(found) != 1 or len(found[0][0]) > 0


def _key(entry: Any) -> Any:
    """JAX has a class for each kind of key; users may have their own, or give the key itself."""
    return next((getattr(entry, name) for name in ("name", "key", "idx") if hasattr(entry, name)), entry)


def _one_level(x: object) -> tuple[dict[Any, Any], Any]:
    found, structure = _flattened(x)
    children = {_key(path[0]): child for path, child in found}
    if len(children) != len(found):
        children = {i: child for i, (_, child) in enumerate(found)}
    return children, structure


def trained_fields(x: object) -> dict[Any, Any]:
    """The fields of a dataclass, or attrs' class, that are its children in JAX; the others are static there."""
    children, _ = _one_level(x)
    fields = _fields(type(x))
    marked = {field.name for field in fields if field.metadata.get("trainable", True) is False}
    names = {field.name for field in fields}
    if not names.issuperset(children):
        unknown = next(key for key in children if key not in names)
        raise InvalidTypeError(
            f"JAX's registry has a child {unknown!r} of {type(x).__name__}, which is none of its fields"
        )
    return {key: child for key, child in children.items() if key not in marked}


def is_node_by_fields(x: object) -> bool:
    """Whether x has fields, and JAX's registry says which of them are children."""
    return not isinstance(x, (dict, list, tuple, type)) and _field_names(type(x)) is not None and is_node(x)


_PYTREE: Functions = (
    lambda x: _one_level(x)[0],
    lambda x, children: _tree_util().tree_unflatten(_one_level(x)[1], list(children.values())),
    "registered object",
)

# --------------------------------------------------------------------------------------- Mappings, Sequences


def _mapping_children(x: Mapping[Any, Any]) -> dict[Any, Any]:
    size = len(x)
    children = {key: x[key] for key in islice(x, size + 1)}
    if len(children) != size:
        raise ValueError(f"its length is {size}, and it has {len(children)} different keys")
    return children


def _sequence_children(x: Sequence[Any]) -> list[Any]:
    size = len(x)
    children = list(islice(x, size + 1))
    if len(children) != size:
        how_many = "more" if len(children) > size else str(len(children))
        raise ValueError(f"its length is {size}, and it has {how_many} items")
    return children


def _has(x: Any, children: Any, key: Any) -> bool:
    try:
        return x[key] is children[key]
    except (LookupError, TypeError):
        return False


def _rebuilt(x: Any, old: Any, new: Any) -> Any:
    """A copy of x with other children, whatever it keeps them in: where deepcopy meets an old one, it puts the new."""
    import copy

    keys = list(new) if isinstance(new, dict) else range(len(new))
    memo = {id(old[key]): new[key] for key in keys}
    memo.update((id(key), key) for key in keys)
    out: Any
    try:
        out = x.copy() if isinstance(x, MappingProxyType) else copy.deepcopy(x, memo)
        for key in keys:
            if not _has(out, new, key) and isinstance(out, (MutableMapping, MutableSequence)):
                out[key] = new[key]
        if isinstance(x, MappingProxyType):
            out = MappingProxyType(out)
    except (TypeError, AttributeError, LookupError, ValueError, copy.Error):
        out = None
    if type(out) is not type(x) or not all(_has(out, new, key) for key in keys):
        out = _constructed(x, new)
    if type(out) is type(x) and len(out) == len(keys) and all(_has(out, new, key) for key in keys):
        return out
    raise InvalidTypeError(
        f"{type(x).__name__} can neither be copied with other children nor made of them; "
        "say how with register_container"
    )


def _constructed(x: Any, children: Any) -> Any:
    try:
        return type(x)(children)
    except Exception:
        return None


_MAPPING: Functions = (_mapping_children, lambda x, new: _rebuilt(x, _mapping_children(x), new), "Mapping")
_SEQUENCE: Functions = (_sequence_children, lambda x, new: _rebuilt(x, _sequence_children(x), new), "Sequence")

# ---------------------------------------------------------------------------------------------------- pydantic


def _pydantic_children(x: Any) -> dict[str, Any]:
    fields = getattr(type(x), "__pydantic_fields__", None)
    if fields is None:  # before version 2
        return dict(x.__dict__)
    declared = {name: x.__dict__[name] for name in fields if name in x.__dict__}
    return {**declared, **(x.__pydantic_extra__ or {})}


def _pydantic_rebuilt(x: Any, children: dict[str, Any]) -> Any:
    """Not validated again, as little as a dataclass's `__post_init__` runs again: validation may copy arrays."""
    if not hasattr(type(x), "__pydantic_fields__"):
        return x.copy(update=children)
    import copy

    out = copy.copy(x)
    for name, child in children.items():
        (out.__dict__ if name in x.__dict__ else out.__pydantic_extra__)[name] = child
    return out


_PYDANTIC: Functions = (_pydantic_children, _pydantic_rebuilt, "registered object")
