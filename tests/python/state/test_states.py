"""State trees and leaves: how they are reached, what they show, copies and pickles."""

import copy
import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from user_rules import MyMomentum

import optimisers as opt
from optimisers import _saved


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclass
class Layer:
    w: Any
    b: Any


def model_of_many_kinds():
    return {"enc": Layer(ones(2, 3), ones(3)), "layers": [Pair(ones(2), 1), (ones(1), None)], "n": 3}


def test_state_tree_has_the_shape_of_the_model():
    state = opt.setup(opt.Adam(), model_of_many_kinds())
    assert list(state) == ["enc", "layers", "n"] and len(state["layers"]) == 2
    assert state.enc.w is state["enc"]["w"] and state["layers"][0].w is state["layers"][0][0]
    assert state["layers"][-1][0].path == ("layers", 1, 0) and state["n"] is None
    assert [len(part) for part in state["layers"]] == [2, 2]
    assert "enc" in state and "dec" not in state and str(state.enc.w.path) == "enc.w"
    for wrong in (lambda: state["dec"], lambda: state["layers"][2], lambda: state.enc.missing):
        with pytest.raises((KeyError, IndexError, AttributeError)):
            wrong()


def test_a_key_that_cannot_be_compared_says_so_itself():
    class Broken:
        def __eq__(self, other):
            raise ZeroDivisionError("no")

        __hash__ = None

    state = opt.setup(opt.Adam(), model_of_many_kinds())
    for look_up in (lambda key: state[key], lambda key: key in state):
        with pytest.raises(ZeroDivisionError, match="no"):
            look_up(Broken())


def test_leaf_says_what_it_is():
    model = {"w": torch.ones(2, 3, dtype=torch.bfloat16), "z": np.ones(2, np.complex64)}
    chain = opt.OptimiserChain(opt.ClipGrad(), opt.OptimiserChain(opt.Adam()))
    state = opt.setup(opt.MixedPrecision(chain), model)
    leaf = state["w"]
    assert (leaf.shape, leaf.dtype, leaf.frozen) == ((2, 3), torch.bfloat16, False)
    assert leaf.rule == opt.MixedPrecision(chain) and state["z"].dtype == np.complex64
    master, (clip, (adam,)) = leaf.state
    assert master.dtype == adam.m.dtype == torch.float32 and clip == () and adam._fields == ("m", "v")
    assert state["z"].state[0] is None and state["z"].state[1][1][0].v.dtype == np.float32
    assert dict(leaf.clock[1][0]) == {"beta1_t": 1.0, "beta2_t": 1.0, "t": 0.0} and leaf.clock[1][0].beta1_t == 1.0
    assert repr(leaf).startswith('Leaf("w", (2, 3), bfloat16, MixedPrecision(')


def test_slots_are_writable_views():
    x = ones(3)
    leaf = opt.setup(opt.Momentum(1.0, 0.5), x)
    leaf.state.v[...] = 2
    opt.update_(leaf, x, 0 * ones(3))
    assert np.array_equal(x, [0, 0, 0]) and np.array_equal(leaf.state[0], [1, 1, 1])


def test_print_shows_path_shape_dtype_size_rule_and_frozen():
    state = opt.setup({"w": opt.Adam(), ...: opt.Descent()}, {"w": np.ones((100, 3), np.float32), "b": [np.ones(3)]})
    opt.freeze_(state["b"])
    assert repr(state).splitlines() == [
        "StateTree with 2 leaves, 2.344 KiB of state",
        "  w    (100, 3)  float32  2.344 KiB  Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)",
        "  b.0  (3,)      float64  0 B        Descent(eta=0.1)  frozen",
    ]
    assert repr(state["b"][0]) == 'Leaf("b.0", (3,), float64, Descent(eta=0.1), frozen)'
    long = repr(opt.setup(opt.Adam(), [ones(1) for _ in range(1000)]))
    assert len(long.splitlines()) == 22 and "... 980 more ..." in long and long.splitlines()[-1].startswith("  999")


def test_long_trees_print_abridged():
    state = opt.setup(opt.Descent(), {f"p{i}": ones(i + 1) for i in range(100)})
    opt.freeze_(state["p99"])
    text = str(state)
    assert "100 leaves" in text and "p0 " in text and "frozen" in text.splitlines()[-1]
    assert "80 more" in text and len(text.splitlines()) == 22


def test_copies_of_a_part_bring_the_whole_along():
    model = {"a": [ones(2)], "b": ones(3)}
    state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), opt.Adam(0.5)), model)
    opt.freeze_(state["b"])
    opt.adjust_(state["a"], 0.25)
    opt.update_(state, model, {"a": [ones(2)]})
    for twin in (copy.deepcopy(state["a"]), pickle.loads(pickle.dumps(state["a"]))):
        assert str(twin[0].path) == "a.0" and twin[0].rule == state["a"][0].rule
        assert np.array_equal(twin[0].state[0].a, state["a"][0].state[0].a)
        assert twin[0].clock == state["a"][0].clock and not np.shares_memory(
            twin[0].state[0].a, state["a"][0].state[0].a
        )
    a, b = pickle.loads(pickle.dumps((state["a"], state["b"])))
    assert a._core is b._core and b.frozen


def test_duplicated_copies_and_pickles_with_its_ties():
    w, g = np.ones(2), np.array([1.0, 2.0])
    pair = opt.Duplicated({"a": w, "b": w}, {"a": g, "b": g})
    assert repr(pair) == f"Duplicated({pair.model!r}, {pair.grads!r})"
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        opt.update_(opt.setup(opt.Descent(1.0), other), other)
        assert other.model["a"] is other.model["b"] and other.model["a"].tolist() == [0, -1]
    assert w.tolist() == [1, 1]


def test_pickled_layout_continues():
    flat, re = opt.destructure({"a": ones(2), "b": [ones(2, 2)]})
    state = opt.setup(opt.Momentum(), flat, layout=re)
    twin, twin_flat = pickle.loads(pickle.dumps(state)), flat.copy()
    opt.update_(state, flat, np.arange(6.0))
    opt.update_(twin, twin_flat, np.arange(6.0))
    assert np.array_equal(flat, twin_flat) and np.array_equal(twin["b"][0].state.v, state["b"][0].state.v)


def test_pickled_layout_with_segments_that_no_rule_trains_continues_where_they_are():
    flat, re = opt.destructure({"a": ones(2), "b": [ones(2, 2)], "c": ones(3)})
    state = opt.setup({"a": None, "b": opt.Momentum(), "c": opt.Adam()}, flat, layout=re)
    twin, twin_flat = pickle.loads(pickle.dumps(state)), flat.copy()
    for s, x in ((state, flat), (twin, twin_flat)):
        opt.update_(s, x, np.arange(9.0))
    assert np.array_equal(flat, twin_flat) and np.array_equal(flat[:2], ones(2)) and (flat[3:] != 1).all()


def test_copied_and_pickled_states_share_no_state_of_rules_in_python():
    model = {"a": ones(3)}
    state = opt.setup(MyMomentum(), model)
    opt.update_(state, model, {"a": ones(3)})
    twins = copy.deepcopy(state), pickle.loads(pickle.dumps(state)), opt.adjust(state, 0.5), opt.freeze(state)
    for twin in twins:
        assert twin["a"].state["steps"] == [1]
    state["a"].state["steps"][0] = 9
    state["a"].state["v"][...] = 9
    for twin in twins:
        assert twin["a"].state["steps"] == [1] and (twin["a"].state["v"] != 9).all()


@pytest.mark.parametrize("layout", [False, True], ids=["tree", "layout"])
def test_pickle_with_an_unknown_dtype_is_refused(layout):
    """As a later version might write it: the dtype of a leaf, or of the vector."""
    flat, re = opt.destructure({"a": ones(2)})
    state = opt.setup(opt.Momentum(), flat, layout=re) if layout else opt.setup(opt.Momentum(), {"a": ones(2)})
    spec, ([(_, *kind)], *leaves), rules, segments, *rest = _saved.plain_data(state._core)
    if layout:
        segments = ("float3q", *segments[1:])
    else:
        leaves = [[("float3q", *kind)], *leaves]
    data = spec, leaves if not layout else ([("float32", *kind)], *leaves), rules, segments, *rest
    with pytest.raises(ValueError, match='"float3q" is no dtype'):
        _saved.restored(_saved.FORMAT, _saved.checksum(data), *data)
