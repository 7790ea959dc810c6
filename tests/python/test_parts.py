"""What is trained, containers of one's own, and rules by part."""

from __future__ import annotations

import copy
import pickle
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


# --------------------------------------------------------------------------------------------- what is trained


@dataclass
class Layer:
    w: Any
    b: Any
    scale: Any = field(default=None, metadata={"trainable": False})


@dataclass(frozen=True)
class Chosen:
    """Trains `w` only."""

    w: Any
    b: Any


class Deeper(Chosen):
    pass


class Named(OrderedDict):
    pass


class Grown(list):
    pass


@opt.trainable.register(Chosen)
def _(x: Chosen) -> dict[str, Any]:
    return {"w": x.w}


opt.trainable.register(Named, lambda x: {key: x[key] for key in x if key != "skip"})
opt.trainable.register(Grown, lambda x: dict(enumerate(x[:1])))


class Box:
    """Knows nothing of this package."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts


class Crate(Box):
    pass


opt.register_container(Box, lambda b: dict(b.parts), lambda b, parts: type(b)(**parts))

MODELS = {
    "metadata": (lambda: Layer(ones(2), ones(3), ones(4)), ["w", "b"]),
    "override": (lambda: {"l": Chosen(ones(2), ones(3))}, ["l.w"]),
    "override_of_base": (lambda: Deeper(ones(2), ones(3)), ["w"]),
    "override_of_dict": (lambda: Named(skip=ones(1), keep=[ones(2)]), ["keep.0"]),
    "override_of_list": (lambda: Grown([ones(1), ones(2)]), ["0"]),
    "registered": (lambda: [Box(w=ones(2), f=np.sin, inner=Box(b=ones(3)))], ["0.w", "0.inner.b"]),
    "registered_base": (lambda: Crate(w=ones(2)), ["w"]),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@EVERY_MODEL
def test_trainability_holds_everywhere(name):
    make, paths = MODELS[name]
    model = make()
    assert [str(path) for path, _ in opt.trainables(model, path=True)] == paths
    total = sum(x.size for x in opt.trainables(model))
    state = opt.setup(opt.Descent(1.0), model)
    assert [str(opt.getkeypath(state, p).path) for p, _ in opt.trainables(model, path=True)] == paths
    flat, re = opt.destructure(model)
    assert flat.size == total == opt.reduce_trainables(np.size, lambda a, b: a + b, 0, model)
    assert opt.norm(model, 1) == total
    grads = opt.map_trainables(np.ones_like, model)
    _, new = opt.update(state, model, grads)
    assert opt.norm(new) == 0 and opt.norm(model, 1) == total
    assert type(new) is type(model) is type(re(flat))
    opt.update_(state, model, grads)
    assert opt.norm(model) == 0
    opt.lerp_(model, re(flat), 0.5)
    assert all((x == 0.5).all() for x in opt.trainables(model))


@EVERY_MODEL
def test_what_is_not_trained_is_shared_and_untouched(name):
    make, _ = MODELS[name]
    model = make()
    every = lambda x: [c for _, c, _ in opt._core.children(x) or () for c in (c, *every(c))]  # noqa: E731
    trained = {id(x) for x in opt.trainables(model)}
    fixed = [x for x in every(model) if isinstance(x, np.ndarray) and id(x) not in trained]
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, opt.map_trainables(np.ones_like, model))
    assert all((x == 1).all() and any(x is y for y in every(new)) for x in fixed)


def test_trainable_gives_the_children():
    assert list(opt.trainable({"a": 1, "b": ones(1)})) == ["a", "b"] and opt.trainable([5, 6]) == {0: 5, 1: 6}
    assert list(opt.trainable(MODELS["metadata"][0]())) == ["w", "b"]
    assert list(opt.trainable(Chosen(1, 2))) == ["w"] and opt.trainable(Box(a=1)) == {"a": 1}
    assert opt.trainable(ones(2)) == opt.trainable("text") == opt.trainable(None) == {}


def test_an_override_has_to_name_children():
    class Odd(dict):
        answer: Any = None

    class Plain:
        pass

    opt.trainable.register(Odd, lambda x: x.answer)
    opt.trainable.register(Plain, lambda x: {})
    model = Odd(a=ones(1))
    model.answer = {"b": 1}
    with pytest.raises(ValueError, match="setup: trainable of Odd names the child 'b'"):
        opt.setup(opt.Adam(), model)
    model.answer = ["a"]
    with pytest.raises(TypeError, match="trainable of Odd returned a list"):
        opt.trainables(model)
    with pytest.raises(TypeError, match="register_container"):
        opt.setup(opt.Adam(), [Plain()])
    with pytest.raises(TypeError, match="expected a class"):
        opt.trainable.register(3, lambda x: {})  # type: ignore[call-overload]


def test_registration_is_refused_for_what_has_a_meaning_already():
    for cls in (dict, list, object, int):
        with pytest.raises(TypeError, match=f"{cls.__name__} cannot be registered"):
            opt.register_container(cls, lambda x: {}, lambda x, c: x)
    with pytest.raises(TypeError, match="expected a function"):
        opt.register_container(Layer, {}, lambda x, c: x)  # type: ignore[arg-type]

    class Broken:
        pass

    opt.register_container(Broken, lambda x: [1], lambda x, c: x)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="children of Broken returned a list"):
        opt.setup(opt.Adam(), Broken())


def test_gradients_of_a_registered_class_may_be_dicts_or_objects():
    model = {"box": Box(w=ones(2), b=ones(1))}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"box": {"b": ones(1)}})
    opt.update_(state, model, {"box": Crate(w=ones(2))})
    assert [x.tolist() for x in opt.trainables(model)] == [[0, 0], [0]] and "w" in state.box
    with pytest.raises(ValueError, match="'c', which the model lacks"):
        opt.update_(state, model, {"box": Box(c=ones(1))})
    with pytest.raises(ValueError, match="lost its key 'b'"):
        opt.update_(state, {"box": Box(w=ones(2), c=ones(1))}, None)


def test_read_only_arrays_and_frozen_objects_go_through_update():
    w = ones(2)
    w.setflags(write=False)
    model = Chosen(w, "relu")
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match="use update"):
        opt.update_(state, model, {"w": ones(2)})
    _, new = opt.update(state, model, {"w": ones(2)})
    assert new.w.tolist() == [0, 0] and opt.maywrite(new.w) and not opt.maywrite(w) and w.tolist() == [1, 1]


def test_isnumeric_and_maywrite():
    assert all(map(opt.isnumeric, (ones(1), ones(1).astype(np.complex64), torch.ones(1), np.broadcast_to(1.0, 2))))
    assert not any(map(opt.isnumeric, (np.arange(2), np.array(["a"]), 1.0, None, np.float64(1), torch.arange(2), {})))
    assert opt.maywrite(torch.ones(1)) and not opt.maywrite(np.broadcast_to(1.0, 2)) and not opt.maywrite("x")


# ----------------------------------------------------------------------------------------------- rules by part


def model() -> dict[str, Any]:
    def layer() -> dict[str, Any]:
        return {"weight": ones(2, 2), "bias": ones(2), "norm": {"g": ones(1)}}

    return {"enc": [layer(), layer()], "head": Layer(ones(2), ones(1)), "norm": ones(1)}


def etas(state: opt.State, m: Any = None) -> dict[str, Any]:
    """The rules' learning rates by path."""
    found = {}
    for path, _ in opt.trainables(m or model(), path=True):
        leaf = opt.getkeypath(state, path)
        found[str(path)] = None if leaf is None else leaf.rule.eta
    return found


def descents(rules: Any) -> Any:
    if isinstance(rules, dict):
        return {key: descents(rule) for key, rule in rules.items()}
    if isinstance(rules, (list, tuple)):
        return type(rules)(map(descents, rules))
    if isinstance(rules, Layer):
        return Layer(descents(rules.w), descents(rules.b))
    return opt.Descent(rules) if isinstance(rules, (int, float)) else rules


CASES = {
    "prefixes": ({"enc": 1, "head": 2, "norm": 3}, [1, 1, 1, 1, 1, 1, 2, 2, 3]),
    "default": ({"enc.1": 1, ...: 2}, [2, 2, 2, 1, 1, 1, 2, 2, 2]),
    "default_first": ({...: 2, "enc.1": 1}, [2, 2, 2, 1, 1, 1, 2, 2, 2]),
    "one_component": ({"enc.*.bias": 1, "enc.*.norm": 2, ...: 3}, [3, 1, 2, 3, 1, 2, 3, 3, 3]),
    "any_components": ({"**.norm": 1, ...: 2}, [2, 2, 1, 2, 2, 1, 2, 2, 1]),
    "any_below": ({"enc.**.g": 1, "**": 2}, [2, 2, 1, 2, 2, 1, 2, 2, 2]),
    "trailing": ({"enc.**": 1, "norm.**": 2, "head": 3}, [1, 1, 1, 1, 1, 1, 3, 3, 2]),
    "star_alone": ({"*.0": 1, "*": 2}, [1, 1, 1, 2, 2, 2, 2, 2, 2]),
    "order": ({"**.bias": 1, "enc": 2, ...: 3}, [2, 1, 2, 2, 1, 2, 3, 3, 3]),
    "none": ({"enc": None, ...: 1}, [None] * 6 + [1, 1, 1]),
    "nested": ({"enc": {"*.bias": 1, ...: {"0": 4, ...: 2}}, ...: 3}, [4, 1, 4, 2, 1, 2, 3, 3, 3]),
    "nested_patterns": ({"enc.*": {"bias": 1, "**.g": 2, ...: 3}, ...: 4}, [3, 1, 2, 3, 1, 2, 4, 4, 4]),
    "tree_in_dict": ({"enc": [1, {"bias": 2, ...: 3}], ...: 4}, [1, 1, 1, 3, 2, 3, 4, 4, 4]),
    "tree": ({"enc": (1, None), "head": Layer(2, None), "norm": 3}, [1] * 3 + [None] * 3 + [2, None, 3]),
}


@pytest.mark.parametrize("case", CASES)
def test_rules_by_part(case):
    rules, expected = CASES[case]
    assert list(etas(opt.setup(descents(rules), model())).values()) == expected


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"encc": 1, ...: 2}, r"'encc' catches nothing; the paths are enc\.0\.weight, .*norm$"),
        ({"en": 1, ...: 2}, "'en' catches nothing"),
        ({"enc": {"2": 1, ...: 2}, ...: 3}, r"'2' under \"enc\" catches nothing"),
        ({"enc": 1, "**.bias": 2, ...: 3}, r"'\*\*\.bias' catches nothing that an entry before it"),
        ({"enc": 1}, r"no rule for \"head\.w\".*nothing for head\.w, head\.b, norm; .*default"),
        ({"enc": {"0": 1}, ...: 2}, r"no rule for \"enc\.1\.weight\""),
        ({"": 1, ...: 2}, "empty component"),
        ({"a..b": 1, ...: 2}, "empty component"),
    ],
)
def test_what_catches_nothing_or_is_not_caught_is_an_error_that_lists_paths(rules, message):
    with pytest.raises(ValueError, match=message):
        opt.setup(descents(rules), model())


@pytest.mark.parametrize(
    "rules",
    [{"enc": "Adam", ...: 1}, {"enc": opt.Adam, ...: 1}, {"norm": [2], ...: 1}],
)
def test_what_is_no_rule_is_refused(rules):
    with pytest.raises(TypeError, match=r"enc|norm"):
        opt.setup(descents(rules), model())
    with pytest.raises(TypeError, match="rule"):
        opt.setup(None, model())


def test_keys_with_dots_are_read_as_paths():
    flat = {"enc.0.weight": ones(2), "enc.0.bias": ones(1), "enc.1.weight": ones(2), "head": ones(1)}
    rules = {
        "enc.0": {"bias": opt.Descent(1), ...: opt.Descent(2)},
        "enc.1.weight": opt.Descent(3),
        "*": opt.Descent(4),
    }
    assert list(etas(opt.setup(rules, flat), flat).values()) == [2, 1, 3, 4]
    assert list(etas(opt.setup({"enc": opt.Descent(1), ...: None}, flat), flat).values()) == [1, 1, 1, None]


def test_a_key_that_would_catch_more_as_a_pattern_is_an_error():
    m = {"*": ones(1), "a": ones(2)}
    with pytest.raises(ValueError, match=r"'\*' is a key of the model's own.*\"a\".*function"):
        opt.setup({"*": opt.Adam(), ...: opt.Adam()}, m)
    assert opt.setup({"*": opt.Adam()}, {"*": ones(1)})["*"].rule == opt.Adam()
    m = {"a.b": ones(1), "a": {"b": ones(2)}}
    with pytest.raises(ValueError, match="of the model's own"):
        opt.setup({"a.b": opt.Adam(), ...: opt.Adam()}, m)


def test_keys_that_are_no_text():
    m = {0: ones(1), ("a", 1): [ones(1)]}
    state = opt.setup({0: opt.Descent(1), ("a", 1): [opt.Descent(2)]}, m)
    assert (state[0].rule.eta, state["a", 1][0].rule.eta) == (1, 2)
    with pytest.raises(ValueError, match="5 catches nothing"):
        opt.setup({5: opt.Descent(1), ...: opt.Adam()}, m)


def test_a_tied_array_gets_the_rule_of_its_first_place():
    w = ones(2)
    m = {"a": w, "b": w, "c": ones(1)}
    state = opt.setup({"a": opt.Descent(1), "c": opt.Descent(2)}, m)
    assert state["b"].rule.eta == 1 and state["a"] is state["b"]


def test_a_bare_array_may_have_patterns():
    assert opt.setup({...: opt.Descent(1)}, ones(1)).rule.eta == opt.setup({"**": opt.Descent(1)}, ones(1)).rule.eta
    with pytest.raises(ValueError, match="the paths are x"):
        opt.setup({"w": opt.Adam()}, ones(1))


def test_rules_of_a_deep_model():
    deep: Any = {"w": ones(1), "b": ones(1)}
    rules: Any = {"w": opt.Descent(1), ...: opt.Descent(2)}
    for _ in range(10_000):
        deep = {"n": deep}
    assert len(opt.trainables(deep)) == 2
    state = opt.setup({"**.b": opt.Descent(1), ...: opt.Descent(2)}, deep)
    assert "b" in repr(state)
    path, _ = opt.trainables(deep, path=True)[1]
    assert opt.getkeypath(state, path).rule.eta == 1
    for i in range(10_000):
        rules = {"n": rules, ...: None} if i % 2 else {"n": rules}
    assert opt.getkeypath(opt.setup(rules, deep), path).rule.eta == 2


# ---------------------------------------------------------------------------------------------- left alone


def test_leaves_without_a_rule_have_no_state_and_are_left_alone():
    m = model()
    state = opt.setup(lambda path, x: None if path[0] == "enc" else opt.Adam(), m)
    assert state["enc"][0]["weight"] is None and "head.w" in repr(state) and "enc" not in repr(state)
    before = copy.deepcopy(m)
    opt.update_(state, m, opt.map_trainables(np.ones_like, m))
    assert all((a == b).all() for a, b in zip(opt.trainables(m["enc"]), opt.trainables(before["enc"]), strict=True))
    assert (m["head"].w != before["head"].w).all()
    _, new = opt.update(state, m, None)
    assert new["enc"] is m["enc"] and new["head"] is not m["head"]
    for again in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert again["enc"][0]["bias"] is None and again["norm"].rule == opt.Adam()
    nothing = opt.setup({...: None}, m)
    assert len(list(nothing)) == 3 and "0 leaves" in repr(nothing)
    opt.update_(nothing, m, None)


def test_leaves_left_alone_in_a_vector_are_never_written():
    m = {"a": ones(2), "b": ones(3), "c": ones(1)}
    flat, re = opt.destructure(m)
    state = opt.setup({"b": None, ...: opt.Momentum(1.0, 0.0)}, flat, layout=re)
    for s in (state, pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        x = flat.copy()
        opt.update_(s, x, np.arange(6.0))
        assert x.tolist() == [1, 0, 1, 1, 1, -4]
        opt.update_(s, x, {"b": ones(3), "c": ones(1)})
        assert x.tolist() == [1, 0, 1, 1, 1, -5]


def test_ties_survive_leaves_left_alone():
    w, v = np.arange(6.0).reshape(2, 3), ones(2)
    m = {"v": v, "w": w, "t": w.T, "u": v}
    state = opt.setup({"v": None, ...: opt.Descent(1.0)}, m)
    opt.update_(state, m, {"w": np.ones((2, 3)), "t": np.ones((3, 2)), "u": ones(2)})
    assert (w == np.arange(6.0).reshape(2, 3) - 2).all() and v.tolist() == [1, 1] and state["u"] is None


# ------------------------------------------------------------------------------------------------- print


def test_print_shows_path_shape_dtype_size_rule_and_frozen():
    state = opt.setup({"w": opt.Adam(), ...: opt.Descent()}, {"w": np.ones((100, 3), np.float32), "b": [ones(3)]})
    opt.freeze_(state["b"])
    assert repr(state).splitlines() == [
        "StateTree with 2 leaves, 2.344 KiB of state",
        "  w    (100, 3)  float32  2.344 KiB  Adam(eta=0.001, beta=(0.9, 0.999), epsilon=1e-08)",
        "  b.0  (3,)      float64  0 B        Descent(eta=0.1)  frozen",
    ]
    assert repr(state["b"][0]) == 'Leaf("b.0", (3,), float64, Descent(eta=0.1), frozen)'
    long = repr(opt.setup(opt.Adam(), [ones(1) for _ in range(1000)]))
    assert len(long.splitlines()) == 22 and "... 980 more ..." in long and long.splitlines()[-1].startswith("  999")


def test_setup_by_patterns_is_quick():
    m = {f"layer{i}": {f"p{j}": ones(1) for j in range(100)} for i in range(100)}
    rules = {"**.p7": opt.Descent(1), "layer3": opt.Descent(2), ...: opt.Adam()}
    begin = time.perf_counter()
    opt.setup(rules, m)
    assert time.perf_counter() - begin < 1
