"""Rules written in Python that raise, return what they must not, or cannot be run together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import everything, layers
from user_rules import Failing, MyMomentum, Returning, Scale

import optimisers as opt


@pytest.mark.parametrize("position", [0, 1, 2])
def test_when_apply_raises_nothing_has_changed(position: int) -> None:
    rules: list[opt.Rule] = [opt.Adam(), opt.ClipNorm(0.1)]
    rules.insert(position, Failing())
    model = layers()
    state = opt.setup(opt.OptimiserChain(Scale(), *rules), model)
    good = layers(seed=3)
    good["layers"][2]["bias"] = None
    opt.update_(state, model, good)
    before = everything(model, state)
    counts = [state["layers"][i].bias.state[0] for i in range(3)]
    with pytest.raises(RuntimeError, match="no"):
        opt.update_(state, model, layers(seed=4))
    assert everything(model, state) == before
    assert [state["layers"][i].bias.state[0] for i in range(3)] == counts


def test_a_state_changed_in_place_is_not_committed_when_another_leaf_raises() -> None:
    model = layers()
    state = opt.setup(opt.OptimiserChain(MyMomentum(), Failing()), model)
    with pytest.raises(RuntimeError, match="no"):
        opt.update_(state, model, layers(seed=4))
    assert state["layers"][0]["weight"].state[0]["steps"] == [0]
    assert (state["layers"][0]["weight"].state[0]["v"] == 0).all()


def test_a_later_refusal_of_the_core_has_changed_nothing_either() -> None:
    model = layers()
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Scale(), opt.ClipNorm(1.0)), model)
    g = layers(seed=4)
    g["layers"][2]["weight"][0, 0] = np.inf
    before = everything(model, state)
    with pytest.raises(FloatingPointError):
        opt.update_(state, model, g)
    assert everything(model, state) == before
    assert state["layers"][0].bias.state[1] == 0


BAD_RESULTS = {
    "must return": (lambda s, x, dx: dx, TypeError),
    "has shape": (lambda s, x, dx: (s, np.zeros(7)), ValueError),
    "is complex128": (lambda s, x, dx: (s, 1j * dx), ValueError),
    "is int64": (lambda s, x, dx: (s, np.zeros(x.shape, np.int64)), ValueError),
}


@pytest.mark.parametrize("message", BAD_RESULTS)
def test_what_apply_returns_is_checked(message: str) -> None:
    result, error = BAD_RESULTS[message]
    x = {"w": np.ones((2, 2))}
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Returning(result)), x)
    before = everything(x, state)
    with pytest.raises(error, match=message) as raised:
        opt.update_(state, x, {"w": np.ones((2, 2))})
    assert str(raised.value).startswith('update: Returning.apply at "w"')
    assert everything(x, state) == before
    rule = Returning(result)
    with pytest.raises(error, match=f'^apply_: Returning.apply at "the model".*{message}'):
        opt.apply_(rule, opt.init(rule, x["w"]), x["w"], np.ones((2, 2)))


def test_a_refused_adjustment_has_changed_nothing() -> None:
    @dataclass(frozen=True)
    class Picky(opt.Rule):
        eta: float = 0.1

        def __post_init__(self) -> None:
            if self.eta > 1:
                raise ValueError("too much")

    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Picky()), np.ones(2))
    with pytest.raises(ValueError, match="too much"):
        opt.adjust_(state, 2.0)
    assert state.rule == opt.OptimiserChain(opt.Momentum(), Picky())


def test_global_norms_that_cannot_be_shared_are_refused() -> None:
    clip = opt.ClipNorm(1.0, scope="global")
    rules = {"a": opt.OptimiserChain(clip, Scale()), "b": clip}
    with pytest.raises(ValueError, match="cannot share a norm"):
        opt.setup(rules, {"a": np.zeros(1), "b": np.zeros(1)})


def test_using_the_state_inside_its_own_update_is_refused() -> None:
    x = np.ones(2)
    state: Any = None

    def again(s: Any, x: Any, dx: Any) -> Any:
        opt.update_(state, np.ones(2), np.ones(2))

    state = opt.setup(Returning(again), x)
    with pytest.raises(RuntimeError, match="busy"):
        opt.update_(state, x, np.ones(2))


def test_a_class_without_apply_says_so() -> None:
    class Nothing(opt.Rule):
        pass

    x = np.ones(1)
    with pytest.raises(TypeError, match="Nothing has no method apply"):
        opt.update_(opt.setup(Nothing(), x), x, x.copy())
