"""Walks over trained arrays with companion trees, norm, lerp_, and paths."""

from __future__ import annotations

import copy
import operator
import pickle
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import optimisers as opt
from optimisers import KeyPath

# ------------------------------------------------------------------------------------------- map, reduce, select


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclass(frozen=True)
class Layer:
    w: Any
    b: Any
    scale: Any = field(default=None, metadata={"trainable": False})


def model() -> dict[str, Any]:
    return {"enc": Layer(np.ones((2, 2)), None, np.ones(3)), "dec": [np.arange(3.0), "relu", np.arange(3)]}


def test_map_replaces_what_is_trained_and_shares_the_rest():
    m = model()
    new = opt.map_trainables(lambda x: x * 2, m)
    assert type(new["enc"]) is Layer and new["enc"].w.tolist() == [[2, 2], [2, 2]]
    assert new["enc"].scale is m["enc"].scale and new["dec"][2] is m["dec"][2]
    assert m["enc"].w.tolist() == [[1, 1], [1, 1]] and new["dec"][0].tolist() == [0, 2, 4]


def test_map_calls_f_with_companions_and_skips_where_one_has_nothing():
    m = model()
    grads = {"enc": {"w": "g", "scale": "ignored"}, "dec": None}
    seen = []
    new = opt.map_trainables(lambda x, g, h: seen.append((x, g, h)), m, grads, {"enc": {"w": "h"}})
    assert len(seen) == 1 and seen[0][0] is m["enc"].w and seen[0][1:] == ("g", "h")
    assert new["enc"].w is None and new["dec"][0] is m["dec"][0]


def test_map_visits_ties_once_with_summed_gradients():
    w = np.arange(6.0).reshape(2, 3)
    m = {"a": w, "b": w.T}
    grads = {"a": np.ones((2, 3)), "b": np.arange(6.0).reshape(3, 2)}
    calls = []
    new = opt.map_trainables(lambda x, dx: calls.append(1) or x - dx, m, grads)
    assert calls == [1] and np.shares_memory(new["a"], new["b"])
    np.testing.assert_array_equal(new["a"], w - 1 - grads["b"].T)
    first = opt.map_trainables(lambda x, y: y, m, m, tied="first")
    assert first["a"] is w
    with pytest.raises(ValueError, match="tied"):
        opt.map_trainables(lambda x, y: y, m, m, tied="last")
    with pytest.raises(TypeError, match='tied="first"'):
        opt.map_trainables(lambda x, y: y, m, {"a": None.__class__, "b": object()})


def test_map_reaches_the_leaves_of_a_state():
    m = model()
    state = opt.setup(opt.Adam(), m)
    paths = opt.map_trainables(lambda x, leaf: str(leaf.path), m, state)
    assert (paths["enc"].w, paths["dec"][0]) == ("enc.w", "dec.0")
    with pytest.raises(ValueError, match="another model"):
        opt.map_trainables(lambda x, leaf: x, {"other": np.ones(1)}, state)


def test_reduce_goes_in_walk_order():
    m = model()
    grads = opt.map_trainables(lambda x: x + 1, m)
    assert opt.reduce_trainables(lambda x, g: [g - x], operator.add, [], m, grads)[1].tolist() == [1, 1, 1]
    assert opt.reduce_trainables(lambda x: x.size, operator.add, 0, m) == 7
    assert opt.reduce_trainables(lambda x, g: 1, operator.add, 0, m, None) == 0


def test_select_puts_none_where_the_model_is_not_trained():
    m = model()
    g = {"enc": {"w": "gw", "b": "gb", "scale": "gs"}, "dec": ("g0", "g1", "g2")}
    assert opt.select_trainables(m, g) == {"enc": {"w": "gw", "b": None, "scale": None}, "dec": ("g0", None, None)}
    assert g["dec"] == ("g0", "g1", "g2")
    assert opt.select_trainables(m, {"enc": Layer(1, 2, 3)}) == {"enc": Layer(1, None, None)}
    assert opt.select_trainables({"b": np.ones(1), "w": 1}, Pair(w=1, b=2)) == Pair(w=None, b=2)
    assert opt.select_trainables(m, None) is None
    assert opt.select_trainables(np.ones(2), "g") == "g"


WALKS = {
    "map_trainables": lambda m, t: opt.map_trainables(lambda x, y: x, m, t),
    "reduce_trainables": lambda m, t: opt.reduce_trainables(lambda x, y: 0, operator.add, 0, m, t),
    "select_trainables": opt.select_trainables,
    "lerp_": lambda m, t: opt.lerp_(m, t, 0.5),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("tree", [{"a": [1, 2]}, {"a": [1], "c": 2}, {"a": {"w": 1}}, [1]])
def test_a_tree_of_another_structure_is_refused(walk, tree):
    with pytest.raises(ValueError, match=rf"{walk}: (tree|source) at "):
        WALKS[walk]({"a": [np.ones(2)], "b": np.ones(1)}, tree)


def nested(depth: int) -> Any:
    tree: Any = np.ones(2)
    for i in range(depth):
        tree = {"a": tree} if i % 2 else [tree]
    return tree


def test_walks_go_ten_thousand_levels_deep():
    deep, other = nested(10_000), nested(10_000)
    assert opt.norm(opt.map_trainables(lambda x, y: x + y, deep, other), 1) == 4
    assert opt.reduce_trainables(np.sum, operator.add, 0.0, deep) == 2
    opt.lerp_(deep, opt.select_trainables(other, nested(10_000)), 1.0)
    ((path, array),) = opt.trainables(deep, path=True)
    assert len(path) == 10_000 and opt.getkeypath(deep, path) is array and opt.haskeypath(deep, path)
    assert opt.setkeypath_(deep, path, 3.0) is deep and opt.getkeypath(deep, path) == 3.0


# ------------------------------------------------------------------------------------------------------- norm


@pytest.mark.parametrize("p", [1, 2, 3.5, float("inf"), float("-inf")])
def test_norm_is_that_of_the_flat_vector(p):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(30, 40))
    tree = {"a": w, "b": [w.T, rng.normal(size=7), torch.tensor(2.5), "x", np.arange(5)], "c": Layer(None, None, w + 9)}
    expected = np.linalg.norm(np.concatenate([w.ravel(), tree["b"][1], [2.5]]), p)
    assert opt.norm(tree, p) == pytest.approx(expected, rel=1e-12)


def test_norm_of_odd_arrays():
    assert opt.norm(None) == opt.norm({}) == opt.norm(np.ones(0)) == 0
    assert opt.norm([np.broadcast_to(2.0, 4), np.ones((2, 0))]) == 4
    assert opt.norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert opt.norm(np.array([3 + 4j, 0], np.complex64)) == 5
    assert opt.norm(np.array([60000.0] * 4, np.float16)) == 120000
    assert np.isnan(opt.norm([np.ones(2), np.array([np.nan])]))
    for p in (0, float("nan")):
        with pytest.raises(ValueError, match="p must be"):
            opt.norm(np.ones(2), p)


# ------------------------------------------------------------------------------------------------------- lerp_


@pytest.mark.parametrize("w", [0.0, 0.25, 1.0])
def test_lerp_moves_the_target(w):
    target, source = model(), opt.map_trainables(lambda x: x + 4, model())
    before = copy.deepcopy(target)
    assert opt.lerp_(target, source, w) is target
    np.testing.assert_allclose(target["dec"][0], before["dec"][0] + 4 * w)
    assert target["enc"].scale.tolist() == [1, 1, 1] and source["dec"][0].tolist() == [4, 5, 6]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_lerp_takes_arrays_of_any_strides(dtype):
    grid = np.arange(2400).reshape(40, 60).astype(dtype)
    views = {
        "steps": grid[::2, ::3],
        "turned": grid[:20, :20].T,
        "back": grid[::-1],
        "thin": np.broadcast_to(grid[1], (9, 60)),
    }
    for name, source in views.items():
        for target in (np.ones(source.shape, dtype), np.ones(source.shape, dtype, order="F")):
            opt.lerp_(target, source, 0.5)
            assert np.array_equal(target, (1 + source) / 2), name


def test_lerp_writes_ties_once_and_wants_them_tied_in_the_source():
    a, b = np.zeros((2, 3)), np.ones((2, 3))
    target = {"x": a, "y": a.T}
    opt.lerp_(target, {"x": b, "y": b.T}, 0.5)
    assert np.unique(a).tolist() == [0.5]
    with pytest.raises(ValueError, match='"y" and "x" are one array in the target'):
        opt.lerp_(target, {"x": b, "y": b.T.copy()}, 0.5)
    square, c = np.zeros((3, 3)), np.arange(9.0).reshape(3, 3)
    with pytest.raises(ValueError, match='"y" and "x" are one array in the target'):
        opt.lerp_({"x": square, "y": square}, {"x": c, "y": c.T}, 0.5)


def test_lerp_that_moves_nothing_is_a_warning_and_dicts_of_parameters_move():
    target, source = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    target.requires_grad_(False)
    before = copy.deepcopy(target)
    with pytest.warns(UserWarning, match="lerp_: the target has no trained array"):
        opt.lerp_(target, source, 1.0)
    assert torch.equal(target.weight, before.weight)
    opt.lerp_(dict(target.named_parameters()), dict(source.named_parameters()), 1.0)
    assert torch.equal(target.weight, source.weight) and torch.equal(target.bias, source.bias)


def test_lerp_bumps_the_versions_of_tensors_and_takes_other_dtypes():
    w = torch.zeros(3, requires_grad=True)
    loss = (w * w).sum()
    version = w._version
    opt.lerp_([w], [np.array([1, 2, 3])], 0.5)
    assert w.tolist() == [0.5, 1.0, 1.5] and w._version > version
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(3), ValueError, r"lerp_: source at \"b\" has shape"),
        (None, ValueError, r"lerp_: source has nothing at \"b\""),
        (1.0, TypeError, r"lerp_: source at \"b\" is a float"),
        (np.ones(2, np.complex64), ValueError, r"lerp_: source at \"b\" is complex"),
    ],
)
def test_a_failed_lerp_changes_nothing(bad, error, message):
    target = {"a": np.zeros(2), "b": np.zeros(2)}
    with pytest.raises(error, match=message):
        opt.lerp_(target, {"a": np.ones(2), "b": bad}, 0.5)
    assert target["a"].tolist() == [0, 0]


def test_lerp_refuses_read_only_targets_and_weights_out_of_range():
    target = {"a": np.zeros(2), "b": np.zeros(2)}
    target["b"].setflags(write=False)
    with pytest.raises(ValueError, match=r"\"b\" is read-only.*; pass a writable copy"):
        opt.lerp_(target, {"a": np.ones(2), "b": np.ones(2)}, 0.5)
    for w in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="w must be"):
            opt.lerp_(target, target, w)
    assert target["a"].tolist() == [0, 0]


def test_norm_and_lerp_release_the_interpreter():
    x = np.ones(4_000_000, np.float32)
    stop, ticks = threading.Event(), [0]

    def count() -> None:
        while not stop.is_set():
            ticks[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(5):
        opt.norm(x)
        opt.lerp_(x, x.copy(), 0.5)
    stop.set()
    thread.join()
    assert ticks[0] > 0 and opt.norm(x) == 2000


# ------------------------------------------------------------------------------------------------------- paths


def test_keypaths_concatenate_slice_print_and_pickle():
    path = KeyPath("layers", 0, "weight")
    assert KeyPath(KeyPath("layers", 0), "weight") == path == KeyPath("layers") + KeyPath(0, "weight")
    assert str(path) == "layers.0.weight" and repr(path) == "KeyPath('layers', 0, 'weight')"
    assert type(path[1:]) is KeyPath and path[1:] == (0, "weight") and path[-1] == "weight"
    assert pickle.loads(pickle.dumps(path)) == path and type(copy.deepcopy(path)) is KeyPath
    assert {path: 1}[KeyPath("layers", 0, "weight")] == 1 and len(KeyPath((1, 2))) == 1


def test_paths_of_trainables_lead_to_them():
    m = model()
    for path, array in opt.trainables(m, path=True):
        assert opt.getkeypath(m, path) is array and opt.haskeypath(m, path)
        assert opt.getkeypath(opt.setup(opt.Adam(), m), path).path == path


def test_paths_reach_everything_else_too():
    m = {"p": Pair(1, [2, 3]), ("t", 1): Layer(4, 5)}
    assert opt.getkeypath(m, KeyPath("p", "b", -1)) == 3 and opt.getkeypath(m, KeyPath("p", 0)) == 1
    assert opt.getkeypath(m, KeyPath(("t", 1), "b")) == 5 and opt.getkeypath(m, KeyPath()) is m
    assert not opt.haskeypath(m, KeyPath("p", "c")) and not opt.haskeypath(m, KeyPath("p", "b", 2))
    with pytest.raises(ValueError, match=r"no 'c' at \"p\", which is a Pair; its keys are 'w', 'b'"):
        opt.getkeypath(m, KeyPath("p", "c"))
    with pytest.raises(TypeError, match="KeyPath"):
        opt.getkeypath(m, "p.b")


def test_setkeypath_sets_and_refuses_what_is_immutable():
    @dataclass
    class Open:
        w: Any

    m = {"a": [1, 2], "o": Open(1), "p": Pair(1, 2), "f": Layer(1, 2)}
    assert opt.setkeypath_(m, KeyPath("a", 1), 5) is m
    opt.setkeypath_(m, KeyPath("o", "w"), 6)
    opt.setkeypath_(m, KeyPath("new"), 7)
    assert (m["a"], m["o"].w, m["new"]) == ([1, 5], 6, 7)
    for path in (KeyPath("p", "w"), KeyPath("f", "w"), KeyPath("a", 9), KeyPath("q", "w"), KeyPath()):
        with pytest.raises(ValueError, match="setkeypath_"):
            opt.setkeypath_(m, path, 0)
