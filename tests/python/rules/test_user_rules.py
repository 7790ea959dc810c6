"""Rules written in Python: their contract, their place in chains, and that a failing one has changed nothing."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from support import bits, copied, layers, sized
from user_rules import Around, MyMomentum, Returning, Scale, run

import optimisers as opt


@pytest.mark.parametrize("before", [[], ["WeightDecay", "ClipNorm"]])
@pytest.mark.parametrize("after", [[], ["Momentum", "SignDecay"]])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16"])
def test_a_rule_of_ones_own_equals_the_built_in_one_between_others(
    before: list[str], after: list[str], dtype: str
) -> None:
    first, last = [getattr(opt, name)() for name in before], [getattr(opt, name)() for name in after]
    ours, theirs = layers(dtype=dtype), layers(dtype=dtype)
    run(opt.OptimiserChain(*first, MyMomentum(), *last), ours)
    run(opt.OptimiserChain(*first, opt.Momentum(), *last), theirs)
    # Between stages dx is rounded to the leaf's dtype, within a native chain it is not.
    tolerance = 2e-2 if dtype == "float16" else 1e-6
    for a, b in zip(opt.trainables(ours), opt.trainables(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_torch_leaves() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    state = opt.setup(opt.OptimiserChain(opt.ClipGrad(1.0), MyMomentum(0.1), opt.Descent(1.0)), x)
    opt.update_(state, x, torch.tensor([5.0, 0.5]))
    torch.testing.assert_close(x.detach(), torch.tensor([0.9, 1.95]))
    assert isinstance(state.state[1]["v"], torch.Tensor)


def test_two_of_them_in_nested_chains_with_native_ones_between() -> None:
    x = np.array([4.0])
    state = opt.setup(opt.OptimiserChain(Scale(0.5), opt.OptimiserChain(opt.ClipGrad(1.0), Scale(0.25))), x)
    opt.update_(state, x, np.array([8.0]))
    assert x == [3.75]
    assert state.state == (1, ((), 1))


def test_state_is_what_init_and_apply_returned() -> None:
    x = np.zeros(2)
    state = opt.setup(MyMomentum(), x)
    assert state.state["steps"] == [0]
    opt.update_(state, x, np.ones(2))
    assert state.state["steps"] == [1]
    np.testing.assert_array_equal(state.state["v"], [0.01, 0.01])
    assert repr(state.clock) == "MyMomentumClock()"


def test_x_is_read_only_and_state_is_a_copy() -> None:
    seen = []

    def look(state: Any, x: Any, dx: Any) -> Any:
        seen.append(x.flags.writeable)
        dx *= 2  # free to be overwritten
        return state, dx

    g = np.ones(2)
    x = np.zeros(2)
    opt.update_(opt.setup(Returning(look), x), x, g)
    assert seen == [False]
    assert (g == 1).all() and (x == -2).all()

    t = torch.zeros(2)

    def write(state: Any, x: Any, dx: Any) -> Any:
        x += 100
        return state, dx

    opt.update_(opt.setup(Returning(write), t), t, torch.ones(2))
    assert (t == -1).all()


def test_none_stops_the_chain_for_this_leaf() -> None:
    model = {"a": np.ones(2), "b": np.ones(3)}
    stop = Returning(lambda state, x, dx: (state, None if x.shape == (2,) else dx))
    state = opt.setup(opt.OptimiserChain(opt.Momentum(1.0), stop, opt.Adam()), model)
    opt.update_(state, model, {"a": np.ones(2), "b": np.ones(3)})
    assert (model["a"] == 1).all() and (model["b"] != 1).all()
    assert (state["a"].state[0].v == 1).all()
    assert state["a"].clock[2].beta1_t == 1.0
    assert state["b"].clock[2].beta1_t == 0.9


def test_accum_grad_before_and_behind() -> None:
    for chain in ([opt.AccumGrad(2), Scale(1.0)], [Scale(1.0), opt.AccumGrad(2)]):
        x = np.zeros(1)
        state = opt.setup(opt.OptimiserChain(*chain), x)
        seen = []
        for g in (1.0, 3.0, 5.0, None):
            opt.update_(state, x, None if g is None else np.array([g]))
            seen.append(float(x[0]))
        assert seen == [0.0, -2.0, -2.0, -4.5]


def test_missing_gradient_and_frozen_leaf_are_left_alone() -> None:
    model = layers()
    state = run(opt.OptimiserChain(opt.Momentum(), Scale()), model)
    opt.freeze_(state["layers"][0])
    before = bits(model["layers"][:2]), state["layers"][0].bias.state[1], state["layers"][1].bias.state[1]
    g = layers()
    g["layers"][1] = None
    opt.update_(state, model, g)
    assert before == (bits(model["layers"][:2]), state["layers"][0].bias.state[1], state["layers"][1].bias.state[1])
    assert state["layers"][2].bias.state[1] == before[1] + 1


def test_higher_gradients_reach_apply_and_built_in_rules_ignore_them() -> None:
    class Newton(opt.Rule):
        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            return state, dx if higher[0] is None else dx / higher[0]

    model, plain = {"a": np.array([4.0]), "b": np.array([4.0])}, {"a": np.array([4.0]), "b": np.array([4.0])}
    state = opt.setup(opt.OptimiserChain(opt.Descent(1.0), Newton()), model)
    g, g2 = {"a": np.array([8.0]), "b": np.array([1.0])}, {"a": np.array([2])}
    opt.update_(state, model, g, g2)
    assert (model["a"], model["b"]) == ([0.0], [3.0])
    opt.update_(opt.setup(opt.Descent(1.0), plain), plain, g, g2)
    assert (plain["a"], plain["b"]) == ([-4.0], [3.0])


def test_tied_leaves_are_visited_once_with_their_gradients_summed() -> None:
    w = np.zeros((2, 3))
    model = {"a": w, "b": w.T}
    state = opt.setup(Scale(1.0), model)
    opt.update_(state, model, {"a": np.ones((2, 3)), "b": np.ones((3, 2))}, None)
    assert (w == -2).all() and state["a"].state == 1


def test_adjust_reaches_fields_and_rules_inside() -> None:
    rule = opt.OptimiserChain(Around(opt.Adam(0.1)), Scale(), opt.Momentum())
    assert opt.adjust(rule, 0.25) == opt.OptimiserChain(Around(opt.Adam(0.25)), Scale(0.25), opt.Momentum(0.25))
    model = {"a": np.ones(2), "b": np.ones(2)}
    state = opt.setup(rule, model)
    opt.adjust_(state["a"], 0.125, beta=(0.5, 0.5))
    assert state["a"].rule == opt.OptimiserChain(Around(opt.Adam(0.125, (0.5, 0.5))), Scale(0.125), opt.Momentum(0.125))
    assert state["b"].rule == rule
    with pytest.raises(ValueError, match='"betta"; fields are beta, epsilon, eta, rho, rule'):
        opt.adjust_(state, betta=1)


def test_a_rule_inside_one_equals_the_rule() -> None:
    ours, theirs = layers(), layers()
    run(Around(opt.Adam(0.1)), ours)
    run(opt.Adam(0.1), theirs)
    assert bits(ours) == bits(theirs)


def test_init_and_apply_work_on_it() -> None:
    x, rule = np.ones(2), opt.OptimiserChain(Scale(0.5), opt.Descent(0.5))
    state = opt.init(rule, x)
    state, dx = opt.apply_(opt.adjust(rule, 0.25), state, x, np.ones(2))
    assert (dx == 0.0625).all() and state.state[0] == 1 and (x == 1).all()


def test_update_leaves_the_old_state_alone() -> None:
    x = np.ones(2)
    old = opt.setup(MyMomentum(), x)
    new, _ = opt.update(old, x, np.ones(2))
    assert old.state["steps"] == [0] and new.state["steps"] == [1]
    assert (old.state["v"] == 0).all()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_and_pickles_go_on_alike(copy_of: Any) -> None:
    model = layers()
    state = run(opt.OptimiserChain(opt.Adam(), MyMomentum(), opt.Momentum()), model)
    opt.adjust_(state, rho=0.5)
    other_model, other = copied(model), copy_of(state)
    for s, m in ((state, model), (other, other_model)):
        opt.update_(s, m, layers(seed=9))
    assert bits(model) == bits(other_model)
    assert other["layers"][0].bias.rule == state["layers"][0].bias.rule
    assert other["layers"][0].bias.state[1]["steps"] == [5]


def test_global_norm_before_and_behind_is_shared() -> None:
    for chain in ([opt.ClipNorm(1.0, scope="global"), Scale(1.0)], [Scale(1.0), opt.ClipNorm(1.0, scope="global")]):
        model, g = {"a": np.zeros(1), "b": np.zeros(1)}, {"a": np.array([3.0]), "b": np.array([4.0])}
        opt.update_(opt.setup(opt.OptimiserChain(*chain), model), model, g)
        np.testing.assert_allclose([model["a"][0], model["b"][0]], [-0.6, -0.8])


def test_mixed_precision_gives_it_the_master() -> None:
    seen = []

    def look(state: Any, x: Any, dx: Any) -> Any:
        seen.append((x.dtype.name, dx.dtype.name, float(x[0])))
        return state, dx

    x = np.ones(2, np.float16)
    state = opt.setup(opt.MixedPrecision(opt.OptimiserChain(opt.Descent(1e-5), Returning(look))), x)
    for _ in range(2):
        opt.update_(state, x, np.ones(2, np.float16))
    x[:] = 2
    opt.update_(state, x, np.ones(2, np.float16))
    assert [s[:2] for s in seen] == [("float32", "float32")] * 3
    np.testing.assert_allclose([s[2] for s in seen], [1, 1 - 1e-5, 2], rtol=1e-7)
    np.testing.assert_allclose(state.state[0], 2 - 1e-5, rtol=1e-7)


def test_segments_of_a_flat_vector() -> None:
    model = {"a": sized((2, 2), "float64", 1), "b": sized((3,), "float64", 2)}
    flat, re = opt.destructure(copied(model))
    tree_state, flat_state = opt.setup(MyMomentum(), model), opt.setup(MyMomentum(), flat, layout=re)
    for step in range(3):
        g = {"a": sized((2, 2), "float64", 10 + step), "b": None}
        opt.update_(tree_state, model, g)
        opt.update_(flat_state, flat, g)
    assert bits(re(flat)) == bits(model)
    assert flat_state["a"].state["v"].shape == (2, 2)


def test_a_state_in_a_cycle_with_its_rule_is_collected() -> None:
    class Local(opt.Rule):
        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            return state, dx

    state = opt.setup(Local(), np.ones(1))
    Local.holder = state  # type: ignore[attr-defined]
    gone = weakref.ref(state)
    del state, Local
    gc.collect()
    assert gone() is None
