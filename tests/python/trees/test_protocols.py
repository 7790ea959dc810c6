"""Containers by what they follow or where they are registered: Mapping, Sequence, attrs, pydantic, JAX's pytrees."""

import copy
import pickle
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np
import pytest
from containers import EVERY, NAMED, PLACED, Frozen, Node, OpenModel, Row, at, ones

import optimisers as opt


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_every_container_is_walked_updated_and_rebuilt(make, pure):
    @dataclass
    class Outer:
        part: Any
        rest: Any = None

    inner = make(ones(2, 3), [ones(3), "text"])
    model = (1, Outer(inner, {"again": make(ones(4), None)}))
    state = opt.setup(opt.Momentum(1.0), model)
    paths = [path for path, _ in opt.trainables(model, path=True)]
    assert sorted(opt.getkeypath(state, path).shape for path in paths) == [(2, 3), (3,), (4,)]
    grads = [None, {"part": make(ones(2, 3), [2 * ones(3), None]), "rest": {"again": make(ones(4), None)}}]
    _, new = (opt.update if pure else opt.update_)(state, model, grads)
    part, again = new[1].part, new[1].rest["again"]
    assert [x.sum() for x in (at(part, "w"), at(part, "b")[0], at(again, "w"))] == [0, -3, 0]
    assert type(part) is type(inner) and at(part, "b")[1] == "text" and at(again, "b") is None
    assert (part is inner) == (not pure)
    if pure:
        assert [x.sum() for x in (at(inner, "w"), at(inner, "b")[0])] == [6, 3]
        assert not np.shares_memory(at(part, "w"), at(inner, "w"))


@pytest.mark.parametrize("given", NAMED)
@pytest.mark.parametrize("kept", NAMED)
def test_all_with_names_stand_for_one_another_in_gradients(kept, given):
    model = NAMED[kept](ones(2), ones(3))
    opt.update_(opt.setup(opt.Descent(1.0), model), model, NAMED[given](ones(2), None))
    assert at(model, "w").sum() == 0 and at(model, "b").sum() == 3
    assert opt.lerp_(model, NAMED[given](ones(2), ones(3)), 1.0) is model and at(model, "w").sum() == 2


@pytest.mark.parametrize("given", PLACED)
@pytest.mark.parametrize("kept", PLACED)
def test_all_with_places_stand_for_one_another_in_gradients(kept, given):
    model = PLACED[kept](ones(2), ones(3))
    opt.update_(opt.setup(opt.Descent(1.0), model), model, PLACED[given](ones(2), None))
    assert at(model, "w").sum() == 0 and at(model, "b").sum() == 3


@pytest.mark.parametrize("make, other", [("UserDict", "UserList"), ("deque", "State"), ("equinox", "Sequence")])
def test_names_and_places_do_not_stand_for_one_another(make, other):
    model = {"a": EVERY[make](ones(2), ones(3))}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match=f'gradient at "a" is a {type(EVERY[other](1, 2)).__name__}'):
        opt.update_(state, model, {"a": EVERY[other](ones(2), ones(3))})


def test_names_and_lengths_that_differ_are_refused():
    model = {"a": UserDict(w=ones(2)), "b": deque([ones(1)])}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match="'v', which the model lacks"):
        opt.update_(state, model, {"a": Frozen({"v": ones(2)})})
    with pytest.raises(ValueError, match='"b" has length 2, the model there has 1'):
        opt.update_(state, model, {"b": UserList([ones(1), None])})
    with pytest.raises(ValueError, match='"b" has length 0, had 1'):
        opt.update_(state, {"a": UserDict(w=ones(2)), "b": deque()}, {})
    with pytest.raises(ValueError, match="\"a\" has lost its key 'w'"):
        opt.update_(state, {"a": UserDict(v=ones(2)), "b": deque([ones(1)])}, {})
    with pytest.raises(ValueError, match='"a" is a dict with 1 keys, was a Mapping'):
        opt.update_(state, {"a": {"w": ones(2)}, "b": deque([ones(1)])}, {})


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_states_copy_pickle_and_iterate(make):
    model = {"part": make(ones(2), ones(3))}
    state = opt.setup(opt.Momentum(), model)
    opt.update_(state, model, {"part": make(ones(2), ones(3))})
    for other in (state, copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        leaves = [opt.getkeypath(other, path) for path, _ in opt.trainables(model, path=True)]
        assert len(other["part"]) == 2 and [leaf.state.v.sum() > 0 for leaf in leaves] == [True, True]
        assert set(other["part"]) == set(leaves) or {other["part"][key] for key in other["part"]} == set(leaves)


def test_sequences_behave_as_lists_in_the_state_tree():
    state = opt.setup(opt.Adam(), deque([ones(2), None]))
    assert state[0] in state and state[-2] is state[0] and state[1] is None and len(state) == 2
    with pytest.raises(IndexError):
        state[2]


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_vectors_walks_and_ties(make):
    w = ones(2)
    model = [make(w, ones(3)), {"tied": w}]
    assert len(opt.trainables(model)) == 2 and opt.norm(model) == pytest.approx(5**0.5)
    flat, re = opt.destructure(model)
    again = re(2 * flat)
    assert flat.shape == (5,) and again[1]["tied"] is at(again[0], "w") and at(again[0], "b").sum() == 6
    doubled = opt.map_trainables(np.add, model, model, tied="first")
    assert doubled[1]["tied"] is at(doubled[0], "w") and at(doubled[0], "b").sum() == 6
    chosen = opt.select_trainables(model, model)
    assert at(chosen[0], "w") is w
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, [make(ones(2), None), {"tied": ones(2)}])
    assert w.tolist() == [-1, -1]


def test_a_container_that_stands_twice_stays_one():
    part = UserDict(w=ones(2), row=deque([ones(1)]))
    model = {"a": part, "b": [part]}
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, {"a": {"w": ones(2)}})
    assert new["a"] is new["b"][0] and new["a"] is not part and new["a"]["w"].sum() == 0


def test_an_array_that_is_marked_elsewhere_stays_one_in_copies():
    @dataclass
    class Fixed:
        w: Any = field(metadata={"trainable": False})

    w = ones(2)
    for keep in (UserDict(w=w, fixed=Fixed(w)), Frozen({"w": w, "fixed": Fixed(w)})):
        _, new = opt.update(opt.setup(opt.Descent(1.0), keep), keep, {"w": ones(2)})
        assert new["w"].sum() == 0 and new["fixed"].w is w


@pytest.mark.parametrize(
    "wrap", [lambda x: UserDict(a=x), lambda x: deque([x]), lambda x: Frozen({"a": x}), lambda x: Row([x])]
)
def test_depth_and_cycles(wrap):
    w = ones(2)
    model: Any = w
    for _ in range(10_000):
        model = wrap(model)
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, model)
    assert w.sum() == 0
    _, new = opt.update(state, model, model)
    while not isinstance(new, np.ndarray):
        new = new["a"] if isinstance(new, Mapping) else new[0]
    assert new is not w
    while model is not w:  # so that letting it go does not recurse
        model = model["a"] if isinstance(model, Mapping) else model[0]

    loop: Any = UserDict(w=ones(1))
    loop["self"] = wrap(loop)
    with pytest.raises(ValueError, match="the model contains itself"):
        opt.setup(opt.Adam(), loop)


def test_copies_are_of_the_same_kind_in_all_that_is_not_trained():
    class Named(UserDict):
        pass

    named = Named(w=ones(2))
    named.title = "kept"
    model = {
        "deque": deque([ones(2)], maxlen=3),
        "named": named,
        "chain": ChainMap({}, {"w": ones(1)}),
        "n": Node(ones(1), 2, "x"),
    }
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, {"deque": [ones(2)]})
    assert new["deque"].maxlen == 3 and new["named"].title == "kept" and new["n"].note == "x" and new["n"].b == 2
    assert new["chain"].maps[0] == {} and new["chain"]["w"] is not model["chain"]["w"]
    new["named"]["w"] = new["chain"]["v"] = 0
    assert model["named"]["w"].sum() == 2 and "v" not in model["chain"]


def test_a_mapping_that_cannot_be_copied_is_refused_by_update_alone():
    class Stuck(Frozen):
        def __init__(self, a: Any, b: Any) -> None:
            super().__init__({"w": a})

        def __deepcopy__(self, memo: Any) -> Any:
            return self

    model = {"x": Stuck(ones(2), 1)}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(TypeError, match=r"Stuck.*register_container"):
        opt.update(state, model, {"x": {"w": ones(2)}})
    assert model["x"]["w"].sum() == 2
    opt.update_(state, model, {"x": {"w": ones(2)}})
    assert model["x"]["w"].sum() == 0


def test_keys_are_of_any_kind_and_fields_may_be_marked():
    model = UserDict({("a", 1): ones(2), 7: ones(3)})
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, Frozen({7: ones(3), ("a", 1): None}))
    assert [x.sum() for x in model.values()] == [2, 0] and state["a", 1].path == (("a", 1),)

    @attrs.define
    class Marked:
        w: Any
        scale: Any = attrs.field(default=None, metadata={"trainable": False})

    @opt.trainable.register(OpenModel)
    def _(x: Any) -> dict[str, Any]:
        return {key: value for key, value in x.__pydantic_extra__.items() if key != "fixed"}

    assert list(opt.trainable(Marked(1, 2))) == ["w"] and opt.trainables(Marked(ones(1), ones(2)))[0].shape == (1,)
    assert [len(x) for x in opt.trainables(OpenModel(w=ones(2), fixed=ones(3)))] == [2]


def test_rules_by_part_may_be_any_mapping():
    model = {"enc": UserDict(w=ones(2), b=ones(1)), "head": deque([ones(3)])}
    rules = MappingProxyType({"**.b": opt.Descent(0.5), "head": UserList([opt.Momentum()]), ...: opt.Adam()})
    state = opt.setup(rules, model)
    assert [type(leaf.rule).__name__ for leaf in (state["enc"]["w"], state["enc"]["b"], state["head"][0])] == [
        "Adam",
        "Descent",
        "Momentum",
    ]


def test_key_paths_lead_into_all_of_them():
    model = {"u": UserDict(w=1), "row": deque([1, 2]), "proxy": MappingProxyType({"w": 1})}
    opt.setkeypath_(model, opt.KeyPath("u", "w"), 5)
    opt.setkeypath_(model, opt.KeyPath("row", 1), 6)
    assert model["u"]["w"] == 5 and model["row"][1] == 6 and opt.getkeypath(model, opt.KeyPath("proxy", "w")) == 1
    with pytest.raises(ValueError, match="mappingproxy is immutable"):
        opt.setkeypath_(model, opt.KeyPath("proxy", "w"), 7)


def test_text_and_numbers_are_no_sequences():
    from array import array
    from collections import UserString

    model = {
        "w": ones(1),
        "rest": ["ab", b"ab", bytearray(b"ab"), range(3), UserString("ab"), array("i", [1]), memoryview(b"a")],
    }
    assert len(opt.trainables(model)) == 1 and opt.trainable(UserString("ab")) == {}
