"""Arrays of JAX and torch that say they are on CUDA device 0, over host memory: for the emulated devices of tests."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import torch
from device_arrays import DLPackArray, Tensor


class JaxArray(jax.Array):
    """An array that passes for JAX's: read-only, lent as a capsule; knows the streams it was asked for."""

    def __new__(cls, host: np.ndarray) -> Any:
        self = super().__new__(cls)
        self.lender = DLPackArray(np.empty(0))
        self.lender.tensor = host.copy()  # whose capsules hold it
        self.idle = sys.getrefcount(self.lender.tensor)
        return self

    def __init__(self, host: np.ndarray) -> None:
        pass

    shape = property(lambda self: self.lender.shape)
    ndim = property(lambda self: len(self.lender.shape))
    dtype = property(lambda self: self.lender.tensor.dtype)

    @property
    def lent(self) -> int:
        """How many capsules have not been let go."""
        return sys.getrefcount(self.lender.tensor) - self.idle

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: Any = None, **keywords: Any) -> Any:
        return self.lender.__dlpack__(stream=stream)


class _Exchange(ctypes.Structure):
    """DLPackExchangeAPI of DLPack 1.2."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("previous", "allocate", "from_object", "to_object", "read", "stream")),
    )


_READ = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))
_STREAM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


@contextmanager
def torch_on_device(stream: int) -> Iterator[list[torch.Tensor]]:
    """While it lasts, tensors put into the list say they are on device 0, and this is torch's current stream."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = torch.Tensor.__dlpack_c_exchange_api__  # type: ignore[attr-defined]
    api = _Exchange.from_address(pointer(capsule, b"dlpack_exchange_api"))
    before, there = (api.read, api.stream), []
    read_host = _READ(api.read)

    def read(tensor: Any, out: Any) -> int:
        status: int = read_host(tensor, out)
        if any(tensor is one for one in there):
            out.contents.device_type, out.contents.device_id = 2, 0
        return status

    def current(kind: int, device: int, out: Any) -> int:
        out[0] = stream
        return 0

    kept = _READ(read), _STREAM(current)
    api.read, api.stream = (ctypes.cast(function, ctypes.c_void_p).value for function in kept)
    try:
        yield there
    finally:
        api.read, api.stream = before
