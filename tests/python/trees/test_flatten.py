"""re.flatten: gradients of a model packed into a vector, a new one or one that exists."""

import ml_dtypes
import numpy as np
import pytest
import torch
from vectors import KINDS, model_of, numbers

import optimisers as opt


@KINDS
def test_flatten_takes_none_as_zeros_and_ignores_what_is_not_trained(kind):
    model = model_of(kind)
    _, re = opt.destructure(model)
    g = re.flatten({"l1": {"w": 1 + 0 * model["l1"]["w"]}, "name": 3.0, "rest": None})
    assert numbers(g).tolist() == [1.0] * 12 + [0.0] * 12
    assert type(g) is type(re.flatten(model)) and g.dtype == model["l1"]["w"].dtype


def test_flatten_sums_gradients_of_tied_arrays():
    w = np.zeros((2, 3))
    _, re = opt.destructure({"enc": w, "b": np.zeros(2), "dec": w.T})
    g = np.arange(6.0)
    flat = re.flatten({"enc": g.reshape(2, 3), "dec": g.reshape(3, 2)})
    assert np.array_equal(flat, [*(g.reshape(2, 3) + g.reshape(3, 2).T).ravel(), 0, 0])


@pytest.mark.parametrize("first, second", [("float16", "float64"), ("float64", "float16"), ("int8", "float64")])
@pytest.mark.parametrize("size", [3, 1000])
def test_flatten_sums_tied_gradients_of_any_dtypes_in_the_vectors(size, first, second):
    w = np.zeros(size)
    _, re = opt.destructure([w, w])
    g = np.full(size, 3).astype(first), np.full(size, 0.1).astype(second)
    assert np.array_equal(re.flatten([g[0], g[1]]), g[0].astype(float) + g[1].astype(float))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("leaf", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_flatten_converts_as_numpy_does(leaf, dtype):
    def of(name):
        return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)

    _, re = opt.destructure(np.zeros(33, of(leaf)))
    g = (np.random.default_rng(0).random(33) * 100).astype(of(dtype))
    assert re.flatten(g).tobytes() == g.astype(of(leaf)).tobytes()


@pytest.mark.parametrize(
    "tree, error, part",
    [
        ({"l1": {"w": np.zeros((4, 3))}}, ValueError, r"l1\.w.*\(4, 3\).*\(3, 4\)"),
        ({"l1": {"w": np.zeros((3, 4), complex)}}, ValueError, r"l1\.w.*complex128"),
        ({"l1": {"w": "text"}}, (TypeError, ValueError), r"l1\.w"),
        ({"l1": {"v": None}}, ValueError, "'v'"),
        ({"rest": [None]}, ValueError, "rest"),
    ],
)
def test_flatten_refuses_what_does_not_fit(tree, error, part):
    _, re = opt.destructure(model_of("numpy"))
    with pytest.raises(error, match=part):
        re.flatten(tree)


@KINDS
def test_flatten_writes_into_a_given_vector(kind):
    model = model_of(kind)
    flat, re = opt.destructure(model)
    out = flat * 0 - 1
    version = getattr(out, "_version", 0)
    assert re.flatten(model, out=out) is out
    assert np.array_equal(numbers(out), numbers(flat))
    assert kind == "numpy" or out._version > version
    part = {"l1": {"b": model["l1"]["b"]}}
    assert np.array_equal(numbers(re.flatten(part, out=out)), numbers(re.flatten(part)))


def test_flatten_adds_tied_gradients_in_a_given_vector():
    w = np.ones(3)
    _, re = opt.destructure([w, w])
    out = np.full(3, 7.0)
    assert re.flatten([w, 2 * w], out=out) is out and (out == 3).all()


@pytest.mark.parametrize(
    "out, error, part",
    [
        (np.zeros(23), ValueError, r"out.*\(23,\).*\(24,\)"),
        (np.zeros((24, 1)), ValueError, r"out.*\(24, 1\)"),
        (np.zeros(24, np.float32), TypeError, "out has dtype float32.*float64"),
        (np.zeros(48)[::2], ValueError, "out has gaps"),
        (np.broadcast_to(0.0, 24), ValueError, "out is read-only"),
        (torch.zeros(24, dtype=torch.float64), TypeError, "out must be.*Tensor"),
        ([0.0] * 24, TypeError, "out must be.*list"),
    ],
)
def test_flatten_refuses_an_out_that_does_not_fit(out, error, part):
    model = model_of("numpy")
    _, re = opt.destructure(model)
    before = np.asarray(out).copy()
    with pytest.raises(error, match=part):
        re.flatten(model, out=out)
    assert np.array_equal(np.asarray(out), before)


def test_flatten_refuses_an_out_that_shares_an_element_with_the_tree():
    memory = np.arange(40.0)
    _, re = opt.destructure([np.zeros(4), np.zeros(4)])
    for tree in ([memory[2:6], None], [None, memory[7:15:2]], [memory[:4], memory[4:8]], [memory[:8][::-2], None]):
        with pytest.raises(ValueError, match=r'"out" and "[01]"|out has the memory of the array at "[01]"'):
            re.flatten(tree, out=memory[:8])
        assert np.array_equal(memory, np.arange(40.0))
    around = memory[:36].reshape(3, 12)
    out = around[1, 2:10]
    assert np.array_equal(re.flatten([around[::2, 3][[0, 1, 0, 1]], around[::2, :2].ravel()], out=out), out)
    _, one = opt.destructure(np.zeros((2, 4)))
    assert np.array_equal(one.flatten(around[::2, 4:8], out=out), around[::2, 4:8].ravel())


def test_flatten_refuses_an_out_where_a_graph_is_kept():
    w = torch.ones(3, requires_grad=True)
    _, re = opt.destructure([torch.ones(3)])
    with pytest.raises(ValueError, match="out"):
        re.flatten([w], out=torch.empty(3))
    with pytest.raises(ValueError, match="out requires grad"):
        re.flatten([w.detach()], out=w)
