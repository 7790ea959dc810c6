"""What is trained, and containers of one's own; rules by part are in test_rules_by_part.py."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from parts import Layer, ones

import optimisers as opt

# --------------------------------------------------------------------------------------------- what is trained


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
    opt.trainable.register(Plain, lambda x: {"w": 1})
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
