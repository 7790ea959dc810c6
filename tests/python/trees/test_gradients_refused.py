"""What is not trained, and is not marked so: a gradient for it is never dropped in silence."""

import collections
import copy
import dataclasses
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape or (2,), np.float32)


class Box:
    """A class that is no container and holds no array."""


VALUES = {
    "float": (1.5, "a float"), "int": (3, "an int"), "bool": (True, "a bool"), "complex": (1j, "a complex"),
    "float64": (np.float64(1.5), "a scalar of float64"), "int32": (np.int32(3), "a scalar of int32"),
    "integers": (np.arange(2), "an array of int64"), "booleans": (np.ones(2, bool), "an array of bool"),
    "tensor of integers": (torch.arange(2), "a tensor of int64"), "str": ("relu", "a str"), "None": (None, "None"),
    "function": (len, "a function"), "object": (Box(), "a Box"),
}  # fmt: skip
EVERY_VALUE = pytest.mark.parametrize("value, what", VALUES.values(), ids=VALUES)


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass
class Layer:
    w: Any
    b: Any


AROUND = {
    "dict": (lambda w, b: {"w": w, "b": b}, "b"),
    "nested": (lambda w, b: {"w": w, "in": [{"b": b}]}, "in.0.b"),
    "list": (lambda w, b: [w, b], "1"),
    "tuple": (lambda w, b: (w, [b]), "1.0"),
    "named tuple": (Pair, "b"),
    "dataclass": (Layer, "b"),
    "subclass of dict": (lambda w, b: collections.OrderedDict(w=w, b={"c": (b,)}), "b.c.0"),
}


def first(node: Any) -> np.ndarray:
    return node["w"] if isinstance(node, dict) else node[0] if isinstance(node, (list, tuple)) else node.w


def refused(call, model, match):
    before = first(model).copy()
    with pytest.raises((ValueError, TypeError), match=match):
        call()
    assert np.array_equal(first(model), before)


# ------------------------------------------------------------------------------------- gradients that are refused


@EVERY_VALUE
@pytest.mark.parametrize("around, path", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("entry", [np.ones(2, np.float32), 0.5, np.float64(0.5)], ids=["array", "float", "scalar"])
def test_a_gradient_for_what_is_not_trained_is_refused_with_path_and_remedy(around, path, value, what, entry):
    model, gradient = around(ones(), value), around(ones(), entry)
    state = opt.setup(opt.Descent(1.0), model)
    match = f'"{path}" is {what}.*make it .*or mark it as not trained'
    calls = [lambda: opt.update_(state, model, gradient), lambda: opt.update(state, model, gradient)]
    calls.append(lambda: opt.update_(state, opt.Duplicated(model, gradient)))
    for call in calls:
        for _ in range(2):
            refused(call, model, match)


@EVERY_VALUE
def test_what_says_nothing_passes(value, what):
    model = {"w": ones(), "b": value}
    state = opt.setup(opt.Descent(0.5), model)
    float0 = np.zeros((), np.dtype([("float0", np.void, 0)]))
    for step, nothing in enumerate([None, ones(0), np.zeros((3, 0)), torch.zeros(0), float0, {}, [None, ()]]):
        opt.update_(state, model, {"w": ones(), "b": nothing})
        assert model["w"][0] == 1 - 0.5 * (step + 1) and model["b"] is value
    opt.update_(state, model, {"w": ones()})
    assert model["w"][0] == 1 - 0.5 * 8


def test_the_models_own_values_carried_along_by_a_copy_are_no_gradients():
    box, numbers = Box(), np.arange(3)
    model = {"w": ones(), "act": "relu", "n": 3, "f": len, "box": box, "numbers": numbers, "flag": True}
    state = opt.setup(opt.Descent(0.5), model)
    gradient = opt.map_trainables(lambda x: 2 * x, model)
    opt.update_(state, model, gradient)
    assert model["w"][0] == 0
    model["n"] = 4  # values of a model are its owner's
    opt.update_(state, model, {**gradient, "n": 4})
    assert model["w"][0] == -1
    for key, other in {"n": 5, "flag": False, "box": Box(), "numbers": numbers.copy(), "f": 1}.items():
        refused(lambda: opt.update_(state, model, {**gradient, key: other}), model, f'"{key}" is ')  # noqa: B023


def test_containers_without_anything_trained_are_looked_into():
    model = {"w": ones(), "none": {"a": [1.0, (2.0,)], "s": "text"}, "empty": {}, "floats": [1.0, 2.0]}
    state = opt.setup(opt.Descent(0.5), model)
    silent = {"w": ones(), "none": {"a": [None, ()], "s": "text"}, "empty": {}, "floats": (None, None)}
    opt.update_(state, model, silent)
    for entry, path in [
        ({"none": {"a": [None, (1.0,)]}}, "none.a.1.0"),
        ({"floats": [0.5, None]}, "floats.0"),
        ({"none": {"a": [None, None], "new": ones()}}, "none.new"),
        ({"empty": {"new": ones()}}, "empty.new"),
        ({"empty": ones()}, "empty"),
    ]:
        refused(lambda: opt.update_(state, model, {"w": ones(), **entry}), model, f'for "{path}"')  # noqa: B023


def test_parts_are_checked_like_the_whole():
    model = {"w": ones(), "enc": {"w": ones(), "b": 1.0}, "rest": {"n": 1.0}}
    state = opt.setup(opt.Descent(0.5), model)
    refused(lambda: opt.update_(state["enc"], model["enc"], {"w": ones(), "b": 1.0}), model, r'"enc\.b" is a float')
    refused(lambda: opt.update_(state["rest"], model["rest"], {"n": 1.0}), model, r'"rest\.n" is a float')
    opt.update_(state["enc"], model["enc"], {"w": ones()})
    assert model["enc"]["w"][0] == 0.5


def test_copies_and_pickles_of_states_refuse_as_well():
    model = {"w": ones(), "b": 1.0, "n": 3}
    state = opt.setup(opt.Descent(0.5), model)
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), opt.update(state, model, {"w": ones()})[0]):
        refused(lambda: opt.update_(other, model, {"w": ones(), "b": 1.0}), model, '"b" is a float')  # noqa: B023
        opt.update_(other, model, {"w": 0 * ones(), "n": 3})


def test_layouts_refuse_as_well():
    model = {"w": ones(), "b": 1.0, "n": 3, "s": "text"}
    flat, re = opt.destructure(model)
    state = opt.setup(opt.Descent(0.5), flat, layout=re)
    for restored in (state, pickle.loads(pickle.dumps(state))):
        with pytest.raises(ValueError, match='"b" is a float'):
            opt.update_(restored, flat, {"w": ones(), "b": 1.0})
    opt.update_(state, flat, {"w": ones(), "n": 3, "s": "other text"})
    assert flat.tolist() == [0.5, 0.5]


def test_gradients_of_higher_order_are_checked_as_well():
    class Second(opt.Rule):
        def init(self, x):
            return None

        def apply(self, state, x, dx, *higher):
            return state, dx

    model = {"w": ones(), "b": 1.0}
    state = opt.setup(Second(), model)
    refused(lambda: opt.update_(state, model, {"w": ones()}, {"w": ones(), "b": 1.0}), model, '"b" is a float')


@pytest.mark.parametrize("count", [3, 200])
def test_both_walks_refuse_at_any_step(count):
    """Plain trees of NumPy arrays are read by a walk of their own."""
    model = {f"w{i}": ones(1) for i in range(count)} | {"w": ones(1), "b": 1.0, "act": "relu", "none": ()}
    gradient = {key: ones(1) for key in model if key[0] == "w"} | {"b": None, "act": "relu", "none": ()}
    state = opt.setup(opt.Descent(0.5), model)
    for step in range(40):
        if step % 10 == 5:
            refused(lambda: opt.update_(state, model, {**gradient, "b": 1.0}), model, '"b" is a float')
            refused(lambda: opt.update_(state, model, {**gradient, "none": [ones()]}), model, r'"none\.0"')
        opt.update_(state, model, gradient)
    assert all(model[f"w{i}"][0] == -19 for i in range(count))


# ------------------------------------------------------------------------------------------- what is marked


@dataclasses.dataclass
class Marked:
    w: Any
    scale: Any = dataclasses.field(default=1.0, metadata={"trainable": False})


class Chosen(Layer):
    pass


opt.trainable.register(Chosen, lambda x: {"w": x.w})


@pytest.mark.parametrize("value", [1.0, np.arange(2), ones(), None, {"a": 1.0}])
def test_children_marked_as_not_trained_are_left_alone(value):
    for make, key in [(Marked, "scale"), (Chosen, "b")]:
        model = make(ones(), value)
        state = opt.setup(opt.Descent(0.5), model)
        opt.update_(state, model, {"w": ones(), key: ones()})
        assert model.w[0] == 0.5 and getattr(model, key) is value


def test_a_rule_of_none_and_frozen_leaves_take_gradients_without_a_word():
    model = {"w": ones(), "b": ones(), "c": ones()}
    state = opt.setup({"b": None, ...: opt.Descent(0.5)}, model)
    opt.freeze_(state["c"])
    opt.update_(state, model, {key: ones() for key in model})
    assert [x[0] for x in model.values()] == [0.5, 1, 1]
    opt.update_(pickle.loads(pickle.dumps(state)), model, {key: ones() for key in model})
    assert [x[0] for x in model.values()] == [0, 1, 1]
    opt.thaw_(state)
    opt.update_(state, model, {key: ones() for key in model})
    assert [x[0] for x in model.values()] == [-0.5, 1, 0.5]


def test_a_marker_with_the_rule_none_marks():
    still = opt.Marker("still")
    model = {"w": ones(), "b": still(ones())}
    state = opt.setup({still: None, ...: opt.Descent(0.5)}, model)
    opt.update_(state, model, {"w": ones(), "b": ones()})
    assert (model["w"][0], model["b"][0]) == (0.5, 1)


def test_buffers_take_gradients_without_a_word():
    net = torch.nn.BatchNorm1d(2)
    state = opt.setup(opt.Descent(0.5), net)
    entries = {"weight": torch.ones(2), "bias": None, "running_mean": torch.ones(2), "num_batches_tracked": None}
    opt.update_(state, net, entries)
    opt.update_(pickle.loads(pickle.dumps(state)), net, entries)
    assert net.weight.tolist() == [0, 0] and net.running_mean.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"'running_median', which the model lacks.*'weight', 'bias'"):
        opt.update_(state, net, {"running_median": None})


def test_parameters_that_require_no_gradient_take_entries_without_a_word():
    net = torch.nn.Linear(2, 1)
    net.weight.requires_grad_(False)
    net.weight.grad = torch.ones(1, 2)  # of the time before
    before = net.weight.clone()
    state = opt.setup(opt.Descent(0.5), net)
    net.bias.grad = torch.ones(1)
    opt.update_(state, net)
    opt.update_(state, net, {"weight": torch.ones(1, 2), "bias": torch.ones(1)})
    assert torch.equal(net.weight, before)


# ------------------------------------------------------------------------------------ walks with other trees


def test_walks_refuse_arrays_where_the_model_has_none_and_take_values_of_its_kind():
    model = {"w": ones(), "b": 1.0, "n": 3, "none": None, "d": {}}
    re = opt.destructure(model)[1]
    other = {"w": ones(), "b": 2.0, "n": 5, "none": None, "d": {"x": 1}}
    assert re.flatten(other).tolist() == [1, 1]
    calls = {
        "flatten": re.flatten,
        "map_trainables": lambda tree: opt.map_trainables(np.add, model, tree),
        "reduce_trainables": lambda tree: opt.reduce_trainables(lambda x, y: y.size, int.__add__, 0, model, tree),
        "lerp_": lambda tree: opt.lerp_(model, tree, 0.0),
    }
    for name, call in calls.items():
        call(other)
        for entry, path in [({"b": ones(1)}, "b"), ({"none": ones()}, "none"), ({"d": {"x": ones()}}, r"d\.x")]:
            with pytest.raises(ValueError, match=f'{name}: .*"{path}"'):
                call({**other, **entry})
    assert opt.select_trainables(model, {**other, "b": ones()})["b"] is None


# ------------------------------------------------------------------------------------- other libraries


def test_a_gradient_of_jax_for_a_number_is_refused():
    jax = pytest.importorskip("jax")
    model = {"w": jax.numpy.ones(2), "b": 1.0, "n": 3, "none": None}
    gradient = jax.grad(lambda m: (m["w"] * m["b"]).sum(), allow_int=True)(model)
    assert gradient["n"].dtype == jax.dtypes.float0
    state = opt.setup(opt.Descent(0.5), model)
    with pytest.raises(ValueError, match=r'"b" is a float: make it numpy.zeros'):
        opt.update(state, model, gradient)
    with pytest.raises(ValueError, match='"b" is a float'):
        opt.destructure(model)[1].flatten(gradient)
    _, new = opt.update(state, model, {**gradient, "b": None})
    assert new["w"].tolist() == [0.5, 0.5]


def test_static_fields_of_dataclasses_are_marked():
    jax = pytest.importorskip("jax")

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Net:
        w: Any
        depth: float = dataclasses.field(default=1.0, metadata={"static": True})

    model = Net(jax.numpy.ones(2), 2.0)
    gradient = jax.grad(lambda net: (net.w * net.depth).sum())(model)
    _, new = opt.update(opt.setup(opt.Descent(0.5), model), model, gradient)
    assert new.w.tolist() == [0, 0] and new.depth == 2.0


def test_complex_models_and_0d_arrays():
    model = {"z": np.ones(2, np.complex64), "s": np.array(1.0), "i": 1j}
    state = opt.setup(opt.Descent(0.5), model)
    opt.update_(state, model, {"z": np.full(2, 1j), "s": np.float64(1.0), "i": None})
    assert model["z"][0] == 1 - 0.5j and model["s"] == 0.5
    with pytest.raises(ValueError, match='"i" is a complex'):
        opt.update_(state, model, {"i": np.array(1.0)})


# ------------------------------------------------------------------------- parts in which nothing is trained


def test_a_part_that_got_none_for_a_rule_stays_alone_whatever_gradients_it_has():
    model = {"body": {"w": ones(), "in": [ones(), 3]}, "head": ones()}
    state = opt.setup({"body": None, "head": opt.Descent(0.5)}, model)
    for _ in range(2):
        opt.update_(state, model, {"body": {"w": ones(), "in": [ones(), None]}, "head": ones()})
    opt.update_(state, model, {"head": ones()})
    assert (model["body"]["w"][0], model["head"][0]) == (1, -0.5)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    before = net[0].weight.clone()
    state = opt.setup({"0": None, "1": None, "2": opt.Descent(0.5)}, net)
    net(torch.ones(3, 2)).sum().backward()
    opt.update_(state, net)
    opt.update_(state, net, {"0": {"weight": torch.ones(2, 2)}, "2": {"bias": torch.ones(1)}})
    assert torch.equal(net[0].weight, before)


def test_a_log_kept_in_the_model_may_grow():
    model = {"w": ones(), "losses": [], "seen": {}, "config": Layer(1.0, "text")}
    state = opt.setup(opt.Descent(0.5), model)
    for step in range(100):
        opt.update_(state, model, {"w": 0 * ones()})
        model["losses"].append(float(step))
        model["seen"][step] = np.arange(3)
        model["config"].w = step
    model["losses"].append(ones())
    with pytest.raises(
        ValueError, match=r'"losses\.100" is trained now, and nothing in "losses" was at setup; extend_'
    ):
        opt.update_(state, model, {"w": ones()})
