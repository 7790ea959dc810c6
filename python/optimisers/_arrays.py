"""The few things that differ between array libraries; torch is imported only once it is in use."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._core import InvalidTypeError

if TYPE_CHECKING:
    import torch


def is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_jax(x: object) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.Array)


def is_cupy(x: object) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def is_tracer(x: object) -> bool:
    """Whether JAX is tracing: there is a shape and a dtype, but no values."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def is_extended(x: Any) -> bool:
    """Whether the elements of a JAX array are no numbers: random keys."""
    return not isinstance(x.dtype, np.dtype)


def jax_values(x: Any) -> np.ndarray[Any, Any] | None:
    """A read-only view of a JAX array; None of a tracer, and of one that was deleted, which have no values."""
    if is_tracer(x) or x.is_deleted():
        return None
    if any(device.platform != "cpu" for device in x.devices()):
        raise InvalidTypeError("a JAX array spread over several devices cannot be read; gather it on one first")
    return np.asarray(x)


def jax_outline(x: Any) -> np.ndarray[Any, Any]:
    """A read-only array of a JAX array's shape and dtype, whatever is in it."""
    outline = np.empty(x.shape, x.dtype)
    outline.flags.writeable = False
    return outline


def jax_from(array: Any, like: Any) -> Any:
    """A JAX array of these values, on a device without a copy; nobody writes the array any more.

    Of values on the host it is where `like` was put, if that was said.
    """
    import jax

    if not isinstance(array, np.ndarray):
        return jax.dlpack.from_dlpack(array)
    return jax.device_put(array, like.sharding) if like.committed else jax.numpy.asarray(array)


ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


def as_numpy(x: Any) -> np.ndarray[Any, Any] | None:
    """What NumPy reads from another library's array or a buffer; None: it is none, or its numbers would change.

    A warning on the way, such as one of units that are lost, counts as such a change.
    """
    if not any(hasattr(type(x), name) for name in ARRAY_PROTOCOLS):
        if isinstance(x, (bytes, bytearray)):  # text, or anything
            return None
        try:
            x = memoryview(x)
        except TypeError:
            return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            only_dlpack = not hasattr(type(x), "__array__") and hasattr(type(x), "__dlpack__")
            array: np.ndarray[Any, Any] = np.from_dlpack(x) if only_dlpack else np.asanyarray(x)
    except Exception:  # whatever the library raises for what it cannot show: it is no array of numbers then
        return None
    is_number = array.dtype.kind in "fciub" or (array.dtype.kind == "V" and array.dtype.type is not np.void)
    return array if is_number else None


def copied_tensor(x: torch.Tensor, device: str | None = None) -> torch.Tensor:
    """Another tensor of the same class, values and strides, here or on a device, outside any graph."""
    import torch

    copy = x.detach().clone() if device is None else x.detach().to(device, copy=True)
    if isinstance(x, torch.nn.Parameter):
        return torch.nn.Parameter(copy, requires_grad=x.requires_grad)
    return copy.requires_grad_(x.requires_grad and x.is_leaf)


def tensor_parts(x: torch.Tensor) -> list[Any] | None:
    """Dtype, shape and bytes of a tensor of torch's own class in the host's memory; None of any other."""
    import torch

    if type(x) is not torch.Tensor or x.device.type != "cpu" or x.layout != torch.strided or x.is_quantized:
        return None
    values = x.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return [str(x.dtype), *x.shape, values.view(torch.uint8).numpy().tobytes()]


def numpy_dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def cupy_or_none() -> Any:
    """CuPy, where it can be imported."""
    try:
        import cupy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return cupy


def dtype(name: str, library: str) -> Any:
    """The array library's own object for a dtype."""
    if library != "torch":
        return numpy_dtype(name)
    import torch

    return getattr(torch, name)


def shown(array: Any, library: str) -> Any:
    """The memory of a NumPy array or `DeviceArray` as an array of the leaf's library."""
    if library == "torch":
        import torch

        return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.utils.dlpack.from_dlpack(array)
    if library == "cupy" and not isinstance(array, np.ndarray):
        return cupy_or_none().from_dlpack(array)
    return array


def empty(shape: tuple[int, ...], name: str, library: str, device: int) -> Any:
    """A new array of this library, on the host (-1) or a CUDA device."""
    if library == "torch":
        import torch

        where = "cpu" if device < 0 else f"cuda:{device}"
        return torch.empty(shape, dtype=dtype(name, library), device=where)
    if device < 0:
        return np.empty(shape, numpy_dtype(name))
    if library == "cupy":
        cupy = cupy_or_none()
        with cupy.cuda.Device(device):
            return cupy.empty(shape, numpy_dtype(name))
    return _core.device_zeros(list(shape), name, device)


def record_stream(tensors: list[torch.Tensor], stream: int) -> None:
    """Tell torch that work on another stream than its own still uses these tensors."""
    import torch

    for tensor in tensors:
        if tensor.is_cuda and stream != torch.cuda.current_stream(tensor.device).cuda_stream:
            external = torch.cuda.ExternalStream(stream, tensor.device)  # type: ignore[no-untyped-call]
            tensor.record_stream(external)


def give_back_memory(device: int) -> None:
    """Have the libraries in use give back memory of a CUDA device that they keep for later."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if cupy is not None:
        with cupy.cuda.Device(device):
            cupy.get_default_memory_pool().free_all_blocks()


def memory_held(device: int) -> str:
    """Which libraries hold how much memory of a CUDA device, as far as they say."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    held = []
    if torch is not None and torch.cuda.is_initialized():
        used, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        held.append(f"torch holds {kept} bytes, {used} of them in tensors")
    if cupy is not None:
        with cupy.cuda.Device(device):
            pool = cupy.get_default_memory_pool()
            held.append(f"CuPy holds {pool.total_bytes()} bytes, {pool.used_bytes()} of them in arrays")
    if "jax" in sys.modules:  # asking it would make it take memory where it has not yet
        held.append("JAX gives nothing back of what it took (see XLA_PYTHON_CLIENT_PREALLOCATE)")
    return ", ".join(held)


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


# Every pair of float dtypes as NumPy promotes it; float16 with bfloat16 needs one that holds both.
_WIDTH = {"bfloat16": 0, "float16": 0, "float32": 1, "float64": 2, "complex64": 1, "complex128": 2}
FLOATS = frozenset(_WIDTH)


def common_dtype(names: set[str]) -> str:
    """The dtype that holds values of all these dtypes."""
    if len(names) == 1:
        return next(iter(names))
    width = max(1, *(_WIDTH[name] for name in names))
    if any(name.startswith("complex") for name in names):
        return ("complex64", "complex128")[width - 1]
    return ("float32", "float64")[width - 1]
