"""destructure: a model as one vector, and back; trainables: its arrays as a list."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np

from . import _arrays, _core
from ._core import InvalidTypeError, InvalidValueError
from ._paths import KeyPath
from ._untrained import check_model

M = TypeVar("M")


_CALLED = {
    "numpy": "a NumPy array",
    "jax": "a NumPy array",
    "torch": "a torch tensor",
    "cupy": "a CuPy array",
    "other": "an array on a CUDA device",
}


def _common_place(infos: list[tuple[tuple[int, ...], str, str, int]]) -> tuple[str, int]:
    """The library and device that one vector of all leaves belongs to."""
    libraries, devices = {library for *_, library, _ in infos}, {device for *_, device in infos}
    if libraries == {"numpy", "jax"}:
        libraries = {"jax"}
    if len(devices) > 1:
        names = " and ".join("the host" if device < 0 else f"cuda:{device}" for device in sorted(devices))
        raise InvalidValueError(f"destructure: the model has arrays on {names}; one vector cannot be on several")
    if len(libraries) > 1:
        what = "torch tensors and others" if "torch" in libraries else "arrays of several libraries"
        raise InvalidTypeError(f"destructure: the model has {what}; one vector cannot hold both")
    return (libraries.pop(), devices.pop()) if infos else ("numpy", -1)


class Restructure(Generic[M]):
    """What `destructure` returns beside the vector: rebuilds the model, and packs trees like it."""

    __slots__ = ("_device", "_dtype", "_dtypes", "_library", "_native", "_shapes")

    def __init__(self, model: M) -> None:
        self._native = _core.Model(model, "destructure")
        infos = self._native.infos()
        self._library, self._device = _common_place(infos)
        self._shapes = [shape for shape, *_ in infos]
        self._dtypes = [dtype for _, dtype, *_ in infos]
        self._dtype = _arrays.common_dtype(set(self._dtypes)) if infos else "float32"

    def __call__(self, flat: Any) -> M:
        """Rebuild the model from a vector.

        Leaves of the vector's dtype are views into it, others converted copies; a real leaf takes
        the real part of a complex vector. What is not trained is shared, a Module's buffers too
        (the running statistics of a BatchNorm move in both); ties are kept. torch differentiates
        through it; of a JAX vector leaves are slices, also under `jax.grad` and `jax.jit`, whatever
        the model's own arrays are.

        Args:
            flat: a vector as `destructure` returned it, or another of that length.

        Returns:
            A model like the one given to `destructure`.

        Raises:
            ValueError: the vector has another length.
            TypeError: it is no vector of the model's array library.
        """
        library = _core.library_of(flat)
        alike = ("numpy", "jax")
        if library != self._library and not (library in alike and self._library in alike):
            raise InvalidTypeError(f"re: expected {_CALLED[self._library]}, got {type(flat).__name__}")
        shape = getattr(flat, "shape", None)
        if shape is not None and tuple(shape) != (len(self),):
            raise InvalidValueError(f"re: the flat vector has shape {tuple(shape)}, the model has {(len(self),)}")
        as_segments = library in ("numpy", "other")
        return self._native.rebuilt(self._segments(flat, library) if as_segments else self._slices(flat, library))  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self._native.size()

    def _segments(self, flat: Any, library: str) -> list[Any]:
        """Leaves of a vector that nobody differentiates through."""
        leaves = []
        for segment, own in zip(self._native.segments(flat), self._dtypes, strict=True):
            if _arrays.dtype_name(segment) == own:
                leaves.append(segment)
            elif library == "numpy":
                leaves.append(_real(segment, own).astype(_arrays.numpy_dtype(own)))
            else:
                leaves.append(_core.device_converted(segment, own))
        return leaves

    def _slices(self, flat: Any, library: str) -> list[Any]:
        """Leaves of a vector that its library slices, and torch and JAX differentiate through."""
        leaves, begin = [], 0
        for shape, own in zip(self._shapes, self._dtypes, strict=True):
            size = int(np.prod(shape, dtype=np.int64))
            leaf = _real(flat[begin : begin + size].reshape(shape), own)
            begin += size
            dtype = _arrays.dtype(own, library)
            leaves.append(leaf.to(dtype) if library == "torch" else leaf.astype(dtype, copy=False))
        return leaves

    def _vector(self) -> Any:
        """The model's own arrays; packed by torch or JAX where a graph has to be kept."""
        arrays = [array for _, array in self._native.leaves()]
        if _keeps_graph(arrays) or self._library == "jax":
            return self._concatenated(list(arrays))
        flat = self._empty()
        self._native.pack_model(flat)
        return flat

    def _empty(self) -> Any:
        return _arrays.empty((len(self),), self._dtype, self._library, self._device)

    def _concatenated(self, arrays: list[Any]) -> Any:
        """One vector of the leaves' arrays, by the array library; None is zeros."""
        if self._library == "torch":
            import torch

            dtype = _arrays.dtype(self._dtype, "torch")
            zeros = partial(torch.zeros, device="cpu" if self._device < 0 else f"cuda:{self._device}")
            tensors = [zeros(shape) if a is None else a for a, shape in zip(arrays, self._shapes, strict=True)]
            return torch.cat([part.reshape(-1).to(dtype) for part in tensors])
        import jax.numpy as jnp

        parts: list[Any] = [jnp.zeros(shape) if a is None else a for a, shape in zip(arrays, self._shapes, strict=True)]
        return jnp.concatenate([jnp.ravel(part).astype(self._dtype) for part in parts])

    def _flatten_by_library(self, found: list[tuple[int, tuple[int, ...], Any]]) -> Any:
        """`flatten` with the array library's own operations, so that it can be differentiated."""
        arrays: list[Any] = [None] * len(self._shapes)
        for leaf, axes, array in found:
            if axes:
                array = array.permute(axes) if self._library == "torch" else array.transpose(axes)
            if tuple(array.shape) != self._shapes[leaf]:
                path = KeyPath(*self._native.leaves()[leaf][0]) or "the model"
                raise InvalidValueError(
                    f'flatten: array at "{path}" has shape {tuple(array.shape)}, the model\'s has {self._shapes[leaf]}'
                )
            arrays[leaf] = array if arrays[leaf] is None else arrays[leaf] + array
        return self._concatenated(arrays)

    def flatten(self, tree: Any, out: Any = None) -> Any:
        """Pack a tree of the model's shape, such as its gradients, into a vector.

        Args:
            tree: arrays where the model has trained ones; `None` and missing keys become zeros,
                gradients of tied arrays are summed. Where the model has a value that is not trained the tree may
                have one as well, but no array of floats: that would be dropped.
            out: a contiguous vector like the one `destructure` returned, to be written and returned. A step that
                packs into the same one each time takes no new memory, which costs more than the packing.

        Returns:
            `out`, or a new vector of the dtype `destructure` chose.

        Raises:
            ValueError: structure or shapes do not fit; there is an array of floats where the model has something
                else that is not marked as not trained; `out` is read-only, has gaps or shares memory with the tree;
                or gradients would be taken through it.
            TypeError: something that should be an array is none; `out` has another dtype or library.

        Example:
            >>> import numpy as np, optimisers as opt
            >>> flat, re = opt.destructure({"w": np.ones(2), "b": np.ones(1)})
            >>> memory = np.empty_like(flat)
            >>> re.flatten({"w": np.array([3.0, 4.0])}, out=memory) is memory, memory
            (True, array([3., 4., 0.]))
        """
        if self._library in ("jax", "torch") or "jax" in sys.modules:
            found = self._native.gathered(tree)
            arrays = [array for *_, array in found]
            if self._library == "jax" or _keeps_graph(arrays):
                if out is not None:
                    raise InvalidValueError(
                        "flatten: out cannot be written: JAX arrays are never, and tensors that require grad need a "
                        "graph; leave it out, or detach them"
                    )
                return self._flatten_by_library(found)
        if out is None:
            out = self._empty()
            self._native.pack(tree, out, "")
            return out
        if _core.library_of(out) != self._library:
            raise InvalidTypeError(f"flatten: out must be {_CALLED[self._library]}, got {type(out).__name__}")
        if self._library == "torch" and out.requires_grad:
            raise InvalidValueError("flatten: out requires grad, so it cannot be written in place; pass out.detach()")
        self._native.pack(tree, out, self._dtype)
        return out

    def __repr__(self) -> str:
        return f"Restructure({type(self._native.model).__name__}, {len(self)} elements, {self._dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Restructure, (self._native.model,)


def _keeps_graph(arrays: list[Any]) -> bool:
    """Whether some library would have to differentiate through a vector of these."""
    if any(map(_arrays.is_tracer, arrays)):
        return True
    tensors = [array for array in arrays if _arrays.is_tensor(array) and array.requires_grad]
    return bool(tensors) and sys.modules["torch"].is_grad_enabled()


def _real(array: Any, dtype: str) -> Any:
    is_complex = "complex" in str(array.dtype) and not dtype.startswith("complex")
    return array.real if is_complex else array


def destructure(model: M) -> tuple[Any, Restructure[M]]:
    """Return all trained arrays of a model as one vector, and the way back.

    Args:
        model: a tree of arrays of one library.

    Returns:
        `(flat, re)`: a new contiguous vector in the arrays' common dtype, leaves in walk order and
        each in C order, tied arrays once; and a `Restructure`. `re(flat)` is the model again, made
        of views into `flat` wherever the dtypes agree; `re.flatten(tree)` packs gradients;
        `setup(rule, flat, layout=re)` keeps the leaves apart.

    Raises:
        TypeError: the model mixes array libraries.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> flat, re = opt.destructure({"w": np.ones((2, 2)), "b": np.zeros(1)})
        >>> flat
        array([1., 1., 1., 1., 0.])
        >>> re(2 * flat)["w"]
        array([[2., 2.],
               [2., 2.]])
    """
    re: Restructure[M] = Restructure(model)
    if len(re._shapes) == 0:
        check_model(model, "destructure")
    return re._vector(), re


@overload
def trainables(model: Any, path: Literal[False] = ...) -> list[Any]: ...
@overload
def trainables(model: Any, path: Literal[True]) -> list[tuple[KeyPath, Any]]: ...
def trainables(model: Any, path: bool = False) -> Any:
    """Return the trained arrays of a model in walk order, tied ones once.

    Args:
        model: a tree of arrays.
        path: return `(KeyPath, array)` pairs.

    Returns:
        A list of the arrays themselves, not copies.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.trainables({"w": np.zeros(2), "name": "layer"})
        [array([0., 0.])]
    """
    leaves = _core.Model(model, "trainables").leaves()
    if not leaves:
        check_model(model, "trainables")
    return [(KeyPath(*p), array) for p, array in leaves] if path else [array for _, array in leaves]
