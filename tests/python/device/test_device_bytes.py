"""Arrays on (emulated) devices that are moved and zeroed, whatever their dtype: bytes are bytes."""

import numpy as np
import pytest
from device_arrays import CudaArray, emulation, needs_emulation

import optimisers as opt

pytestmark = needs_emulation
DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32",
          "float64", "complex64", "complex128")  # fmt: skip
VIEWS = {
    "whole": lambda a: a,
    "transposed": lambda a: a.T,
    "every second": lambda a: a[::2],
    "from an odd place": lambda a: a.reshape(-1)[1:],
    "reversed": lambda a: a[::-1],
}


def bytes_of(dtype: str) -> np.ndarray:
    """Numbers of any bits: NaNs of every kind, integers that no double holds."""
    a = np.random.default_rng(1).integers(0, 256, 40 * 14 * np.dtype(dtype).itemsize, np.uint8)
    return (a[: 40 * 14] % 2 == 1 if dtype == "bool" else a.view(dtype)).reshape(40, 14)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_on_devices_have_the_bytes(dtype, view):
    here = VIEWS[view](bytes_of(dtype))
    there = opt.to_device({"a": CudaArray(here)}, "cuda:0")["a"]
    for copy in (there, there.copy(), opt.to_device(there, "cuda:1")):
        back = np.asarray(opt.to_device(copy, "cpu"))
        assert back.dtype == here.dtype and back.shape == here.shape
        assert back.tobytes() == here.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "int32", "int64", "bool", "complex128"])
@pytest.mark.parametrize("size", [1, 15, 4099])
def test_gradients_are_zeroed_and_nothing_beside_them(dtype, size):
    """Also those of another dtype than the parameter."""
    memory = np.ones(size + 40, dtype)
    model = {"w": CudaArray(np.ones(size, "complex128" if dtype == "complex128" else "float32"))}
    state = opt.setup(opt.Descent(0.5), model)
    pair = opt.Duplicated(model, {"w": CudaArray(memory[20 : size + 20])})
    opt.update_(state, pair, zero_grad=True)
    emulation("finish")
    assert not memory[20 : size + 20].any()
    assert (memory[:20] == 1).all() and (memory[size + 20 :] == 1).all()
    assert (model["w"].host == 0.5).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_lerp_has_the_bits_of_the_host_at_any_place(dtype):
    rng = np.random.default_rng(2)
    here, source = (rng.standard_normal(5000).astype(dtype) for _ in range(2))
    there = here.copy()
    for cut in (slice(None), slice(1, None), slice(None, None, 3)):
        opt.lerp_({"a": here[cut]}, {"a": source[cut]}, 0.3)
        opt.lerp_({"a": CudaArray(there[cut])}, {"a": CudaArray(source[cut])}, 0.3)
        emulation("finish")
        assert here.tobytes() == there.tobytes()
