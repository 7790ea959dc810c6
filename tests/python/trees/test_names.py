"""What messages call the parts of a model: the root is the model, and who misses a child is told which there are."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import optimisers as opt


def ones(n: int = 2) -> np.ndarray:
    return np.ones(n)


def messages_about_a_bare_array():
    x, re = ones(), opt.destructure(ones())[1]
    state = opt.setup(opt.ClipNorm(), x)
    yield lambda: opt.update_(state, x, ones(3))
    yield lambda: opt.update_(state, x, [1.0])
    yield lambda: opt.update_(state, ones(3), ones())
    yield lambda: opt.update_(state, None, ones())
    yield lambda: opt.update_(state, x, np.array([np.nan, 1]))
    yield lambda: opt.update_(state, np.broadcast_to(1.0, 2), ones())
    yield lambda: opt.setup(opt.Adam(), np.zeros(2, object))
    yield lambda: opt.setup({"a": opt.Adam()}, x)
    yield lambda: opt.setup([[opt.Adam()]], x)
    yield lambda: opt.setup(lambda path, leaf: 3, x)
    yield lambda: re.flatten(ones(3))
    yield lambda: opt.lerp_(x, ones(3), 0.5)
    yield lambda: opt.lerp_(x, None, 0.5)
    yield lambda: opt.setup(opt.Rprop(), np.ones(2, complex))


@pytest.mark.parametrize("number", range(14))
def test_the_root_is_called_the_model(number):
    call = list(messages_about_a_bare_array())[number]
    with pytest.raises((ValueError, TypeError, FloatingPointError)) as caught:
        call()
    assert "model" in str(caught.value) and '"x"' not in str(caught.value) and '""' not in str(caught.value)


def test_a_root_of_another_kind_is_the_model():
    state = opt.setup(opt.Adam(), {"w": ones(), "b": ones()})
    with pytest.raises(ValueError, match=r"^update: the model is a list of length 2, was a dict"):
        opt.update_(state, [ones(), ones()], None)
    with pytest.raises(ValueError, match=r"^update: the model has 1 keys, had 2: 'b' has gone; call extend_"):
        opt.update_(state, {"w": ones()}, None)
    with pytest.raises(ValueError, match=r"^update: the model has lost its key 'b' .there are 'w', 'c'.; call extend_"):
        opt.update_(state, {"w": ones(), "c": ones()}, None)


@dataclasses.dataclass
class Layer:
    w: Any
    b: Any


def test_state_trees_list_the_children_there_are():
    state = opt.setup(opt.Adam(), {"enc": Layer(ones(), ones()), "dec": [ones(), ones()]})
    with pytest.raises(KeyError) as caught:
        state["encoder"]
    assert str(caught.value) == "the model has no 'encoder' at its root; there are 'enc', 'dec'"
    with pytest.raises(AttributeError, match="the model has no 'weight' at \"enc\"; there are 'w', 'b'"):
        state.enc.weight  # noqa: B018
    with pytest.raises(IndexError, match='no 2 at "dec"; there are 0, 1'):
        state["dec"][2]
    many = opt.setup(opt.Adam(), {f"w{i}": ones() for i in range(30)})
    with pytest.raises(KeyError, match=r"'w9', \.\.\."):
        many["v"]


def test_other_calls_list_the_children_there_are():
    model = {"enc": Layer(ones(), ones())}
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(ValueError, match="'v', which the model lacks; its keys there are 'w', 'b'"):
        opt.update_(state, model, {"enc": {"v": ones()}})
    with pytest.raises(ValueError, match=r"source has nothing at \"enc.b\", target has an array; there are 'w'"):
        opt.lerp_(model, {"enc": {"w": ones()}}, 0.5)
    with pytest.raises(ValueError, match="no 'v' at \"enc\", which is a Layer; its keys are 'w', 'b'"):
        opt.getkeypath(model, opt.KeyPath("enc", "v"))
    with pytest.raises(ValueError, match="no 'v' at its root, a dict; its keys are 'enc'"):
        opt.getkeypath(model, opt.KeyPath("v"))
    with pytest.raises(ValueError, match=r"state tree has nothing at \"enc.w\", of another model; at .* it has 'dec'"):
        opt.map_trainables(lambda x, leaf: x, model, opt.setup(opt.Adam(), {"dec": ones()}))

    class Chosen(Layer):
        pass

    opt.trainable.register(Chosen, lambda x: {"v": 1})
    with pytest.raises(ValueError, match="names the child 'v', which the object lacks; its children are 'w', 'b'"):
        opt.setup(opt.Adam(), Chosen(ones(), ones()))


# ----------------------------------------------------------- what is missing, and what raises when it is looked for


class Grads(Layer):
    @property
    def w(self):
        return self._mistyped

    @w.setter
    def w(self, value):
        self._w = value


Grads = dataclasses.dataclass(Grads)  # type: ignore[misc]


@dataclasses.dataclass(slots=True)
class Slotted:
    w: Any
    b: Any


@pytest.mark.parametrize("update", [opt.update_, opt.update])
def test_a_property_that_raises_attribute_error_is_no_missing_field(update):
    model = Layer(ones(), ones())
    state = opt.setup(opt.Descent(0.5), model)
    with pytest.raises(AttributeError, match="_mistyped"):
        update(state, model, Grads(ones(), ones()))
    assert model.w[0] == model.b[0] == 1
    broken = Grads(ones(), ones())
    with pytest.raises(AttributeError, match="_mistyped"):
        opt.setup(opt.Descent(), broken)
    with pytest.raises(AttributeError, match="_mistyped"):
        opt.select_trainables(model, broken)


@pytest.mark.parametrize("make", [Layer, Slotted])
def test_a_field_that_was_deleted_or_never_set_is_missing(make):
    model, gradient = Layer(ones(), ones()), make(ones(), ones())
    del gradient.b
    opt.update_(opt.setup(opt.Descent(0.5), model), model, gradient)
    assert (model.w[0], model.b[0]) == (0.5, 1)


class Key:
    """One of several keys with one hash, which can be made to fail when it is compared."""

    broken = False

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if Key.broken:
            raise ArithmeticError("compared")
        return self is other


def test_keys_that_raise_when_they_are_compared_are_heard():
    model = {Key(): ones(), Key(): 3, Key(): 4}
    state = opt.setup(opt.Descent(0.5), model)
    re = opt.destructure(model)[1]
    gradient = dict.fromkeys(model)
    Key.broken = True
    try:
        for call in (
            lambda: re(ones()),
            lambda: opt.update(state, model, None),
            lambda: opt.select_trainables(model, gradient),
            lambda: opt.update_(state, model, {next(reversed(model)): None}),
        ):
            with pytest.raises(ArithmeticError, match="compared"):
                call()
    finally:
        Key.broken = False
