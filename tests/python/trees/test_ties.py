"""Ties: one array, or one container, at several places stays one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from support import bits, slots

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Tied:
    embedding: Any
    head: Any
    cached: Any = field(default=None, metadata={"trainable": False})


def matrix() -> np.ndarray:
    return np.arange(6.0).reshape(2, 3)


def cube() -> np.ndarray:
    return np.arange(24.0).reshape(2, 3, 4)


# Each: the array, its second place, and what brings a gradient of the second place to the first's axes.
VIEWS = {
    "same": (matrix, lambda w: w, lambda g: g),
    "same_memory": (matrix, lambda w: w[:], lambda g: g),
    "transposed": (matrix, lambda w: w.T, lambda g: g.T),
    "permuted": (cube, lambda w: w.transpose(1, 2, 0), lambda g: g.transpose(2, 0, 1)),
}
EVERY_VIEW = pytest.mark.parametrize("view", VIEWS)


@EVERY_VIEW
def test_tied_places_are_one_leaf_with_summed_gradients(view):
    make, at_second, back = VIEWS[view]
    w = make()
    model = {"a": w, "b": [at_second(w)]}
    state = opt.setup(opt.Momentum(0.5, 0.0), model)
    assert state["a"] is state["b"][0] and len(opt.trainables(model)) == 1
    g1, g2 = np.random.default_rng(1).normal(size=(2, w.size))
    g1, g2 = g1.reshape(w.shape), g2.reshape(model["b"][0].shape)
    opt.update_(state, model, {"a": g1, "b": [g2]})
    np.testing.assert_array_equal(w, make() - 0.5 * (g1 + back(g2)))
    assert state["a"].clock == state["b"][0].clock


@EVERY_VIEW
@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_missing_gradient_at_one_place_leaves_the_other(view, missing):
    make, at_second, _ = VIEWS[view]
    w = make()
    model = Pair(w, at_second(w))
    g = np.ones(model._asdict()[{"a": "b", "b": "a"}[missing]].shape)
    opt.update_(opt.setup(opt.Descent(1.0), model), model, Pair(**{missing: None, {"a": "b", "b": "a"}[missing]: g}))
    np.testing.assert_array_equal(w, make() - 1)


@EVERY_VIEW
def test_update_keeps_the_tie_in_the_new_model_and_leaves_the_old(view):
    make, at_second, _ = VIEWS[view]
    w = make()
    model = Tied(w, at_second(w))
    g = Tied(np.ones_like(w), np.ones_like(model.head))
    state, new = opt.update(opt.setup(opt.Descent(0.25), model), model, g)
    np.testing.assert_array_equal(w, make())
    assert np.shares_memory(new.embedding, new.head) and not np.shares_memory(new.embedding, w)
    np.testing.assert_array_equal(new.head, at_second(new.embedding))
    np.testing.assert_array_equal(new.embedding, make() - 0.5)
    opt.update_(state, new, g)  # the new pair fits the new state
    np.testing.assert_array_equal(new.head, at_second(make() - 1.0))


@EVERY_VIEW
def test_destructure_holds_a_tied_array_once_and_rebuilds_the_tie(view):
    make, at_second, _ = VIEWS[view]
    w = make()
    model = {"a": w, "b": at_second(w), "c": np.ones(1)}
    flat, re = opt.destructure(model)
    assert flat.shape == (w.size + 1,)
    new = re(flat)
    new["a"][0] = 7
    assert np.shares_memory(new["a"], new["b"]) and np.shares_memory(new["a"], flat)
    np.testing.assert_array_equal(new["b"], at_second(new["a"]))
    packed = re.flatten({"a": w, "b": model["b"]})
    np.testing.assert_array_equal(packed, [*(2 * w).ravel(), 0])


def test_tensors_are_tied_by_memory():
    w = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    model = {"a": w, "b": w, "c": w.detach().T}
    state = opt.setup(opt.Descent(1.0), model)
    assert len(opt.trainables(model)) == 1
    opt.update_(state, model, {"a": torch.ones(2, 3), "b": torch.ones(2, 3), "c": torch.ones(3, 2)})
    assert torch.equal(w.detach(), torch.arange(6.0).reshape(2, 3) - 3)
    _, new = opt.update(state, {"a": w, "b": w, "c": w.detach().T}, None)
    assert new["a"] is new["b"] and isinstance(new["a"], torch.nn.Parameter)
    assert new["c"].data_ptr() == new["a"].data_ptr() != w.data_ptr()


def test_containers_at_several_places_stay_one():
    layer = {"w": np.ones(2), "f": np.sin}
    stack = [np.ones(3)]
    model = {"a": layer, "b": [layer, stack], "c": Pair(stack, layer)}
    state = opt.setup(opt.Descent(1.0), model)
    _, new = opt.update(state, model, {"a": {"w": np.ones(2)}})
    assert new["a"] is new["b"][0] is new["c"].b and new["b"][1] is new["c"].a
    assert new["a"] is not layer and new["a"]["w"].tolist() == [0, 0] and layer["w"].tolist() == [1, 1]
    flat, re = opt.destructure(model)
    again = re(flat)
    assert flat.size == 5 and again["a"] is again["c"].b and again["a"]["f"] is np.sin


@pytest.mark.parametrize("order", [0, 1])
def test_what_is_trained_elsewhere_stays_one_at_places_that_are_not(order):
    shared = {"w": np.ones(2)}
    parts = {"user": Tied(np.ones(1), np.ones(1), cached=shared), "owner": [shared]}
    model = dict(sorted(parts.items(), reverse=bool(order)))
    model["array"] = Tied(np.zeros(1), None, cached=shared["w"])
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, None)
    assert new["user"].cached is new["owner"][0] is not shared
    assert new["array"].cached is new["owner"][0]["w"]


def test_a_child_that_refers_back_to_its_parent_without_training_it_is_kept_so():
    child = Tied(np.ones(1), None)
    parent = {"child": child}
    object.__setattr__(child, "cached", parent)
    _, new = opt.update(opt.setup(opt.Descent(1.0), parent), parent, None)
    assert new["child"].cached is new is not parent


@pytest.mark.parametrize(
    "second",
    [lambda w: w[1:], lambda w: w.reshape(3, 4), lambda w: w[::-1], lambda w: w.ravel(), lambda w: w[:, ::2]],
    ids=["part", "reshaped", "reversed", "ravelled", "strided"],
)
def test_arrays_that_share_only_some_elements_are_refused_with_both_paths(second):
    w = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"setup.*enc\.w.*dec\.0|setup.*dec\.0.*enc\.w"):
        opt.setup(opt.Adam(), {"enc": {"w": w}, "dec": [second(w)]})


def test_column_blocks_of_one_array_are_leaves_of_their_own():
    w = np.zeros((4, 6))
    model = [w[:, :3], w[:, 3:]]
    opt.update_(opt.setup(opt.Descent(1.0), model), model, [np.ones((4, 3)), 2 * np.ones((4, 3))])
    assert w[0].tolist() == [-1, -1, -1, -2, -2, -2]


def test_a_tie_that_came_undone_is_noticed():
    w = np.ones(2)
    model = {"a": w, "b": w}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match=r'"a" and "b".*setup'):
        opt.update_(state, {"a": w, "b": w.copy()}, None)


def tied():
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {"enc": w, "same": [w], "dec": w.T}


def test_tied_arrays_are_one_leaf():
    model = tied()
    state = opt.setup(opt.Momentum(0.5), model)
    assert state["enc"] is state["same"][0] is state["dec"]
    assert [str(p) for p, _ in opt.trainables(model, path=True)] == ["enc"]
    assert state["dec"].shape == (2, 3)


@pytest.mark.parametrize("missing", [(), ("enc",), ("same",), ("dec",), ("enc", "same"), ("enc", "dec")])
@pytest.mark.parametrize("pure", [False, True])
def test_gradients_of_tied_arrays_are_summed(pure, missing):
    model = tied()
    parts = {"enc": ones(2, 3), "same": 2 * ones(2, 3), "dec": np.arange(6, dtype=np.float32).reshape(3, 2)}
    total = sum(p if k != "dec" else p.T for k, p in parts.items() if k not in missing)
    want = model["enc"] - total
    grads = {k: [p] if k == "same" else p for k, p in parts.items() if k not in missing}
    _, new = (opt.update if pure else opt.update_)(opt.setup(opt.Descent(1.0), model), model, grads)
    assert np.array_equal(new["enc"], want)
    assert new["same"][0] is new["enc"] and np.array_equal(new["dec"], want.T)
    assert np.shares_memory(new["dec"], new["enc"]) and np.shares_memory(new["enc"], model["enc"]) != pure


def test_part_with_a_place_of_a_tied_leaf_can_be_updated_alone():
    model = {"enc": tied()["enc"], "rest": {"w": None}}
    model["rest"]["w"] = model["enc"].T
    state = opt.setup(opt.Descent(1.0), model)
    want = model["enc"] - np.arange(6).reshape(3, 2).T
    opt.update_(state["rest"], model["rest"], {"w": np.arange(6).reshape(3, 2)})
    assert np.array_equal(model["enc"], want)


def test_tie_that_no_longer_holds_is_refused_naming_both():
    model = tied()
    state = opt.setup(opt.Descent(1.0), model)
    for other in (model["dec"].copy(), model["dec"][:2], model["enc"]):
        model["dec"] = other
        for update in (opt.update_, opt.update):
            with pytest.raises(ValueError, match='"enc" and "dec"'):
                update(state, model, {})


def test_tie_of_a_square_array_with_its_axes_in_another_order_is_refused():
    w = np.arange(9.0).reshape(3, 3)
    state = opt.setup(opt.Descent(1.0), {"enc": w, "dec": w.T})
    for update in (opt.update_, opt.update):
        with pytest.raises(ValueError, match='"enc" and "dec" were one at setup, and are not now, or their axes'):
            update(state, {"enc": w, "dec": w}, {"dec": np.ones((3, 3))})
    assert w.tolist() == np.arange(9.0).reshape(3, 3).tolist()


def test_tied_gradient_of_wrong_shape_is_refused():
    model = tied()
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match="gradient"):
        opt.update_(state, model, {"dec": ones(2, 3), "enc": ones(2, 3)})


def test_tied_axes_of_three_dimensions():
    w = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    model = {"a": w, "b": w.transpose(2, 0, 1), "c": w.transpose(1, 2, 0)}
    state = opt.setup(opt.Descent(1.0), model)
    g = np.random.default_rng(0).random((2, 3, 4))
    want = w - 3 * g
    grads = {"a": g, "b": g.transpose(2, 0, 1), "c": np.ascontiguousarray(g.transpose(1, 2, 0))}
    _, new = opt.update(state, model, grads)
    assert np.allclose(new["a"], want, rtol=0, atol=1e-14)
    assert np.array_equal(new["b"], new["a"].transpose(2, 0, 1))
    assert np.array_equal(new["c"], new["a"].transpose(1, 2, 0))


def test_empty_arrays_are_never_tied():
    x = ones(0)
    assert len(opt.trainables([x, x])) == 2


@pytest.mark.parametrize("master", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gradients_of_tied_arrays_are_summed_in_the_type_that_is_computed_in(dtype, master):
    """1 + 1/512 is no bfloat16. There are enough elements for a kernel that reads bfloat16 by whole cache lines."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rule = opt.MixedPrecision(opt.Momentum(1.0)) if master else opt.Momentum(1.0)
    w, alone = np.zeros(100, kind), np.zeros(100, kind)
    state, lone = opt.setup(rule, {"a": w, "b": w}), opt.setup(rule, {"a": alone})
    one, small = np.ones(100, kind), np.full(100, 1 / 512, kind)
    for _ in range(2):
        opt.update_(state, {"a": w, "b": w}, {"a": one, "b": small})
        opt.update_(lone, {"a": alone}, {"a": np.full(100, 1 + 1 / 512, np.float32)})
    assert w.tobytes() == alone.tobytes()
    assert bits(slots(state["a"])) == bits(slots(lone["a"]))
