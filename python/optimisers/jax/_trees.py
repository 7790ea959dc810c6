"""Parameters, gradients and states taken apart together: what does not fit is refused while JAX traces."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .._core import InvalidTypeError, InvalidValueError

_COMPUTE = {"float16": "float32", "bfloat16": "float32"}
_TRAINED = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_REAL = {"complex64": "float32", "complex128": "float64"}
_COMPLEX = {"float32": "complex64", "float64": "complex128"}


def compute_dtype(dtype: Any, master: str | None) -> str:
    """The type a leaf is computed in, which its slots have."""
    name = str(dtype)
    own = _COMPUTE.get(name, name)
    if master is None:
        return own
    wide = _COMPLEX[master] if name.startswith("complex") else master
    return wide if np.dtype(wide).itemsize > np.dtype(own).itemsize else own


def real_dtype(name: str) -> str:
    return _REAL.get(name, name)


class Leaves:
    """The leaves of parameters, in JAX's order."""

    def __init__(self, params: Any, call: str) -> None:
        self.call = call
        self.structure: Any
        found, self.structure = jax.tree_util.tree_flatten_with_path(params)
        self.paths = [jax.tree_util.keystr(path, simple=True, separator=".") or "the parameter" for path, _ in found]
        self.arrays = [x for _, x in found]
        for path, x in zip(self.paths, self.arrays, strict=True):
            if not hasattr(x, "dtype") or not hasattr(x, "shape"):
                raise InvalidTypeError(
                    f'{call}: the parameter at "{path}" is a {type(x).__name__}; expected an array of JAX or NumPy'
                )
            check_alive(x, path, call)
        self.trained = [i for i, x in enumerate(self.arrays) if str(x.dtype) in _TRAINED]
        for i in set(range(len(found))).difference(self.trained):
            if not jax.numpy.issubdtype(self.arrays[i].dtype, np.inexact):
                continue  # integers, booleans, random keys: nobody takes them for parameters
            raise InvalidTypeError(f'{call}: the parameter at "{self.paths[i]}" is {self.arrays[i].dtype}')

    def of(self, tree: Any, what: str) -> list[Any]:
        """What another tree of this structure has at each leaf: where None may stand, of a slot, it does."""
        try:
            return list(self.structure.flatten_up_to(tree))
        except (ValueError, TypeError) as error:
            raise InvalidValueError(
                f"{self.call}: {what} must have the structure of the parameters\n"
                f"  parameters: {self.structure}\n  {what}: {jax.tree.structure(tree)}"
            ) from error

    def gradients(self, grads: Any) -> list[Any]:
        """The gradients of the leaves, each checked against its parameter."""
        if jax.tree.structure(grads) != self.structure:
            raise InvalidValueError(
                f"{self.call}: the gradients must have the structure of the parameters\n"
                f"  parameters: {self.structure}\n  gradients:  {jax.tree.structure(grads)}"
            )
        found = jax.tree.leaves(grads)
        trained = set(self.trained)
        for i, (path, x, g) in enumerate(zip(self.paths, self.arrays, found, strict=True)):
            if i not in trained:
                if getattr(g, "dtype", None) != jax.dtypes.float0:
                    raise InvalidTypeError(
                        f'{self.call}: there is a gradient for "{path}", which is {x.dtype}; leave it out of what is '
                        "differentiated, or make it an array of floats"
                    )
                continue
            if np.shape(g) != tuple(x.shape):
                raise InvalidValueError(
                    f'{self.call}: gradient at "{path}" has shape {np.shape(g)}, parameter has {tuple(x.shape)}'
                )
            if np.iscomplexobj(g) and not str(x.dtype).startswith("complex"):
                raise InvalidValueError(
                    f'{self.call}: gradient at "{path}" is {g.dtype}, parameter is real ({x.dtype}); pass its real part'
                )
            check_alive(g, path, self.call)
        return found


def check_alive(x: Any, path: str, call: str) -> None:
    """Of an array that was donated nothing is left."""
    if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_deleted():
        raise InvalidValueError(
            f'{call}: the array at "{path}" was deleted: it was donated to an earlier call; use what that one returned'
        )


def ties_of(arrays: list[Any], trained: list[int]) -> tuple[tuple[int, ...], ...]:
    """Which trained leaves are one array."""
    places: dict[int, list[int]] = {}
    for i in trained:
        places.setdefault(id(arrays[i]), []).append(i)
    return tuple(tuple(same) for same in places.values() if len(same) > 1)
