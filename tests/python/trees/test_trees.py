"""Models of every kind of container, and gradient trees that match them by key."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


class Pair(NamedTuple):
    w: Any
    b: Any


class Triple(NamedTuple):
    w: Any
    b: Any
    c: Any


@dataclass
class Layer:
    w: Any
    b: Any
    name: str = "layer"
    scale: Any = field(default=None, metadata={"trainable": False})


@dataclass(frozen=True)
class Frozen:
    w: Any
    b: Any
    built: list = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.built.append("post_init")


@dataclass(frozen=True, slots=True)
class Slotted:
    w: Any
    b: Any


class Record(OrderedDict):
    pass


@dataclass
class Bare:
    w: Any
    b: Any


@dataclass(frozen=True)
class FrozenBare:
    w: Any
    b: Any


CONTAINERS = {
    "dict": lambda w, b: {"w": w, "b": b},
    "OrderedDict": lambda w, b: OrderedDict(w=w, b=b),
    "defaultdict": lambda w, b: defaultdict(list, w=w, b=b),
    "dict subclass": lambda w, b: Record(w=w, b=b),
    "list": lambda w, b: [w, b],
    "tuple": lambda w, b: (w, b),
    "named tuple": Pair,
    "dataclass": Bare,
    "frozen dataclass": FrozenBare,
    "slotted dataclass": Slotted,
}
NAMED = [name for name in CONTAINERS if name not in ("list", "tuple")]
EVERY_CONTAINER = pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)


def arrays_of(node: Any) -> tuple[Any, Any]:
    if isinstance(node, (list, tuple)):
        return node[0], node[1]
    return (node["w"], node["b"]) if isinstance(node, dict) else (node.w, node.b)


# ------------------------------------------------------------------------------------------- containers


@EVERY_CONTAINER
@pytest.mark.parametrize("pure", [False, True])
def test_update_reaches_the_arrays_of_every_container(make, pure):
    model = {"first": make(ones(2, 3), ones(3)), "rest": [make(ones(4), ones(5)), 3, "text", None]}
    state = opt.setup(opt.Descent(1.0), model)
    grads = {"first": make(ones(2, 3), ones(3)), "rest": [make(2 * ones(4), ones(5)), None, None, None]}
    new_state, new = (opt.update if pure else opt.update_)(state, model, grads)
    assert [a.sum() for a in arrays_of(new["first"])] == [0, 0]
    assert [a.sum() for a in arrays_of(new["rest"][0])] == [-4, 0]
    assert type(new["first"]) is type(model["first"]) and new["rest"][1:] == [3, "text", None]
    assert (new is model, new_state is state) == (not pure, not pure)
    if pure:
        assert [a.sum() for a in arrays_of(model["first"])] == [6, 3]


def test_copies_of_containers_keep_what_they_are():
    model = {
        "default": defaultdict(list, w=ones(2)),
        "ordered": OrderedDict(b=ones(1), a=ones(2)),
        "frozen": Frozen(ones(2), ones(1)),
        "extra": Layer(ones(1), 3, "name", ones(4)),
    }
    model["ordered"].move_to_end("b")
    model["extra"].note = "kept"
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, None)
    assert new["default"].default_factory is list and list(new["ordered"]) == ["a", "b"]
    assert new["frozen"].built is model["frozen"].built and len(new["frozen"].built) == 1
    assert new["extra"].scale is model["extra"].scale and new["extra"].note == "kept"
    assert new["extra"].w is not model["extra"].w


def test_fields_marked_untrainable_are_left_alone():
    model = Layer(ones(2), ones(3), "name", ones(4))
    state = opt.setup(opt.Descent(1.0), model)
    assert state.scale is None and [len(x) for x in opt.trainables(model)] == [2, 3]
    opt.update_(state, model, {"w": ones(2), "scale": ones(4)})
    assert model.scale.sum() == 4 and model.w.sum() == 0


@pytest.mark.parametrize("given", NAMED)
@pytest.mark.parametrize("kept", NAMED)
def test_containers_with_names_stand_for_one_another_in_gradients(kept, given):
    model = CONTAINERS[kept](ones(2), ones(3))
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, CONTAINERS[given](ones(2), None if given != "defaultdict" else ones(3)))
    assert arrays_of(model)[0].sum() == 0


@pytest.mark.parametrize("kept, given", [(list, tuple), (tuple, list)])
def test_list_and_tuple_stand_for_one_another_in_gradients(kept, given):
    model = kept([ones(2), ones(3)])
    opt.update_(opt.setup(opt.Descent(1.0), model), model, given([ones(2), None]))
    assert model[0].sum() == 0 and model[1].sum() == 3


@pytest.mark.parametrize(
    "model, grads",
    [
        ({"a": [ones(2)]}, {"a": {"0": ones(2)}}),
        ({"a": {"w": ones(2)}}, {"a": [ones(2)]}),
        ({"a": Pair(ones(2), ones(2))}, {"a": (ones(2), ones(2))}),
        ({"a": (ones(2), ones(2))}, {"a": Pair(ones(2), ones(2))}),
        ({"a": Pair(ones(2), ones(2))}, {"a": Triple(ones(2), None, None)}),
        ({"a": [ones(2)]}, {"a": ones(1, 2)}),
        ({"a": ones(2)}, {"a": {"w": ones(2)}}),
        ({"a": ones(2)}, {"a": [ones(2)]}),
        ({"a": {"w": ones(2)}}, {"a": {"w": None, 0: None}}),
        ({"a": [ones(2)]}, {"a": []}),
        ({"a": [ones(2)]}, {"a": 7}),
    ],
)
def test_gradients_of_another_structure_are_refused_with_the_path(model, grads):
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match='"a"'):
        opt.update_(state, model, grads)


def test_keys_need_not_be_strings_nor_in_order():
    model = {("a", 1): ones(2), 7: ones(3), "x": ones(1)}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"x": ones(1), 7: ones(3), ("a", 1): ones(2)})
    assert [a.sum() for a in model.values()] == [0, 0, 0]
    assert state[7].shape == (3,) and state["a", 1].path == (("a", 1),)


def test_scalars_of_numpy_are_gradients_of_0d_arrays():
    model = {"x": np.array(1.0)}
    opt.update_(opt.setup(opt.Descent(1.0), model), model, {"x": np.float64(1.0)})
    assert model["x"] == 0


@pytest.mark.parametrize("grad", [1.0, "text", object(), [1.0, 1.0]])
def test_something_else_as_gradient_is_refused_with_the_path(grad):
    model = {"a": {"x": ones(2)}}
    with pytest.raises((TypeError, ValueError), match=r"a\.x"):
        opt.update_(opt.setup(opt.Descent(1.0), model), model, {"a": {"x": grad}})


def test_array_of_an_unknown_library_is_refused_as_leaf_and_gradient():
    class Foreign:
        def __dlpack__(self) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match=r"layer\.w.*Foreign"):
        opt.setup(opt.Adam(), {"layer": {"w": Foreign()}})
    model = {"w": ones(2)}
    with pytest.raises(TypeError, match=r"w.*Foreign"):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": Foreign()})


def test_keys_that_are_equal_but_other_objects():
    names = [f"weight_{i}" for i in range(5)]
    model = {name: ones(2) for name in names}
    state = opt.setup(opt.Descent(1.0), model)
    order = np.random.default_rng(0)
    for step in range(200):  # new objects in each step, where those of steps before have been
        fresh = ["".join(list(name)) for name in names]
        opt.update_(state, model, {fresh[i]: np.full(2, i + step % 2) for i in order.permutation(5)})
    assert [model[name][0] for name in names] == [1 - 200 * i - 100 for i in range(5)]
    with pytest.raises(ValueError, match="weight_9"):
        opt.update_(state, model, {"".join(["weight_", "9"]): ones(2)})


@pytest.mark.parametrize("other", ["x", "é", "ы", "𝛽"])
def test_keys_that_differ_in_one_character_are_told_apart(other):
    for length in range(1, 20):
        for i in range(length):
            key, twin = (f"{'k' * i}{middle}{'k' * (length - i - 1)}" for middle in ("k", other))
            model = {key: ones(1), twin: ones(1)}
            state = opt.setup(opt.Descent(1.0), model)
            opt.update_(state, model, {"".join(list(twin)): 2 * ones(1), "".join(list(key)): ones(1)})
            assert (model[key], model[twin]) == (0, -1)
