"""Laws of `state.norm`: the norm that leaves last shared, as ClipNorm saw it before it clipped."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from support import layers
from user_rules import Scale

import optimisers as opt


def clip(p: float = 2, **kwargs: object) -> opt.Rule:
    return opt.ClipNorm(0.5, p, scope="global", **kwargs)


@pytest.mark.parametrize("p", [2, 1, 3, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_the_norm_of_the_gradients(p: float, dtype: str) -> None:
    model, g = layers(dtype=dtype), layers(dtype=dtype, seed=100)
    state = opt.setup(opt.OptimiserChain(clip(p), opt.Adam()), model)
    assert state.norm is None
    opt.update_(state, model, g)
    assert state.norm == opt.norm(g, p) and isinstance(state.norm, float)
    assert state["layers"][0].norm == state["layers"][1]["bias"].norm == state.norm


def test_other_rules_see_none() -> None:
    for rule in (opt.Adam(), opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam())):
        model = layers()
        state = opt.setup(rule, model)
        opt.update_(state, model, layers(seed=100))
        assert state.norm is None


def test_it_is_of_dx_as_it_reaches_the_stage_and_of_the_leaves_that_come_there() -> None:
    model = {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}
    state = opt.setup(opt.OptimiserChain(opt.Descent(0.5), clip()), model)
    opt.freeze_(state["b"])
    opt.update_(state, model, {"a": np.array([6.0, 8.0]), "b": np.full(2, 7.0), "c": None})
    assert state.norm == 5
    opt.update_(state["c"], model["c"], np.array([0.0, 4.0]))
    assert state.norm == 2


def test_of_several_it_is_that_of_the_first_stage_of_the_first_leaf_that_has_one() -> None:
    model = {"plain": np.ones(1), "late": np.ones(2), "early": np.ones(2)}
    rules = {
        "plain": opt.Adam(),
        "late": opt.OptimiserChain(clip(np.inf), opt.Descent(10.0), clip(1)),
        "early": opt.OptimiserChain(clip(1), opt.Descent(1.0)),
    }
    state = opt.setup(rules, model)
    opt.update_(state, model, {k: np.full_like(x, 3.0) for k, x in model.items()})
    assert state.norm == 3
    opt.update_(state, model, {"early": np.full(2, 3.0)})
    assert state.norm == 6


def test_a_gathering_window_sees_nothing_new() -> None:
    x = np.ones(2)
    state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), clip(), opt.Descent(1.0)), x)
    opt.update_(state, x, np.array([6.0, 8.0]))
    assert state.norm is None
    opt.flush_(state, x)
    assert state.norm == 10
    opt.update_(state, x, np.array([0.0, 8.0]))
    assert state.norm == 10
    opt.update_(state, x, np.array([0.0, 8.0]))
    assert state.norm == 8


def test_a_refused_or_skipped_step_saw_none() -> None:
    x = np.ones(2)
    state = opt.setup(clip(), x)
    opt.update_(state, x, np.array([3.0, 4.0]))
    with pytest.raises(FloatingPointError):
        opt.update_(state, x, np.array([np.inf, 4.0]))
    opt.update_(state, x, np.array([np.inf, 4.0]), non_finite="skip")
    with pytest.raises(ValueError, match="shape"):
        opt.update_(state, x, np.ones(3))
    assert state.norm == 5
    opt.adjust_(state, throw=False)
    opt.update_(state, x, np.array([np.inf, 4.0]))
    assert state.norm == np.inf


def test_copies_and_bytes_keep_it() -> None:
    x = np.ones(2)
    old = opt.setup(clip(), x)
    state, _ = opt.update(old, x, np.array([3.0, 4.0]))
    assert old.norm is None
    for other in (state, copy.deepcopy(state), pickle.loads(pickle.dumps(state)), opt.adjust(state, omega=1.0)):
        assert other.norm == 5
    assert pickle.loads(pickle.dumps(old)).norm is None


@pytest.mark.parametrize("place", ["before", "behind", "both"])
def test_with_rules_of_users(place: str) -> None:
    class Fails(opt.Rule):
        fails = False

        def init(self, x: np.ndarray) -> None:
            return None

        def apply(self, state: None, x: np.ndarray, dx: np.ndarray) -> tuple[None, np.ndarray]:
            if Fails.fails:
                raise KeyError("mine")
            return None, dx

    first, last = ([clip()] if place != "behind" else []), ([clip()] if place != "before" else [])
    model = {"a": np.ones(2), "b": np.ones(2)}
    state = opt.setup(opt.OptimiserChain(*first, Scale(2.0), Fails(), *last, opt.Descent(0.5)), model)
    opt.update_(state, model, {"a": np.array([3.0, 0]), "b": np.array([0, 4.0])})
    assert state.norm == (10 if place == "behind" else 5)
    Fails.fails = True
    with pytest.raises(KeyError):
        opt.update_(state, model, {"a": np.array([30.0, 0]), "b": np.array([0, 4.0])})
    assert state.norm == (10 if place == "behind" else 5)


def test_a_child_of_that_name_is_reached_by_its_key() -> None:
    model = {"norm": np.ones(2), "skipped": np.ones(3)}
    state = opt.setup(clip(), model)
    opt.update_(state, model, {"norm": np.array([3.0, 4.0])})
    assert state.norm == 5 and state.skipped == 0
    assert state["norm"].shape == (2,) and state["skipped"].shape == (3,)
