"""The trained arrays of x: copied, compared, and paired with their gradients."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from .. import _arrays, _core
from .._core import InvalidTypeError, InvalidValueError
from .._untrained import check_arrays, check_model
from .._walks import _companions

CALL = "minimize"
_REAL = ("float", "bfloat16", "int", "uint", "bool")


def library(x: Any) -> Any:
    """The module of functions for an array of x's library."""
    if _arrays.is_tensor(x):
        return sys.modules["torch"]
    if _arrays.is_jax(x):
        import jax.numpy

        return jax.numpy
    return _arrays.cupy_or_none() if _arrays.is_cupy(x) else np


def copied(x: Any) -> Any:
    """Another array of these values; JAX's arrays nobody can change."""
    if _arrays.is_jax(x):
        return x
    return _arrays.copied_tensor(x) if _arrays.is_tensor(x) else x.copy()


def values(x: Any) -> Any:
    """The array, of tensors without the graph behind it."""
    return x.detach() if _arrays.is_tensor(x) else x


def like(g: Any, x: Any) -> Any:
    """A copy of g in x's dtype and library."""
    if _arrays.is_tensor(x):
        torch = library(x)
        given = g.detach() if _arrays.is_tensor(g) else torch.from_numpy(np.array(g))
        return given.to(device=x.device, dtype=x.dtype, copy=True)
    return library(x).array(values(g), dtype=x.dtype)


def copy_into(x: Any, source: Any) -> Any:
    """Write source to x, which is returned; where that cannot be, a copy."""
    if _arrays.is_jax(x):
        return source
    values(x)[...] = values(source)
    return x


def largest(arrays: list[Any]) -> float:
    """The largest magnitude of all elements; NaN if there is one."""
    return _core.norm([values(array) for array in arrays], math.inf, None)


class Structure:
    """The shape of x: which arrays are trained, and where they stand."""

    def __init__(self, x: Any) -> None:
        _check_kind(x)
        self.native = _core.Model(x, CALL)
        arrays = self.native.leaves()
        if not arrays:
            check_model(x, CALL)
            check_arrays(x, CALL)
            raise InvalidValueError(f"{CALL}: x0 has no trained array, got {type(x).__name__}")
        for path, array in arrays:
            if _core.library_of(array) == "other":
                raise InvalidTypeError(
                    f"{CALL}: {_place(path)} is a {type(array).__name__}, which has no arithmetic to follow it with; "
                    "pass arrays of NumPy, torch, JAX or CuPy, or call update_ in a loop"
                )
        self.paths = [path for path, _ in arrays]
        self.arrays = [array for _, array in arrays]
        self.is_array = self.paths == [()]
        self.infos = self.native.infos()

    def leaves(self, x: Any) -> list[Any]:
        """The arrays of x, or of a copy of it."""
        return [x] if self.is_array else [array for _, array in _core.Model(x, CALL).leaves()]

    def tree(self, leaves: list[Any]) -> Any:
        """What x is, with these arrays."""
        return leaves[0] if self.is_array else self.native.rebuilt(leaves)

    def copy(self, x: Any) -> Any:
        return self.tree([copied(array) for array in self.leaves(x)])

    def check_same(self, other: Any) -> None:
        """That another x has the same arrays."""
        if Structure(other).infos != self.infos:
            raise InvalidValueError(f"{CALL}: x0 has not the shapes and dtypes of the x that the earlier result has")

    def gradients(self, grads: Any) -> tuple[Any, list[Any]]:
        """The gradients as `update_` takes them, and one for each leaf: an array, or None."""
        if self.is_array:
            grads = self._as_array(grads)
            found = [grads]
        else:
            found = _companions(self.native, (grads,), CALL, "sum")[0]
        if all(g is None for g in found):
            raise InvalidTypeError(f"{CALL}: the gradient is None; fun returns (value, gradient), or pass jac=")
        return grads, [None if g is None else self._checked(g, leaf) for leaf, g in enumerate(found)]

    def _as_array(self, g: Any) -> Any:
        """Of one NumPy array, what NumPy makes of the gradient: lists too, and a number for one element."""
        shape, _, where, _ = self.infos[0]
        if where not in ("numpy", "jax") or isinstance(g, np.ndarray | dict) or g is None:
            return g
        try:
            array = np.asarray(values(g))
        except (TypeError, ValueError):
            array = np.asarray(None)
        if array.dtype.kind not in "fciubV":
            raise InvalidTypeError(f"{CALL}: the gradient must be an array of numbers, got a {type(g).__name__}")
        return array.reshape(shape) if array.shape == () and shape == (1,) else array

    def _checked(self, g: Any, leaf: int) -> Any:
        shape, dtype, *_ = self.infos[leaf]
        path = self.paths[leaf]
        if not hasattr(g, "shape") or not hasattr(g, "dtype"):
            raise InvalidTypeError(f"{CALL}: the gradient of {_place(path)} is a {type(g).__name__}, no array")
        if tuple(g.shape) != shape:
            raise InvalidValueError(
                f"{CALL}: the gradient of {_place(path)} has shape {tuple(g.shape)}, the array {shape}"
            )
        x = self.arrays[leaf]
        if type(g) is type(x) and g.dtype == x.dtype:
            return g
        name = _arrays.dtype_name(g)
        if not name.startswith((*_REAL, "complex")):
            raise InvalidTypeError(f"{CALL}: the gradient of {_place(path)} is an array of {name}, not of numbers")
        if name.startswith("complex") and not dtype.startswith("complex"):
            raise InvalidTypeError(f"{CALL}: the gradient of {_place(path)} is {name}, the array {dtype}; pass g.real")
        read = name in _arrays.FLOATS and _core.library_of(g) == self.infos[leaf][2]
        return g if read else like(g, x)


def _place(path: tuple[Any, ...]) -> str:
    return f'"{".".join(map(str, path))}"' if path else "x"


def _check_kind(x: Any) -> None:
    """Say of what SciPy would convert how to do it."""
    if isinstance(x, (bool, int, float, complex)):
        raise InvalidTypeError(f"{CALL}: x0 is a {type(x).__name__}; pass an array, numpy.array([x0], float)")
    dtype = getattr(x, "dtype", None)
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "iub":
        raise InvalidTypeError(f"{CALL}: x0 is an array of {dtype}, which steps would round; pass x0.astype(float)")
    if isinstance(x, (list, tuple)) and x and all(isinstance(v, (int, float, np.number)) for v in x):
        raise InvalidTypeError(f"{CALL}: x0 is a {type(x).__name__} of numbers; pass numpy.array(x0, float)")
