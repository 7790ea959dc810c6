"""What passes for an array and is none the library trains: refused in a model, read exactly as a gradient."""

import ctypes
import mmap
import types
from array import array
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.sparse

import optimisers as opt

torch = pytest.importorskip("torch")


class Speaks:
    """As pandas, xarray and tensorflow do: NumPy can read it, and it has a dtype."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    @property
    def dtype(self) -> Any:
        return self._values.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values


class SpeaksWithoutDtype:
    def __init__(self, values: Any) -> None:
        self._made = lambda: np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._made()


class OfAnotherLibrary:
    """On the host, with DLPack."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._values.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


class Silent(Speaks):
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("cannot be shown")


class LosesUnits(Speaks):
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        import warnings

        warnings.warn("the unit is stripped", UserWarning, stacklevel=2)
        return self._values


class Masked(Speaks):
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ma.masked_array(self._values, [True, False])


class Record(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("n", ctypes.c_int))


def with_interface(values: Any) -> Any:
    kept = np.asarray(values)
    return types.SimpleNamespace(__array_interface__=kept.__array_interface__, kept=kept.tolist())


def read_only(values: Any) -> memoryview:
    return memoryview(np.asarray(values)).toreadonly()


READ = {
    "__array__": Speaks,
    "__array__ without dtype": SpeaksWithoutDtype,
    "DLPack": OfAnotherLibrary,
    "memoryview": lambda x: memoryview(np.asarray(x)),
    "read-only memoryview": read_only,
}
ARRAYS = {
    **READ,
    "__array_interface__": with_interface,
    "array.array": lambda x: array("d" if np.asarray(x).dtype.kind == "f" else "q", list(x)),
    "ctypes": lambda x: ((ctypes.c_double if np.asarray(x).dtype.kind == "f" else ctypes.c_int64) * 2)(*x),
    "structured": lambda x: np.array([tuple(x)], [("a", np.asarray(x).dtype), ("b", np.asarray(x).dtype)]),
    "structured in structured": lambda x: np.zeros(2, [("n", "i4"), ("in", [("a", np.asarray(x).dtype)])]),
    "sparse": lambda x: scipy.sparse.csr_array(np.diag(x)),
    "sparse matrix": lambda x: scipy.sparse.coo_matrix(np.diag(x)),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_floats_of_another_kind_are_refused_with_the_path(make):
    for model, path in (({"a": [make([1.0, 2.0])], "w": np.ones(2)}, r"a\.0"), ({"only": make([1.0, 2.0])}, "only")):
        with pytest.raises((TypeError, ValueError), match=f'setup: model at "{path}" .*pass '):
            opt.setup(opt.Adam(), model)
        for call in (opt.destructure, opt.trainables, opt.norm, lambda m: opt.lerp_(m, m, 0.5), opt.Marker("m")):
            with pytest.raises((TypeError, ValueError), match=f'model at "{path}"'):
                call(model)
    with pytest.raises((TypeError, ValueError), match="pass "):
        opt.setup(opt.Adam(), make([1.0, 2.0]))


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "DLPack"])
def test_integers_of_another_kind_pass_through(name):
    model = {"a": [ARRAYS[name]([1, 2])], "w": np.ones(2)}
    state = opt.setup(opt.Descent(1.0), model)
    _, new = opt.update(state, model, {"w": np.ones(2)})
    assert new["a"][0] is model["a"][0] and new["w"].sum() == 0


def test_what_cannot_be_told_is_refused():
    for odd in (Silent([1.0]), Speaks(np.array([1.0, "a"], object)), SpeaksWithoutDtype([None]), Record(1.0, 2)):
        with pytest.raises(TypeError, match=f'"a" .*{type(odd).__name__}'):
            opt.setup(opt.Adam(), {"a": odd})


def test_what_is_no_array_passes_through():
    odds = [
        b"ab",
        bytearray(b"ab"),
        np.float64(1),
        np.int8(1),
        np.datetime64(1, "s"),
        np.array(["a"]),
        np.zeros(1, "V4"),
    ]
    odds += [np.array([1], "M8[s]"), np.array([1], "m8[s]"), np.dtype("f8"), torch.float32, torch.Generator(), range(2)]
    odds += [np.random.default_rng(), mock.Mock(), mock.MagicMock(), partial(print, np.ones(2)), lambda: 1, np, int]
    with mmap.mmap(-1, 8) as pages:
        model = {"w": np.ones(2), "odd": [*odds, pages]}
        assert len(opt.trainables(model)) == 1
        opt.setup(opt.Adam(), model)


# --------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("make", READ.values(), ids=READ)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_gradients_that_numpy_reads_are_taken(make, dtype):
    model = {"a": [np.ones(2)]}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"a": [make(np.array([1, 3], dtype))]})
    assert model["a"][0].tolist() == [0, -2]
    opt.lerp_(model, {"a": [make(np.array([1, 3], dtype))]}, 1.0)
    assert model["a"][0].tolist() == [1, 3]
    _, re = opt.destructure(model)
    assert re.flatten({"a": [make(np.array([1, 3], dtype))]}).tolist() == [1, 3]
    with pytest.raises(ValueError, match=r'"a\.0" has shape \(3,\)'):
        opt.update_(state, model, {"a": [make(np.ones(3, dtype))]})


def test_strides_and_buffers_are_read_as_they_are():
    model = np.zeros((2, 2))
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, memoryview(np.array([[1.0, 2], [3, 4]]).T))
    assert model.tolist() == [[-1, -3], [-2, -4]]
    x = np.zeros(2)
    opt.update_(opt.setup(opt.Descent(1.0), x), x, array("f", [1, 2]))
    assert x.tolist() == [-1, -2]


@pytest.mark.parametrize(
    "gradient",
    [
        Silent([1.0, 1.0]),
        LosesUnits([1.0, 1.0]),
        Speaks([1.0, None]),
        Speaks(["a", "b"]),
        b"ab",
        types.SimpleNamespace(),
        scipy.sparse.csr_array(np.eye(2)),
        Record(),
        "ab",
        Masked([1.0, 1.0]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_gradients_that_numpy_would_have_to_guess_are_refused(gradient):
    model = {"b": np.ones(2), "a": [np.ones(2)]}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises((TypeError, ValueError), match=r'gradient at "a\.0"'):
        opt.update_(state, model, {"b": np.ones(2), "a": [gradient]})
    assert model["b"].sum() == 2


# ------------------------------------------------------------------------------------------------ plain objects


class Plain:
    def __init__(self, w: Any) -> None:
        self.w = w


class Slots:
    __slots__ = ("__weakref__", "unset", "w")

    def __init__(self, w: Any) -> None:
        self.w = w


class SlotsBelow(Slots):
    pass


@dataclass
class Data:
    w: Any


@pytest.mark.parametrize("make", [Plain, Slots, SlotsBelow, lambda w: types.SimpleNamespace(w=w)])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("held", [np.ones(2), torch.ones(2), Speaks([1.0])], ids=["numpy", "torch", "other"])
def test_a_plain_object_that_holds_arrays_is_refused(make, depth, held):
    part = held
    for _ in range(depth):
        part = make({"in": [Data(part)]})
    part = make(part)
    place = ".".join(["w", *["w.in.0.w"] * depth])
    with pytest.raises(TypeError, match=rf'"a\.0" is a \w+, .* at "{place}"; .*register_container'):
        opt.setup(opt.Adam(), {"a": [part], "x": np.ones(2)})


def test_a_plain_object_without_trainable_arrays_passes_through():
    loop = Plain(None)
    loop.w = loop
    for odd in (
        Plain(3),
        Plain(np.arange(2)),
        Slots("text"),
        loop,
        Plain({"n": [1.5]}),
        types.SimpleNamespace(f=print),
    ):
        assert len(opt.trainables({"w": np.ones(1), "odd": odd})) == 1


def test_a_plain_object_may_be_said_to_be_nothing_or_a_container():
    class Scaler(Plain):
        pass

    class Layer(Plain):
        pass

    model = {"scaler": Scaler(np.ones(3)), "layer": Layer(np.ones(2))}
    with pytest.raises(TypeError, match=r"trainable\.register\(Scaler, lambda x: \{\}\)"):
        opt.setup(opt.Adam(), model)
    opt.trainable.register(Scaler, lambda x: {})
    opt.register_container(Layer, lambda x: {"w": x.w}, lambda x, c: Layer(**c))
    assert [p for p, _ in opt.trainables(model, path=True)] == [("layer", "w")]


def test_lists_and_dicts_of_modules_and_parameters_are_containers():
    nn = torch.nn
    model = {
        "params": nn.ParameterList([nn.Parameter(torch.ones(2))]),
        "by_name": nn.ParameterDict({"w": nn.Parameter(torch.ones(3))}),
        "modules": [nn.Linear(1, 2, bias=False), nn.Linear(1, 1)],
    }
    state = opt.setup(opt.Descent(1.0), model)
    assert len(opt.trainables(model)) == 5 and state["by_name"].w.shape == (3,) and state["params"][0].shape == (2,)
    sum(p.sum() for p in opt.trainables(model)).backward()
    opt.update_(state, model)
    assert model["params"][0].sum() == 0 and model["by_name"]["w"].sum() == 0
