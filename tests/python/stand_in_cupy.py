"""What this package uses of CuPy, over host memory: for the emulated devices of the tests, where there is no CuPy."""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any

import numpy as np
from device_arrays import DLPackArray, emulation, lend, tensor_of

current = types.SimpleNamespace(device=0, ptr=0)
asked: list[int] = []  # for which streams arrays were to be ready


class ndarray:  # noqa: N801  CuPy's own name
    """CuPy's array: NumPy's methods, with results that stay on the device."""

    def __init__(self, host: np.ndarray, device: int = 0) -> None:
        self.memory, self.device_id = lend(host), device

    @property
    def host(self) -> np.ndarray:
        emulation("finish")
        return self.memory

    shape = property(lambda self: self.memory.shape)
    dtype = property(lambda self: self.memory.dtype)
    real = property(lambda self: ndarray(self.memory.real, self.device_id))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device_id

    def __dlpack__(self, **keywords: Any) -> Any:
        lender = DLPackArray(np.empty(0), self.device_id)
        lender.tensor = self.memory
        keywords.pop("max_version")
        asked.append(keywords["stream"])
        return lender.__dlpack__(**keywords)

    def get(self) -> np.ndarray:
        return self.host.copy()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self.memory[key], self.device_id)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[key] = value


def _method(name: str) -> Any:
    def call(self: ndarray, *args: Any, **keywords: Any) -> ndarray:
        plain = [a.host if isinstance(a, ndarray) else a for a in args]
        return ndarray(np.asarray(getattr(self.host, name)(*plain, **keywords)), self.device_id)

    return call


for _name in ("copy", "astype", "reshape", "transpose", "__add__", "__mul__", "__truediv__", "__eq__"):
    setattr(ndarray, _name, _method(_name))


class Device:
    def __init__(self, device: int) -> None:
        self.device, self.before = device, 0

    def __enter__(self) -> None:
        self.before, current.device = current.device, self.device

    def __exit__(self, *_: Any) -> None:
        current.device = self.before


def array(x: Any, order: str = "K") -> ndarray:
    return ndarray(np.array(x.host if isinstance(x, ndarray) else x, order=order), current.device)


def empty(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.full(shape, 77, dtype), current.device)


def where(condition: ndarray, a: ndarray, b: ndarray) -> ndarray:
    return ndarray(np.where(condition.host, a.host, b.host), a.device_id)


def from_dlpack(x: Any) -> ndarray:
    capsule = x.__dlpack__(stream=current.ptr or 1)
    tensor = tensor_of(capsule)
    shape = tensor.shape[: tensor.ndim]
    size = int(np.prod(shape, dtype=np.int64)) * tensor.bits // 8
    memory = (ctypes.c_char * size).from_address(tensor.data)
    memory.capsule = capsule  # keeps it
    return ndarray(np.frombuffer(memory, x.dtype).reshape(shape), tensor.device_id)


cuda = types.SimpleNamespace(Device=Device, get_current_stream=lambda device: current)
module = sys.modules[__name__]
