"""Arrays that say they are on a CUDA device, over host memory: what the emulated devices of the tests compute with.

The emulation (built with the C++ tests) runs the kernels as loops, and its device memory is host memory. These arrays
are therefore right for it, and for it alone.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import pytest
from support import mapped, numpy_dtype, to_numpy, to_torch

import optimisers as opt

_library = os.environ.get("OPTIMISERS_CUDA_LIBRARY", "")
EMULATED = "emulation" in _library and os.path.exists(_library)
needs_emulation = pytest.mark.skipif(
    not EMULATED, reason="OPTIMISERS_CUDA_LIBRARY names no emulation of devices; `make test` builds it and does"
)


_lent: list[Any] = []  # a library's memory may be freed while it is still read, for it is reused in the stream's order


def lend(memory: Any) -> Any:
    """Memory of an array that the emulation may still read after the array is gone."""
    if os.environ.get("OPTIMISERS_EMULATED_DEFERRED"):
        _lent.append(memory)
    return memory


def emulation(what: str) -> None:
    """Tell the emulation to "finish" what is deferred, or to "replay" or "forget" what was recorded in a capture."""
    if EMULATED:
        ctypes.CDLL(_library).optimisers_emulation(what.encode())
        if what == "finish":
            _lent.clear()


class CudaArray:
    """An array of a library that speaks the CUDA array interface, on device 0."""

    def __init__(self, host: np.ndarray, *, read_only: bool = False, **fields: Any) -> None:
        self.memory, self.read_only, self.fields = lend(host), read_only, fields

    @property
    def host(self) -> np.ndarray:
        emulation("finish")
        return self.memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        host = self.memory
        strides = None if host.flags.c_contiguous else host.strides
        data = (host.ctypes.data, self.read_only)
        fields = {"version": 3, "shape": host.shape, "strides": strides, "typestr": host.dtype.str, "data": data}
        return fields | {"stream": None} | self.fields

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype:
        return self.memory.dtype

    def copy(self) -> CudaArray:
        return CudaArray(self.host.copy(order="K"))

    def transpose(self, axes: Any) -> CudaArray:
        return CudaArray(self.memory.transpose(axes))


class DLPackArray:
    """An array of a library that speaks DLPack, on any device, of any dtype; knows which streams it was asked for."""

    def __init__(self, host: np.ndarray, device: int = 0, kind: int = 2, versioned: bool = True) -> None:
        self.tensor, self.device, self.kind, self.versioned = lend(to_torch(host)), device, kind, versioned
        self.streams: list[int] = []

    @property
    def host(self) -> np.ndarray:
        emulation("finish")
        return to_numpy(self.tensor)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def copy(self) -> DLPackArray:
        return DLPackArray(self.host, self.device, self.kind, self.versioned)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.device

    def __dlpack__(self, *, stream: int, **keywords: Any) -> Any:
        if keywords and not self.versioned:
            raise TypeError(f"__dlpack__() got an unexpected keyword argument {next(iter(keywords))!r}")
        self.streams.append(stream)
        capsule = self.tensor.__dlpack__(**keywords)
        tensor = tensor_of(capsule)
        tensor.device_type, tensor.device_id = self.kind, self.device
        return capsule


class Tensor(ctypes.Structure):
    """DLTensor of DLPack."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned of DLPack."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


def managed_of(capsule: Any) -> Any:
    """What a DLPack capsule holds: a `Versioned`, or before DLPack 1.0 a structure that begins with the tensor."""
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    kind = Versioned if name(capsule) == b"dltensor_versioned" else Tensor
    return kind.from_address(pointer(capsule, name(capsule)))


def tensor_of(capsule: Any) -> Tensor:
    managed = managed_of(capsule)
    return managed.tensor if isinstance(managed, Versioned) else managed


def on_device(tree: Any) -> Any:
    """The tree with its NumPy arrays said to be on device 0; bfloat16, which the array interface lacks, by DLPack."""
    bfloat16 = numpy_dtype("bfloat16")
    return mapped(lambda a: DLPackArray(a) if a.dtype == bfloat16 else CudaArray(a), tree)


def host(x: Any) -> Any:
    """The values of arrays on devices, as NumPy arrays."""
    if isinstance(x, (CudaArray, DLPackArray)):
        return x.host
    if isinstance(x, opt.DeviceArray):
        return opt.to_device(x, "cpu")
    if isinstance(x, dict):
        return {key: host(child) for key, child in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(host, x))
    return type(x)(map(host, x)) if isinstance(x, (list, tuple)) else x
