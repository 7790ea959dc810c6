"""Trees of JAX arrays lie in JAX's order; vectors of one model are packed by key, whatever the order of the keys."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import bits

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; the order of its trees is not tested")
jax_flatten_util = pytest.importorskip("jax.flatten_util")
jnp = jax.numpy


class Pair(NamedTuple):
    z: Any
    a: Any


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    weight: Any
    bias: Any


def unsorted(array: Any) -> Any:
    """Keys that sort otherwise than they stand in every container, upper case and integers too."""
    count = iter(range(100))

    def next_one() -> Any:
        return array(np.full(2, next(count), np.float32))

    return {
        "w": next_one(),
        "b": {"z": [next_one(), {"k": next_one(), "B": next_one()}], "a": next_one()},
        "Z": {10: next_one(), 9: next_one(), 2: next_one()},
        "layer": Layer(next_one(), next_one()),
        "pair": Pair(next_one(), {"y": next_one(), "x": next_one()}),
        "kept": OrderedDict(q=next_one(), p=next_one()),
    }


def through_jit(tree: Any) -> Any:
    return jax.jit(lambda t: t)(tree)


def test_a_tree_of_jax_arrays_lies_as_jax_lays_it_out() -> None:
    model = unsorted(jnp.asarray)
    flat, re = opt.destructure(model)
    want = jax_flatten_util.ravel_pytree(model)[0]
    assert bits(np.asarray(flat)) == bits(np.asarray(want))
    assert [p.tolist() for p in opt.trainables(model)] == [p.tolist() for p in jax.tree.leaves(model)]
    assert bits(np.asarray(re.flatten(model))) == bits(np.asarray(want))
    assert list(re(flat)["b"]["z"][1]) == ["k", "B"]


def test_a_round_trip_through_jit_leaves_every_walk_in_its_order() -> None:
    model = unsorted(jnp.asarray)
    back = through_jit(model)
    assert list(back) != list(model)
    flat, re = opt.destructure(model)
    assert bits(np.asarray(opt.destructure(back)[0])) == bits(np.asarray(flat))
    for x, y in zip(opt.trainables(model), opt.trainables(back), strict=True):
        assert x.tolist() == y.tolist()
    again = re(opt.destructure(back)[0])
    assert opt.norm(opt.map_trainables(lambda a, b: a - b, model, again)) == 0
    state = opt.setup(opt.Descent(1.0), model)
    _, new = opt.update(state, model, back)
    assert opt.norm(new) == 0
    assert not jax.tree.leaves(opt.update(opt.setup(opt.Descent(1.0), back), back, model)[1])[3].any()


def test_a_tree_of_numpy_arrays_stays_in_insertion_order() -> None:
    model = unsorted(np.array)
    assert [x[0] for x in opt.trainables(model)] == list(range(15))
    mixed = {"b": np.ones(1, np.float32), "a": jnp.zeros(1)}
    assert [str(path) for path, _ in opt.trainables(mixed, path=True)] == ["a", "b"]


def test_keys_without_an_order_stay_as_they_are() -> None:
    model = {"b": jnp.ones(1), 1: jnp.zeros(1)}
    assert [path for path, _ in opt.trainables(model, path=True)] == [("b",), (1,)]


@pytest.mark.parametrize("array", [np.array, jnp.asarray])
def test_like_packs_by_key(array: Any) -> None:
    model = unsorted(array)
    flat, re = opt.destructure(model)
    for other in (through_jit(model), unsorted(np.array), unsorted(jnp.asarray)):
        vector, same = opt.destructure(other, like=re)
        assert same is re and bits(np.asarray(vector)) == bits(np.asarray(flat))
        assert bits(np.asarray(re.flatten(other))) == bits(np.asarray(flat))
    traced = jax.jit(lambda m: opt.destructure(m, like=re)[0])(model)
    assert bits(np.asarray(traced)) == bits(np.asarray(flat))


def test_like_packs_torch_by_key() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed; like= of its tensors is not tested")
    flat, re = opt.destructure({"b": torch.ones(2), "a": torch.zeros(1)})
    other = {"a": torch.zeros(1, requires_grad=True), "b": torch.ones(2)}
    vector, _ = opt.destructure(other, like=re)
    assert vector.tolist() == flat.tolist() == [1, 1, 0] and vector.requires_grad
    with pytest.raises(TypeError, match='the array at "a" must be a torch tensor'):
        opt.destructure({"a": np.zeros(1), "b": torch.ones(2)}, like=re)


@pytest.mark.parametrize("array", [np.array, jnp.asarray])
def test_like_takes_tied_arrays_once_and_refuses_other_values(array: Any) -> None:
    w = array(np.arange(4.0, dtype=np.float32))
    flat, re = opt.destructure({"b": w, "a": w, "c": array(np.ones(1, np.float32))})
    apart = {"a": array(np.array(w)), "b": array(np.array(w)), "c": array(np.ones(1, np.float32))}
    assert bits(np.asarray(opt.destructure(apart, like=re)[0])) == bits(np.asarray(flat))
    apart["a"] = apart["a"] + 1
    with pytest.raises(ValueError, match=r'"(a|b)" is one with another array in the model of like='):
        opt.destructure(apart, like=re)


def test_like_refuses_what_is_not_its_model() -> None:
    _, re = opt.destructure({"b": np.ones(2), "a": np.ones(1)})
    with pytest.raises(ValueError, match='the model lacks an array at "a"'):
        opt.destructure({"b": np.ones(2)}, like=re)
    with pytest.raises(ValueError, match='the model has an array at "c"'):
        opt.destructure({"b": np.ones(2), "a": np.ones(1), "c": np.ones(1)}, like=re)
    with pytest.raises(ValueError, match=r'array at "b" has shape \(1,\)'):
        opt.destructure({"b": np.ones(1), "a": np.ones(1)}, like=re)
    with pytest.raises(ValueError, match='"a" is complex128'):
        opt.destructure({"b": np.ones(2), "a": np.ones(1, complex)}, like=re)
    with pytest.raises(TypeError, match="like must be what destructure returned"):
        opt.destructure({"b": np.ones(2)}, like=lambda v: v)  # type: ignore[arg-type]


def test_complex_gradients_of_real_leaves_are_refused_by_flatten() -> None:
    _, re = opt.destructure({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match='"a" is complex64, the model\'s is real'):
        re.flatten({"a": jnp.ones(2, "complex64")})


def test_vectors_of_before_keep_their_layout() -> None:
    model = {"b": jnp.ones(2), "a": jnp.zeros(1)}
    flat, re = opt.destructure(model)
    assert flat.tolist() == [0, 1, 1]
    cls, arguments = re.__reduce__()
    before = cls(arguments[0])  # what a pickle of then calls
    old = jnp.asarray([1.0, 1.0, 0.0])
    assert before.flatten(model).tolist() == old.tolist() and before(old)["a"].tolist() == [0]
    for again in (copy.deepcopy(before), pickle.loads(pickle.dumps(before))):
        assert again(old)["b"].tolist() == [1, 1]
    for again in (copy.deepcopy(re), pickle.loads(pickle.dumps(re))):
        assert again(flat)["b"].tolist() == [1, 1] and again.flatten(model).tolist() == flat.tolist()


def test_states_of_before_keep_their_order_and_their_meaning() -> None:
    insertion = {"b": np.ones(2, np.float32), "a": np.zeros(1, np.float32)}  # NumPy's order is what JAX's was
    state = opt.setup(opt.Momentum(1.0, 0.5), insertion)
    opt.update_(state, insertion, {"a": np.ones(1), "b": np.full(2, 2.0)})
    state = pickle.loads(pickle.dumps(state))
    model = {k: jnp.asarray(v) for k, v in insertion.items()}
    state, model = opt.update(state, through_jit(model), {"a": jnp.ones(1), "b": jnp.full(2, 2.0)})
    assert model["a"].tolist() == [-2.5] and model["b"].tolist() == [-4.0, -4.0]


def test_re_is_one_split_and_its_gradient_one_concatenation() -> None:
    model = {f"w{i}": jnp.ones((2, 3)) for i in range(20)}
    flat, re = opt.destructure(model)

    def loss(vector: Any) -> Any:
        return sum((x**2).sum() for x in jax.tree.leaves(re(vector)))

    text = str(jax.make_jaxpr(jax.grad(loss))(flat))
    assert text.count(" split[") == 1 and text.count(" concatenate[") == 1
    assert not any(f" {name}[" in text for name in ("slice", "dynamic_slice", "pad"))
    assert not any(name in text for name in ("dynamic_slice", " pad"))


def test_re_of_a_tensor_is_one_split() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed; its graphs are not tested")
    _, re = opt.destructure({f"w{i}": torch.ones(2, 3) for i in range(20)})
    vector = torch.ones(120, requires_grad=True)
    leaves = opt.trainables(re(vector))
    (before,) = {leaf.grad_fn.next_functions[0][0] for leaf in leaves}
    assert "Split" in before.name()
    sum((x**2).sum() for x in leaves).backward()
    assert vector.grad.tolist() == [2.0] * 120
