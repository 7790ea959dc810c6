"""Plain data as JSON, with arrays in it as arrays of the file: whatever users keep beside a state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _arrays, _core
from .._core import InvalidTypeError, InvalidValueError

DEEPEST = 64


class Packer:
    """Takes data apart: what `pack` returns is JSON, and `arrays` has what the file is to hold beside it."""

    def __init__(self) -> None:
        self.arrays: list[tuple[str, Any]] = []

    def pack(self, x: Any, place: str, depth: int = 0) -> Any:
        """The data at a place, by whose name errors call it and arrays are found."""
        if depth > DEEPEST:
            raise InvalidValueError(f"save: {place} is nested more than {DEEPEST} deep, or contains itself")
        cls = type(x)
        if x is None or cls in (bool, str, int):
            return checked_text(x, place) if cls is str else x
        if cls is float:
            return x if math.isfinite(x) else {"$float": str(x)}
        if cls is complex:
            return {"$complex": [x.real.hex(), x.imag.hex()]}
        if cls is bytes:
            from base64 import b64encode

            return {"$bytes": b64encode(x).decode()}
        if cls is list:
            return [self.pack(item, f"{place}/{i}", depth + 1) for i, item in enumerate(x)]
        if isinstance(x, dict):
            return self._pack_dict(x, place, depth)
        if isinstance(x, tuple):
            return {"$tuple": [self.pack(item, f"{place}/{i}", depth + 1) for i, item in enumerate(x)]}
        fields = field_names(x)
        if fields is not None:
            values = {name: getattr(x, name) for name in fields}
            return {"$fields": self._pack_dict(values, place, depth)}
        library = _library_of(x)
        if library is not None:
            return self._pack_array(x, place, library)
        if callable(getattr(x, "state_dict", None)):
            return {"$state": self.pack(x.state_dict(), place, depth + 1)}
        raise InvalidTypeError(
            f"save: {place} is a {cls.__module__}.{cls.__qualname__}; files hold numbers, texts, None, arrays, lists, "
            "tuples and dicts of these, and objects with a state_dict() of these"
        )

    def _pack_dict(self, x: dict[Any, Any], place: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in x):
            return {checked_text(k, place): self.pack(item, f"{place}/{k}", depth + 1) for k, item in x.items()}
        pairs = [
            [self.pack(key, f"{place}: a key", depth + 1), self.pack(item, f"{place}/{key}", depth + 1)]
            for key, item in x.items()
        ]
        return {"$dict": pairs}

    def _pack_array(self, x: Any, place: str, library: str) -> Any:
        name, taken = place, {name for name, _ in self.arrays}
        while name in taken:
            name += "'"
        self.arrays.append((name, as_written(x)))
        return {"$array": name, "library": library}


def checked_text(text: str, place: str, call: str = "save") -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{call}: {place} is or holds a text that is not Unicode: {text!r}") from error
    return text


def field_names(x: Any) -> list[str] | None:
    """Of a dataclass' instance. The module is not imported for those who have none."""
    fields = None if isinstance(x, type) else getattr(type(x), "__dataclass_fields__", None)
    return None if fields is None else [f.name for f in fields.values() if f._field_type.name == "_FIELD"]


def _library_of(x: Any) -> str | None:
    if isinstance(x, np.generic):
        return "scalar" if x.dtype.kind in "fciub" or x.dtype.name == "bfloat16" else None
    if isinstance(x, np.ma.MaskedArray):  # a file has no masks
        return None
    if isinstance(x, np.ndarray):
        return "numpy" if x.dtype.kind in "fciub" or x.dtype.name == "bfloat16" else None
    return _core.library_of(x) if _arrays.is_tensor(x) or _arrays.is_jax(x) or _arrays.is_cupy(x) else None


def as_written(x: Any) -> Any:
    """An array the core can read: no scalar, no lazy tensor, one piece where it is on a device."""
    if isinstance(x, np.generic):
        return np.asarray(x)
    if isinstance(x, np.ndarray):
        return np.asarray(x) if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if _arrays.is_tensor(x):
        x = x.detach().resolve_conj().resolve_neg()
        return x.contiguous() if x.device.type != "cpu" else x
    if _arrays.is_jax(x):
        return np.asarray(x)
    if _arrays.is_cupy(x):
        return _arrays.cupy_or_none().ascontiguousarray(x)
    return x


Read = Callable[[str], "tuple[Any, str, tuple[int, ...]]"]  # bytes, dtype and shape of an array


def array_from(raw: Any, dtype: str, shape: tuple[int, ...], library: str) -> Any:
    """The bytes of an array as one of a library, on the host."""
    if library == "torch":
        import torch

        numbers = raw.view(np.uint16) if dtype == "bfloat16" else raw.view(np.dtype(dtype))
        tensor = torch.from_numpy(numbers.reshape(shape))
        return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
    array = raw.view(_arrays.numpy_dtype(dtype)).reshape(shape)
    if library == "jax":
        import jax

        return jax.numpy.asarray(array)
    if library == "cupy":
        return _arrays.cupy_or_none().asarray(array)
    return array[()] if library == "scalar" else array


class Unpacker:
    """Puts data together again."""

    def __init__(self, read: Read, what: str) -> None:
        self.read = read
        self.what = what

    def unpack(self, x: Any, like: Any = None) -> Any:
        """The data; where it was an object, as one of the class of `like`, or its plain parts without one."""
        if isinstance(x, list):
            return [self.unpack(item, _item(like, i)) for i, item in enumerate(x)]
        if not isinstance(x, dict):
            return x
        kind = next(iter(x), "")
        if not kind.startswith("$"):
            return {key: self.unpack(item, _item(like, key)) for key, item in x.items()}
        method = getattr(self, "_" + kind[1:], None)
        if method is None:
            raise InvalidValueError(f"{self.what}has data of an unknown kind, {kind!r}")
        return method(x, like)

    def _float(self, x: Any, like: Any) -> float:
        return float(x["$float"])

    def _complex(self, x: Any, like: Any) -> complex:
        return complex(*map(float.fromhex, x["$complex"]))

    def _bytes(self, x: Any, like: Any) -> bytes:
        from base64 import b64decode

        return b64decode(x["$bytes"])

    def _dict(self, x: Any, like: Any) -> dict[Any, Any]:
        pairs = [(self.unpack(key), item) for key, item in x["$dict"]]
        return {key: self.unpack(item, _item(like, key)) for key, item in pairs}

    def _tuple(self, x: Any, like: Any) -> Any:
        items = [self.unpack(item, _item(like, i)) for i, item in enumerate(x["$tuple"])]
        if isinstance(like, tuple) and hasattr(like, "_fields"):
            return type(like)._make(items)  # type: ignore[attr-defined]
        return tuple(items)

    def _fields(self, x: Any, like: Any) -> Any:
        values = self.unpack(x["$fields"], {f: getattr(like, f, None) for f in x["$fields"]})
        names = field_names(like)
        if names is None:
            return values
        if set(names) != set(values):
            raise InvalidValueError(
                f"{self.what}has a {type(like).__name__} of the fields {', '.join(values)}; here they are "
                f"{', '.join(names)}"
            )
        from dataclasses import replace

        return replace(like, **values)

    def _array(self, x: Any, like: Any) -> Any:
        library = x["library"]
        array = array_from(*self.read(x["$array"]), library)
        if library == "torch" and _arrays.is_tensor(like):
            return array.to(like.device)
        return array

    def _state(self, x: Any, like: Any) -> Any:
        data = self.unpack(x["$state"])
        if not callable(getattr(like, "load_state_dict", None)):
            return data
        import copy

        restored = copy.deepcopy(like)
        restored.load_state_dict(data)
        return restored


def _item(like: Any, key: Any) -> Any:
    try:
        return like[key]
    except (TypeError, LookupError):
        return None
