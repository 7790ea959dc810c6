"""adjust_ and adjust: by factor, by a whole rule, by class of stage; all of it or nothing."""

from __future__ import annotations

import signal
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import everything, layers, trained

import optimisers as opt

CHAIN = opt.OptimiserChain(opt.ClipNorm(5.0), opt.WeightDecay(1e-3), opt.Momentum(0.1))


@dataclass(frozen=True)
class Scaling(opt.Rule):
    eta: float = 0.5
    inner: opt.Rule = opt.Momentum(0.25)  # noqa: RUF009  a rule is immutable

    def init(self, x: Any) -> Any:
        return 0

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return state + 1, self.eta * dx


@dataclass(frozen=True)
class Scaled(Scaling):
    scale: float = 1.0


def etas(state: Any) -> list[float]:
    return [leaf["bias"].rule.eta for leaf in state["layers"]]


def two_rates(n: int = 3) -> Any:
    model = layers(n)
    state = trained(opt.Momentum(0.1), model)
    opt.adjust_(state["layers"][0], 0.4)
    return model, state


def test_scale_multiplies_each_learning_rate_and_keeps_slots() -> None:
    _model, state = two_rates()
    slots = [leaf["bias"].state.v.copy() for leaf in state["layers"]]
    assert opt.adjust_(state, scale=0.5) is state
    assert etas(state) == [0.2, 0.05, 0.05]
    assert all((a == leaf["bias"].state.v).all() for a, leaf in zip(slots, state["layers"], strict=True))
    halved = opt.adjust(state, scale=0.5, rho=0.5)
    assert etas(halved) == [0.1, 0.025, 0.025] and etas(state) == [0.2, 0.05, 0.05]
    assert halved["layers"][1]["bias"].rule.rho == 0.5
    assert opt.adjust(CHAIN, scale=2)[2].eta == 0.2
    assert opt.adjust_(state["layers"][0], scale=np.float32(0.5)) is not None and etas(state)[0] == 0.1


def test_scale_reaches_rules_written_in_python_and_rules_inside_them() -> None:
    state = opt.setup([opt.OptimiserChain(opt.Descent(0.1), Scaling()), opt.Descent(1.0)], [np.ones(2), np.ones(2)])
    opt.adjust_(state, scale=0.5)
    chain = state[0].rule
    assert (chain[0].eta, chain[1].eta, chain[1].inner.eta, state[1].rule.eta) == (0.05, 0.25, 0.125, 0.5)
    assert opt.adjust(Scaling(), scale=2.0) == Scaling(1.0, opt.Momentum(0.5))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"scale": -1.0}, "eta"),
        ({"scale": np.nan}, "eta"),
        ({"scale": 1e308}, "eta"),
        ({"scale": "half"}, "scale"),
        ({"scale": None}, "scale"),
        ({"scale": 0.5, "eta": 0.1}, "both"),
        ({"scale": 0.5, "rho": 2.0}, "rho"),
        ({"scale": 0.5, "betta": 2.0}, "betta"),
    ],
)
def test_a_scale_that_is_refused_changes_nothing(wrong: Any, message: str) -> None:
    model, state = two_rates()
    opt.adjust_(state["layers"][0], 1e10)
    before = everything(model, state)
    for call in (opt.adjust_, opt.adjust):
        with pytest.raises((ValueError, TypeError), match=message):
            call(state, **wrong)
        assert everything(model, state) == before


def test_scale_without_a_learning_rate_or_beside_a_field_of_that_name_is_refused() -> None:
    with pytest.raises(ValueError, match="eta"):
        opt.adjust_(opt.setup(opt.AdaDelta(), np.ones(2)), scale=0.5)
    state = opt.setup(Scaled(), np.ones(2))
    with pytest.raises(ValueError, match=r"field of its own.*\{Scaled"):
        opt.adjust_(state, scale=0.5)
    assert opt.adjust_(state, {Scaled: {"scale": 2.0}}).rule == Scaled(scale=2.0)


def test_a_whole_rule_takes_the_place_of_one_with_its_structure() -> None:
    model = layers(3)
    state = trained(CHAIN, model)
    other = opt.OptimiserChain(opt.ClipNorm(1.0, throw=False), opt.WeightDecay(0.0), opt.Momentum(0.3, rho=0.5))
    before = [leaf["bias"].state[2].v.copy() for leaf in state["layers"]]
    changed = opt.adjust(state, other)
    assert state["layers"][0]["bias"].rule == CHAIN and changed["layers"][0]["bias"].rule == other
    opt.adjust_(state["layers"][1], other)
    assert [leaf["bias"].rule for leaf in state["layers"]] == [CHAIN, other, CHAIN]
    assert all((a == leaf["bias"].state[2].v).all() for a, leaf in zip(before, state["layers"], strict=True))
    assert opt.adjust(CHAIN, other) is other
    mine = opt.setup(opt.OptimiserChain(opt.Descent(), Scaling()), np.ones(2))
    assert opt.adjust_(mine, opt.OptimiserChain(opt.Descent(2), Scaling(3, opt.Momentum(4)))).rule[1].inner.eta == 4
    x = np.ones(2)
    assert (opt.update_(mine, x, np.ones(2))[1] == -5).all(), "the new hyperparameters are what is computed with"


@pytest.mark.parametrize(
    "rule",
    [
        opt.Momentum(),
        opt.OptimiserChain(opt.ClipNorm(), opt.Momentum(), opt.WeightDecay()),
        opt.MixedPrecision(CHAIN),
        opt.OptimiserChain(CHAIN, Scaling()),
    ],
    ids=["other", "order", "mixed", "longer"],
)
def test_a_rule_of_another_structure_is_refused_with_the_path(rule: opt.Rule) -> None:
    model = layers(3)
    state = trained(CHAIN, model)
    before = everything(model, state)
    for call in (opt.adjust_, opt.adjust):
        with pytest.raises(ValueError, match=r'"layers.*setup'):
            call(state, rule)
        assert everything(model, state) == before
    with pytest.raises(ValueError, match="setup"):
        opt.adjust(CHAIN, rule)
    with pytest.raises(ValueError, match="setup"):
        opt.adjust_(opt.setup(opt.RMSProp(centred=True), np.ones(1)), opt.RMSProp())
    with pytest.raises(TypeError, match="whole rule"):
        opt.adjust_(state, CHAIN, rho=0.5)


def test_one_leaf_of_another_structure_keeps_all_as_they_are() -> None:
    state = opt.setup({"a": opt.Momentum(), "b": opt.Adam()}, {"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(ValueError, match='"b"'):
        opt.adjust_(state, opt.Momentum(0.5))
    assert state["a"].rule == opt.Momentum()


def test_a_dict_from_classes_changes_these_stages_only() -> None:
    rule = opt.OptimiserChain(opt.RMSProp(0.1, rho=0.9), opt.Momentum(0.2, rho=0.8), Scaling())
    for r in (rule, opt.OptimiserChain(rule[0], rule[1])):
        state = opt.setup(r, np.ones(2))
        new = opt.adjust_(state, {opt.Momentum: {"rho": 0.5}, opt.RMSProp: {"eta": 0.3}}).rule
        assert (new[0].rho, new[0].eta, new[1].rho, new[1].eta) == (0.9, 0.3, 0.5, 0.2)
        assert opt.adjust(r, {opt.Momentum: {"rho": 0.5}, opt.RMSProp: {"eta": 0.3}}) == new
    assert opt.adjust_(opt.setup(rule, np.ones(2)), {Scaling: {"eta": 4.0}}).rule[2].eta == 4.0
    decay = opt.setup(opt.AdamW(lambda_=0.1), np.ones(1))
    assert opt.adjust_(decay, {opt.AdamW: {"lambda_": 0.2}}).rule.lambda_ == 0.2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({opt.Adam: {"eta": 0.1}}, "no rule is a Adam; rules are ClipNorm, Momentum, WeightDecay"),
        ({opt.Momentum: {"omega": 0.1}}, 'Momentum has no field "omega"; fields are eta, rho'),
        ({opt.Momentum: {"rho": 2.0}}, r"Momentum: rho must be .*\[0, 1\)"),
        ({opt.ClipNorm: {"omega": 1.0}, opt.Momentum: {"rho": "x"}}, "rho must be a number"),
        ({opt.Momentum: 0.1}, "dict from fields"),
        ({"eta": 0.1}, "keys of a dict are classes"),
        ({}, "nothing to change"),
        (opt.Momentum, r"write Momentum\("),
    ],
)
def test_a_dict_that_fits_nothing_changes_nothing(wrong: Any, message: str) -> None:
    model = layers(3)
    state = trained(CHAIN, model)
    before = everything(model, state)
    with pytest.raises((ValueError, TypeError), match=message):
        opt.adjust_(state, wrong)
    assert everything(model, state) == before


def test_levelling_different_learning_rates_warns_once_and_names_scale() -> None:
    model, state = two_rates()
    before = everything(model, state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"from 0\.1 to 0\.4.*scale="):
            opt.adjust_(state, 0.2)
        assert everything(model, state) == before, "a call that raises has changed nothing"
        opt.adjust_(state, {opt.Momentum: {"eta": 0.3}}), opt.adjust_(state, 0.2), opt.adjust_(state, rho=0.5)
        opt.adjust_(state["layers"][0], 0.1), opt.adjust_(state, scale=2)
    with pytest.warns(UserWarning, match="scale=") as caught:
        for _ in range(3):
            opt.adjust_(state, 0.2)
    assert len(caught) == 1 and caught[0].filename == __file__ and etas(state) == [0.2] * 3
    mixed = opt.setup([Scaling(0.1, opt.Descent(0.1)), opt.Descent(0.2)], [np.ones(1), np.ones(1)])
    with pytest.warns(UserWarning, match="scale=") as caught:
        opt.adjust_(mixed, 0.3)
    assert caught[0].filename == __file__


def test_an_interrupt_while_hyperparameters_change_changes_all_or_none() -> None:
    model = [np.ones(1) for _ in range(300)]
    state = opt.setup(opt.OptimiserChain(opt.Momentum(0.1), Scaling()), model)

    armed = False

    def interrupt(*_: Any) -> None:
        if armed:
            raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    value, interrupted = 0.1, 0
    try:
        for delay in range(1, 40):
            signal.setitimer(signal.ITIMER_REAL, 2e-4 * delay)
            try:
                armed = True
                opt.adjust_(state, rho=(value := value + 1e-3))
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert len({leaf.rule for leaf in state}) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert interrupted, "no call was interrupted: the test looks at nothing"


def test_an_apply_that_raises_keeps_the_rule_of_the_state() -> None:
    state = opt.init(opt.OptimiserChain(opt.ClipNorm(), opt.Momentum(0.1)), np.ones(2))
    other = opt.OptimiserChain(opt.ClipNorm(2.0), opt.Momentum(0.5))
    with pytest.raises(FloatingPointError):
        opt.apply_(other, state, np.ones(2), np.array([np.nan, 1.0]))
    assert state.rule[1].eta == 0.1
    opt.apply_(other, state, np.ones(2), np.ones(2))
    assert state.rule == other
