"""Arrays of libraries that allow more axes than we do are refused wherever they come in."""

import ctypes
from typing import Any

import numpy as np
import pytest
from device_arrays import CudaArray, DLPackArray, Tensor

import optimisers as opt

MOST = 64


class Exchange(ctypes.Structure):
    """DLPackExchangeAPI, as far as it is used."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 3),
        ("tensor_from_object", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))),
        ("current_stream", ctypes.c_void_p),
    )


def borrow(array: Any, out: Any) -> int:
    axes = ctypes.c_int64 * array.ndim
    array.kept = axes(*array.shape), axes(*[1] * array.ndim)
    lent = out.contents
    lent.data, lent.byte_offset = array.values.ctypes.data, 0
    lent.device_type, lent.device_id = 1, 0
    lent.code, lent.bits, lent.lanes, lent.ndim = 2, 32, 1, array.ndim
    lent.shape, lent.strides = array.kept
    return 0


EXCHANGE = Exchange(major=1, minor=3, tensor_from_object=Exchange._fields_[4][1](borrow))
NAME = b"dlpack_exchange_api"  # the capsule keeps the pointer
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Lent:
    """One number on the host, of a library with the exchange interface of DLPack, under any number of axes."""

    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(EXCHANGE), NAME, None)

    def __init__(self, ndim: int) -> None:
        self.values, self.ndim, self.shape = np.ones(1, np.float32), ndim, (1,) * ndim


def tensor(ndim: int) -> Any:
    return pytest.importorskip("torch", reason="torch is not installed").ones([1] * ndim)


def on_device(ndim: int) -> Any:
    array = DLPackArray(np.ones(1, np.float32))
    array.tensor = array.tensor.reshape([1] * ndim)
    return array


class Reshaped(CudaArray):
    @property
    def shape(self) -> tuple[int, ...]:
        return self.fields["shape"]


def interface(ndim: int) -> Any:
    return Reshaped(np.ones(1, np.float32), shape=(1,) * ndim)


REFUSED = f'"deep" has {MOST + 1} axes, expected at most {MOST}; reshape it'
HOST = pytest.mark.parametrize("made", [Lent, tensor])


@HOST
def test_the_most_axes_work(made):
    model = {"deep": made(MOST), "b": np.zeros(2)}
    assert opt.norm(model) == 1
    state = opt.setup(opt.Descent(0.5), model)
    opt.update_(state, model, {"deep": made(MOST)})
    assert opt.norm(model) == 0.5


@HOST
def test_more_axes_are_refused_by_path(made):
    deep, model = {"deep": made(MOST + 1)}, {"deep": np.ones(1, np.float32)}
    state = opt.setup(opt.Descent(0.5), model)
    for call in (
        lambda: opt.setup(opt.Descent(0.5), deep),
        lambda: opt.destructure(deep),
        lambda: opt.update_(state, model, deep),
        lambda: opt.update_(state, deep, model),
        lambda: opt.destructure(model)[1].flatten(deep),
        lambda: opt.norm(deep),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            call()
    assert model["deep"] == 1


@pytest.mark.parametrize("made", [on_device, interface])
def test_more_axes_on_a_device_are_refused_by_path(made):
    if made is on_device:
        tensor(1)
    with pytest.raises(ValueError, match=REFUSED):
        opt.setup(opt.Descent(0.5), {"deep": made(MOST + 1)})
