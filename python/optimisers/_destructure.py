"""destructure: a model as one vector, and back."""

from __future__ import annotations

import itertools
import math
import sys
from functools import partial
from typing import Any, Generic, TypeVar

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

    __slots__ = ("_device", "_dtype", "_dtypes", "_library", "_native", "_order", "_shapes")

    # Vectors outlive the version that made them: in those of order 1, which pickles of then ask for, dicts lie in
    # insertion order whatever their arrays are; since 2 those of JAX's arrays in JAX's.
    def __init__(self, model: M, order: int = 1) -> None:
        self._native = _core.Model(model, "destructure", order == 1)
        self._order = order
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
        pairs = zip(self._split(flat, library), self._shapes, strict=True)
        if library == "torch":
            leaves = [part.view(shape) for part, shape in pairs]
        else:
            leaves = [part if len(shape) == 1 else part.reshape(shape) for part, shape in pairs]
        if {_arrays.dtype_name(flat)}.issuperset(self._dtypes):
            return leaves
        for i, name in enumerate(self._dtypes):
            leaf, dtype = _real(leaves[i], name), _arrays.dtype(name, library)
            leaves[i] = leaf.to(dtype) if library == "torch" else leaf.astype(dtype, copy=False)
        return leaves

    def _split(self, flat: Any, library: str) -> Any:
        """One part a leaf. Backwards that is one concatenation: of slices each would be padded to the whole."""
        sizes = [math.prod(shape) for shape in self._shapes]
        if library == "torch":
            return flat.split(sizes) if sizes else ()
        if library == "jax":
            import jax

            return jax.lax.split(flat, sizes) if sizes else ()
        ends = list(itertools.accumulate(sizes))
        return [flat[end - size : end] for size, end in zip(sizes, ends, strict=True)]

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

        parts: list[Any] = [
            jnp.zeros(shape, self._dtype) if a is None else a for a, shape in zip(arrays, self._shapes, strict=True)
        ]
        return jnp.concatenate([jnp.ravel(part).astype(self._dtype) for part in parts or [jnp.zeros(0)]])

    def _check_fits(self, leaf: int, array: Any) -> None:
        what = ""
        if tuple(array.shape) != self._shapes[leaf]:
            what = f"has shape {tuple(array.shape)}, the model's has {self._shapes[leaf]}"
        elif "complex" in str(array.dtype) and not self._dtypes[leaf].startswith("complex"):
            what = f"is {_arrays.dtype_name(array)}, the model's is real; take its real part"
        if what:
            path = KeyPath(*self._native.leaves()[leaf][0]) or "the model"
            raise InvalidValueError(f'flatten: array at "{path}" {what}')

    def _flatten_by_library(self, found: list[tuple[int, tuple[int, ...], Any]]) -> Any:
        """`flatten` with the array library's own operations, so that it can be differentiated."""
        arrays: list[Any] = [None] * len(self._shapes)
        for leaf, axes, array in found:
            if axes:
                array = array.permute(axes) if self._library == "torch" else array.transpose(axes)
            self._check_fits(leaf, array)
            arrays[leaf] = array if arrays[leaf] is None else arrays[leaf] + array
        return self._concatenated(arrays)

    def _vector_of(self, model: Any) -> Any:
        """The vector of another model of this shape, in this layout."""
        here = _core.Model(model, "destructure").places()
        there = {path: leaf for leaf, path, *_ in self._native.places()}
        given = {path: array for _, path, array, _ in here}
        alike = {self._library} | ({"numpy", "jax"} if self._library in ("numpy", "jax") else set())
        for path, array in given.items():
            if _core.library_of(array) not in alike:
                raise InvalidTypeError(
                    f'destructure: the array at "{KeyPath(*path) or "the model"}" must be {_CALLED[self._library]}, as '
                    f"in the model of like=, got {type(array).__name__}"
                )
        for what, paths in (("has", given.keys() - there.keys()), ("lacks", there.keys() - given.keys())):
            if paths:
                place = KeyPath(*min(paths, key=str)) or "the model"
                raise InvalidValueError(
                    f'destructure: the model {what} an array at "{place}", and the one of like='
                    f"{' does not' if what == 'has' else ' has one'}; leave like out to lay it out as it is"
                )
        first: dict[int, Any] = {}
        for leaf, path, _, axes in self._native.places():
            array = _core.with_axes(given[path], axes) if axes else given[path]
            one = first.setdefault(leaf, array)
            if one is not array and not _same_values(one, array):
                raise InvalidValueError(
                    f'destructure: "{KeyPath(*path)}" is one with another array in the model of like=, and has other '
                    "values than that one here; leave like out to lay it out as it is"
                )
        if self._library == "numpy" and not any(_arrays.is_jax(array) for array in first.values()):
            flat = self._empty()
            for segment, (leaf, array) in zip(self._native.segments(flat), first.items(), strict=True):
                self._check_fits(leaf, array)
                segment[...] = array
            return flat
        if self._library in ("numpy", "jax", "torch"):
            return self._flatten_by_library([(leaf, (), array) for leaf, array in first.items()])
        if len(first) < len(there):
            raise InvalidTypeError(f"destructure: like= of {_CALLED[self._library]} with ties is not laid out anew")
        return self.flatten(model)

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
        return Restructure, (self._native.model, self._order)


def _keeps_graph(arrays: list[Any]) -> bool:
    """Whether some library would have to differentiate through a vector of these."""
    if any(map(_arrays.is_tracer, arrays)):
        return True
    tensors = [array for array in arrays if _arrays.is_tensor(array) and array.requires_grad]
    return bool(tensors) and sys.modules["torch"].is_grad_enabled()


def _same_values(a: Any, b: Any) -> bool:
    """Of arrays that are being traced nobody can tell: they are taken to be what they were."""
    if a is b or _arrays.is_tracer(a) or _arrays.is_tracer(b):
        return True
    return a.shape == b.shape and bool((a == b).all())


def _real(array: Any, dtype: str) -> Any:
    is_complex = "complex" in str(array.dtype) and not dtype.startswith("complex")
    return array.real if is_complex else array


def destructure(model: M, *, like: Restructure[M] | None = None) -> tuple[Any, Restructure[M]]:
    """Return all trained arrays of a model as one vector, and the way back.

    Args:
        model: a tree of arrays of one library.
        like: what `destructure` returned for another model of these arrays. The vector is then laid out as that
            one's and in its dtype, array by array under the same key, whatever the order of the keys is now.

    Returns:
        `(flat, re)`: a new contiguous vector in the arrays' common dtype, leaves in walk order and
        each in C order, tied arrays once; and a `Restructure`, which with `like` is that one. `re(flat)` is the model
        again, made of views into `flat` wherever the dtypes agree; `re.flatten(tree)` packs gradients;
        `setup(rule, flat, layout=re)` keeps the leaves apart.

    Walk order is that of the model's own keys. Where arrays are JAX's, dicts lie with their keys sorted, as JAX hands
    them back from `jax.jit` or `jax.grad`, and so as `jax.flatten_util.ravel_pytree` has them. A model of NumPy arrays
    and its gradients by JAX may thus be in different orders: pair by key, with `re.flatten(grads)`, `like=re`, or
    `map_trainables`, and not `zip(trainables(model), trainables(grads))`.

    Raises:
        TypeError: the model mixes array libraries.
        ValueError: it has not the arrays, or not the shapes, of the one of `like`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> flat, re = opt.destructure({"w": np.ones((2, 2)), "b": np.zeros(1)})
        >>> flat
        array([1., 1., 1., 1., 0.])
        >>> re(2 * flat)["w"]
        array([[2., 2.],
               [2., 2.]])
    """
    if like is not None:
        if not isinstance(like, Restructure):
            raise InvalidTypeError(
                f"destructure: like must be what destructure returned beside a vector, got {type(like).__name__}"
            )
        return like._vector_of(model), like
    re: Restructure[M] = Restructure(model, order=2)
    if len(re._shapes) == 0:
        check_model(model, "destructure")
    return re._vector(), re
