"""The few things that differ between array libraries; torch is imported only once it is in use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_jax(x: object) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.Array)


def is_tracer(x: object) -> bool:
    """Whether JAX is tracing: there is a shape and a dtype, but no values."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def jax_values(x: Any) -> np.ndarray[Any, Any]:
    """A read-only view of a JAX array; of a tracer an array of its shape, whatever is in it."""
    return np.empty(x.shape, x.dtype) if is_tracer(x) else np.asarray(x)


def jax_from_numpy(array: np.ndarray[Any, Any]) -> Any:
    """A JAX array of these values; nobody writes the array any more."""
    import jax.numpy as jnp

    return jnp.asarray(array)


def zero(arrays: list[Any]) -> None:
    """Set gradients of any layout to zero."""
    for array in arrays:
        if is_tensor(array):
            array.detach().zero_()
        else:
            array[...] = 0


def copied_tensor(x: torch.Tensor) -> torch.Tensor:
    """Another tensor of the same class, values and strides, outside any graph."""
    import torch

    copy = x.detach().clone()
    if isinstance(x, torch.nn.Parameter):
        return torch.nn.Parameter(copy, requires_grad=x.requires_grad)
    return copy.requires_grad_(x.requires_grad and x.is_leaf)


def numpy_dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def dtype(name: str, tensor: bool) -> Any:
    """The array library's own object for a dtype."""
    if not tensor:
        return numpy_dtype(name)
    import torch

    return getattr(torch, name)


def from_numpy(array: np.ndarray[Any, Any], tensor: bool) -> Any:
    """The same memory as an array of the leaf's library."""
    if not tensor:
        return array
    import torch

    return torch.from_numpy(array)


def empty(shape: tuple[int, ...], name: str, tensor: bool) -> Any:
    if not tensor:
        return np.empty(shape, numpy_dtype(name))
    import torch

    return torch.empty(shape, dtype=dtype(name, True))


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


# Every pair of float dtypes as NumPy promotes it; float16 with bfloat16 needs one that holds both.
_WIDTH = {"bfloat16": 0, "float16": 0, "float32": 1, "float64": 2, "complex64": 1, "complex128": 2}


def common_dtype(names: set[str]) -> str:
    """The dtype that holds values of all these dtypes."""
    if len(names) == 1:
        return next(iter(names))
    width = max(1, *(_WIDTH[name] for name in names))
    if any(name.startswith("complex") for name in names):
        return ("complex64", "complex128")[width - 1]
    return ("float32", "float64")[width - 1]
