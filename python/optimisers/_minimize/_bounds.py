"""Bounds in SciPy's forms, for one array or by the leaves of a tree, and the projection onto them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _arrays
from .._core import InvalidTypeError, InvalidValueError
from .._walks import _companions
from ._leaves import CALL, Structure, _place, largest, library, values

Box = tuple[Any, Any] | None  # lower and upper, arrays of the leaf's library or numbers


class Bounds:
    """For each leaf its interval, or None."""

    def __init__(self, given: Any, structure: Structure) -> None:
        given = list(given) if isinstance(given, Iterator) else given  # zip(lower, upper)
        if structure.is_array or _is_pair(given) or hasattr(given, "lb"):
            each = [given] * len(structure.arrays)
        else:
            each = _companions(structure.native, (given,), CALL, "first")[0]
        self.boxes = [_box(b, x, p) for b, x, p in zip(each, structure.arrays, structure.paths, strict=True)]

    def project(self, leaves: list[Any]) -> list[Any]:
        """The leaves within their bounds: the same ones, or new ones where they cannot be written."""
        return [x if box is None else _projected(x, *box) for x, box in zip(leaves, self.boxes, strict=True)]

    def optimality(self, leaves: list[Any], grads: list[Any]) -> float:
        """‖x − P(x − g)‖∞, which is the norm of the gradient where nothing is bounded."""
        return largest(
            [
                g if box is None else values(x) - _clipped(values(x) - values(g), *box)
                for x, g, box in zip(leaves, grads, self.boxes, strict=True)
                if g is not None
            ]
        )


def _projected(x: Any, low: Any, high: Any) -> Any:
    if _arrays.is_jax(x):
        return _clipped(x, low, high)
    library(x).clip(values(x), low, high, out=values(x))
    return x


def _clipped(x: Any, low: Any, high: Any) -> Any:
    return library(x).clip(x, low, high)


def _is_pair(bounds: Any) -> bool:
    """Two numbers, or None for one: of every element."""
    return isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(b is None or np.isscalar(b) for b in bounds)


def _box(bounds: Any, x: Any, path: tuple[Any, ...]) -> Box:
    if bounds is None:
        return None
    place = _place(path)
    if _arrays.dtype_name(x).startswith("complex"):
        raise InvalidTypeError(f"{CALL}: {place} has complex elements, which no bounds can hold; bound real arrays")
    shape = tuple(x.shape)
    lower, upper = _ends(bounds, shape, place)
    low, high = _numbers(lower, -math.inf, shape, place), _numbers(upper, math.inf, shape, place)
    wrong = ~((low <= high) & (low < math.inf) & (high > -math.inf))
    if np.any(wrong):
        wrong, first, last = np.broadcast_arrays(wrong, low, high)
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        where = f" at {at[0] if len(at) == 1 else tuple(map(int, at))}" if at else ""
        raise InvalidValueError(
            f"{CALL}: bounds of {place}{where} must have lower <= upper, got {first[at]} and {last[at]}"
        )
    return _in_dtype(low, high, x)


def _ends(bounds: Any, shape: tuple[int, ...], place: str) -> tuple[Any, Any]:
    """The lower and the upper ends."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return bounds.lb, bounds.ub
    if _is_pair(bounds):
        return bounds[0], bounds[1]
    try:
        pairs = bounds if _is_numeric(bounds) else np.array(bounds, object)
    except ValueError:
        pairs = np.array(None)
    if pairs.shape != (*shape, 2):
        got = f"an array of shape {bounds.shape}" if isinstance(bounds, np.ndarray) else _said(bounds)
        raise InvalidValueError(
            f"{CALL}: bounds of {place}, which has shape {shape}: expected one pair (lower, upper) of numbers or None, "
            f"one pair an element, or scipy.optimize.Bounds, got {got}"
        )
    return pairs[..., 0], pairs[..., 1]


def _is_numeric(ends: Any) -> bool:
    return isinstance(ends, np.ndarray) and ends.dtype.kind in "fiu"


def _said(bounds: Any) -> str:
    return f"{len(bounds)} of them" if isinstance(bounds, (list, tuple)) else type(bounds).__name__


def _numbers(ends: Any, none: float, shape: tuple[int, ...], place: str) -> Any:
    """The ends in double precision, with what None means."""
    try:
        if not _is_numeric(ends):
            ends = np.array(ends, object)
            ends[ends == np.array(None)] = none
        ends = np.asarray(ends, float)
        np.broadcast_to(ends, shape)
    except (TypeError, ValueError):
        raise InvalidValueError(f"{CALL}: bounds of {place} must be numbers that fit its shape {shape}") from None
    return ends


def _in_dtype(low: Any, high: Any, x: Any) -> tuple[Any, Any]:
    """Rounded inwards in float32, so that none is beyond what was asked for; in narrower types to the nearest."""
    if _arrays.dtype_name(x) == "float32":
        low32, high32 = low.astype(np.float32), high.astype(np.float32)
        inner = np.nextafter(low32, np.float32(np.inf)), np.nextafter(high32, np.float32(-np.inf))
        inner = np.where(low32 < low, inner[0], low32), np.where(high32 > high, inner[1], high32)
        empty = inner[0] > inner[1]  # no float32 lies between them
        low, high = np.where(empty, low32, inner[0]), np.where(empty, high32, inner[1])
    if _arrays.is_tensor(x):
        torch = library(x)
        return torch.as_tensor(low, dtype=x.dtype, device=x.device), torch.as_tensor(
            high, dtype=x.dtype, device=x.device
        )
    xp = library(x)
    return xp.asarray(low, dtype=x.dtype), xp.asarray(high, dtype=x.dtype)
