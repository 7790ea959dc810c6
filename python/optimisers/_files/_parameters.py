"""The parameters of a model beside its state: into a file, and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _arrays, _core
from .._core import InvalidValueError
from .._user_rules import segment
from ._plain import array_from

if TYPE_CHECKING:
    from ._loading import StateFile

LISTED = 20


def dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def renamed(name: str, pairs: list[tuple[str, str]]) -> str:
    return next((new for old, to in pairs if (new := _core.renamed(name, old, to)) is not None), name)


def parameters(core: _core.State, names: list[str], model: Any, call: str) -> list[tuple[str, Any]]:
    """(name, array) of each trained array of the model, which must be the one of the state."""
    if core.has_layout():
        return _segments_of(core, names, model, call)
    found = [(dotted(path), array) for path, array in _core.Model(model, call).leaves()]
    by_name = dict(found)
    for leaf, name in enumerate(names):
        shape, dtype, *_ = core.leaf_info(leaf)
        array = by_name.get(name)
        if array is None:
            raise InvalidValueError(f'{call}: the model has no array at "{name}", the state has; is it another model?')
        if tuple(array.shape) != tuple(shape) or _arrays.dtype_name(array) != dtype:
            raise InvalidValueError(
                f'{call}: the array at "{name}" is {_arrays.dtype_name(array)} of shape {tuple(array.shape)}, its '
                f"state is of {dtype} and {tuple(shape)}"
            )
    return found


def _segments_of(core: _core.State, names: list[str], flat: Any, call: str) -> list[tuple[str, Any]]:
    shapes = [tuple(core.leaf_info(leaf)[0]) for leaf in range(len(names))]
    offsets = core.segments()
    end = max((o + int(np.prod(s, dtype=np.int64)) for o, s in zip(offsets, shapes, strict=True)), default=0)
    if getattr(flat, "ndim", None) != 1 or len(flat) < end:
        raise InvalidValueError(
            f"{call}: the state is of a flat vector of at least {end} elements; pass that as the model"
        )
    return [(name, segment(flat, o, s)) for name, o, s in zip(names, offsets, shapes, strict=True)]


def listed(items: list[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


class Parameters:
    """Parameters on their way from a file to a model: read and compared, then written."""

    def __init__(
        self,
        file: StateFile,
        core: _core.State,
        names: list[str],
        model: Any,
        pairs: list[tuple[str, str]],
        partial: bool,
        cast: bool,
    ) -> None:
        self.model = model
        self.flat = core.has_layout()
        self.native = None if self.flat else _core.Model(model, "load")
        here = parameters(core, names, model, "load")
        self.arrays = [array for _, array in here]
        saved = {renamed(n[6:], pairs): n for n in file.tensors if n.startswith("model/")}
        if not saved and here:
            raise InvalidValueError(f"{file.what}the file has no parameters; it was saved without a model")
        self._compare(file, here, saved, partial, cast)
        for name, array in here:
            if name in saved and not _core.may_write(array) and not _arrays.is_jax(array):
                raise InvalidValueError(f'load: the array at "{name}" is read-only; pass a copy that can be written')
            if _core.device_of(array) >= 0 and not (_arrays.is_tensor(array) or _arrays.is_cupy(array)):
                raise InvalidValueError(
                    f'load: the array at "{name}" is on a device and of neither torch nor CuPy; load the state without '
                    "the model, and its parameters on the host"
                )
        self.values = [self._value(file, saved.get(name), array) for name, array in here]

    @staticmethod
    def _compare(
        file: StateFile, here: list[tuple[str, Any]], saved: dict[str, str], partial: bool, cast: bool
    ) -> None:
        known = dict(here)
        missing = [] if partial else [f'"{name}"' for name in known if name not in saved]
        unexpected = [] if partial else [f'"{name}"' for name in saved if name not in known]
        different = []
        for name, array in here:
            if name not in saved:
                continue
            dtype, shape = file.tensors[saved[name]]
            now = _arrays.dtype_name(array)
            if shape != tuple(array.shape):
                different.append(f'"{name}" has shape {shape} in the file, {tuple(array.shape)} here')
            elif dtype != now and not (cast and dtype.startswith("complex") == now.startswith("complex")):
                different.append(f'"{name}" has dtype {dtype} in the file, {now} here')
        lists = (("missing in the file", missing), ("unexpected in the file", unexpected), ("different", different))
        text = "".join(f"\n  {title}: {listed(items)}" for title, items in lists if items)
        if text:
            raise InvalidValueError(f"{file.what}the parameters in the file do not fit this model{text}")

    @staticmethod
    def _value(file: StateFile, name: str | None, like: Any) -> Any:
        if name is None:
            return None
        library = _core.library_of(like)
        array = array_from(*file.read(name), library if library == "torch" else "numpy")
        if library == "torch":
            return array
        return array if array.dtype == np.dtype(like.dtype) else array.astype(like.dtype)

    def write(self) -> Any:
        """The model with the file's values; the same one, unless its arrays cannot be written."""
        if all(_core.may_write(array) for array in self.arrays):
            for array, value in zip(self.arrays, self.values, strict=True):
                if value is not None:
                    _write(array, value)
            return self.model
        new = [
            array if value is None else _arrays.jax_from(value, array) if _arrays.is_jax(array) else value
            for array, value in zip(self.arrays, self.values, strict=True)
        ]
        if self.flat:
            return _flat_from(self.model, new)
        assert self.native is not None
        return self.native.rebuilt(new)


def _flat_from(flat: Any, parts: list[Any]) -> Any:
    import jax

    return jax.numpy.concatenate([part.reshape(-1) for part in parts]) if parts else flat


def _write(array: Any, value: Any) -> None:
    if _arrays.is_tensor(array):
        import torch

        with torch.no_grad():
            array.copy_(value)
    elif _arrays.is_cupy(array):
        array[...] = _arrays.cupy_or_none().asarray(value)
    else:
        np.copyto(array, value)
