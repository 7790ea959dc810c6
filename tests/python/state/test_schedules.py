"""Schedules: equal to torch's and optax's of the same name at every step, and plain values."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

import optimisers as opt
from optimisers import schedules as s

Function = Callable[[float], float]
PEAK, STEPS = 0.3, 60


def of_torch(make: Callable[[Any], Any], steps: int = STEPS) -> list[float]:
    """What a scheduler of torch gives, step by step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SequentialLR about its own calls
        scheduler = make(optimizer)
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return seen


TORCH: dict[str, tuple[Function, Callable[[Any], Any]]] = {
    "constant": (s.constant(PEAK), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "ConstantLR": (s.stepwise(PEAK / 3, {5: PEAK}), lambda o: lr_scheduler.ConstantLR(o, 1 / 3, 5)),
    "linear": (s.linear(PEAK / 3, PEAK, 5), lambda o: lr_scheduler.LinearLR(o, 1 / 3, 1.0, 5)),
    "linear down": (s.linear(PEAK, PEAK / 8, 50), lambda o: lr_scheduler.LinearLR(o, 1.0, 1 / 8, 50)),
    "polynomial": (s.polynomial(PEAK, 0.0, 40, 1.7), lambda o: lr_scheduler.PolynomialLR(o, 40, 1.7)),
    "exponential": (s.exponential(PEAK, 0.93), lambda o: lr_scheduler.ExponentialLR(o, 0.93)),
    "StepLR": (s.exponential(PEAK, 0.5, 7, staircase=True), lambda o: lr_scheduler.StepLR(o, 7, 0.5)),
    "stepwise": (s.stepwise(PEAK, {9: PEAK / 4, 31: PEAK / 16}), lambda o: lr_scheduler.MultiStepLR(o, [9, 31], 0.25)),
    "cosine": (s.cosine(PEAK, 0.01, STEPS), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.01)),
    "restarts": (
        s.restarts(s.cosine(PEAK, 0.01, 10), 10),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 1, 0.01),
    ),
    "restarts, longer each": (
        s.restarts(s.cosine(PEAK, 0.01, 7), 7, factor=2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 2, 0.01),
    ),
    "one_cycle": (s.one_cycle(PEAK, STEPS), lambda o: lr_scheduler.OneCycleLR(o, PEAK, STEPS)),
    "one_cycle, linear": (
        s.one_cycle(PEAK, STEPS, 0.41, 10.0, 100.0, "linear"),
        lambda o: lr_scheduler.OneCycleLR(o, PEAK, STEPS, None, None, 0.41, "linear", True, 0.85, 0.95, 10.0, 100.0),
    ),
    "warmup": (
        s.warmup(s.cosine(PEAK, 0.0, 50), 10, start=PEAK / 10),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 10), lr_scheduler.CosineAnnealingLR(o, 50)], [10]
        ),
    ),
    "join": (
        s.join([s.exponential(PEAK, 0.9), s.linear(PEAK / 2, PEAK, 6), s.exponential(PEAK, 0.8)], [13, 29]),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.ExponentialLR(o, 0.9),
                lr_scheduler.LinearLR(o, 0.5, 1.0, 6),
                lr_scheduler.ExponentialLR(o, 0.8),
            ],
            [13, 29],
        ),
    ),
    "CyclicLR": (
        s.restarts(s.piecewise({0: 0.1, 8: PEAK, 20: 0.1}), 20),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, PEAK, 8, 12, cycle_momentum=False),
    ),
    "wsd": (
        s.wsd(PEAK, STEPS, 10, 20),
        lambda o: lr_scheduler.LambdaLR(o, lambda i: min(i / 10, 1.0) if i < 40 else max((60 - i) / 20, 0.0)),
    ),
    "inverse square root": (  # transformers' get_inverse_sqrt_schedule
        s.warmup(s.inverse(PEAK, 1 / 10, 0.5), 10),
        lambda o: lr_scheduler.LambdaLR(o, lambda i: i / 10 if i < 10 else 1 / math.sqrt(i / 10)),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_equal_to_torch_at_every_step(name: str) -> None:
    mine, theirs = TORCH[name]
    np.testing.assert_allclose([mine(i) for i in range(STEPS)], of_torch(theirs), rtol=1e-10, atol=1e-15)


def optax_cases(optax: Any) -> dict[str, tuple[Function, Function]]:
    return {
        "constant": (s.constant(PEAK), optax.constant_schedule(PEAK)),
        "linear": (s.linear(PEAK, 0.02, 41), optax.linear_schedule(PEAK, 0.02, 41)),
        "polynomial": (s.polynomial(PEAK, 0.02, 41, 2.5), optax.polynomial_schedule(PEAK, 0.02, 2.5, 41)),
        "cosine": (s.cosine(PEAK, PEAK * 0.1, 41), optax.cosine_decay_schedule(PEAK, 41, 0.1)),
        "exponential": (s.exponential(PEAK, 0.5, 9, 0.01), optax.exponential_decay(PEAK, 9, 0.5, end_value=0.01)),
        "staircase": (
            s.exponential(PEAK, 0.5, 9, staircase=True),
            optax.exponential_decay(PEAK, 9, 0.5, staircase=True),
        ),
        "stepwise": (
            s.stepwise(PEAK, {7: PEAK / 2, 30: PEAK / 20}),
            optax.piecewise_constant_schedule(PEAK, {7: 0.5, 30: 0.1}),
        ),
        "piecewise": (
            s.piecewise({0: PEAK, 7: PEAK / 2, 30: PEAK / 20}),
            optax.piecewise_interpolate_schedule("linear", PEAK, {7: 0.5, 30: 0.1}),
        ),
        "piecewise, cosine": (
            s.piecewise({0: PEAK, 7: PEAK / 2, 30: PEAK / 20}, "cosine"),
            optax.piecewise_interpolate_schedule("cosine", PEAK, {7: 0.5, 30: 0.1}),
        ),
        "one cycle": (
            s.piecewise({0: PEAK / 25, int(0.3 * 50): PEAK, 50: PEAK / 25e4}, "cosine"),
            optax.cosine_onecycle_schedule(50, PEAK),
        ),
        "warmup, cosine": (
            s.warmup(s.cosine(PEAK, 0.03, 40), 10, start=0.05),
            optax.warmup_cosine_decay_schedule(0.05, PEAK, 10, 50, 0.03),
        ),
        "warmup, constant": (
            s.warmup(s.constant(PEAK), 10, start=0.05),
            optax.warmup_constant_schedule(0.05, PEAK, 10),
        ),
        "warmup, exponential": (
            s.warmup(s.exponential(PEAK, 0.7, 5), 10),
            optax.warmup_exponential_decay_schedule(0.0, PEAK, 10, 5, 0.7),
        ),
        "join": (
            s.join([s.linear(0.0, PEAK, 9), s.cosine(PEAK, 0.0, 30), s.constant(0.01)], [9, 35]),
            optax.join_schedules(
                [optax.linear_schedule(0, PEAK, 9), optax.cosine_decay_schedule(PEAK, 30), lambda i: 0.01],
                [9, 35],
            ),
        ),
        "restarts": (
            s.restarts(s.cosine(PEAK, 0.0, 10), 10, factor=2, decay=0.5),
            optax.join_schedules(
                [optax.cosine_decay_schedule(PEAK / 2**i, 10 * 2**i) for i in range(3)], [10, 30]
            ),
        ),
    }  # fmt: skip


def test_equal_to_optax_at_every_step() -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    for name, (mine, theirs) in optax_cases(optax).items():
        want = [float(theirs(i)) for i in range(STEPS)]
        np.testing.assert_allclose([mine(i) for i in range(STEPS)], want, rtol=2e-5, atol=1e-7, err_msg=name)


ALL = [mine for mine, _ in TORCH.values()] + [
    s.warmup_cosine(PEAK, 50, 7, 0.01),
    s.wsd(PEAK, 50, 10, 20, 0.01, "sqrt"),
    s.wsd(PEAK, 50, 10, 20, 0.01, "cosine"),
    s.warmup(s.constant(PEAK), 8, shape="cosine"),
    s.piecewise({3: 0.1, 9: 0.2}, "cosine"),
]


@pytest.mark.parametrize("mine", ALL, ids=str)
def test_schedules_are_values(mine: s.Schedule) -> None:
    again = pickle.loads(pickle.dumps(mine))
    assert again == mine and hash(again) == hash(mine) and repr(again) == repr(mine) and len({mine, again}) == 1
    assert eval(repr(mine), {name: getattr(s, name) for name in s.__all__}) == mine
    assert [again(i) for i in range(STEPS)] == [mine(i) for i in range(STEPS)]
    assert sum(other == mine for other in ALL) == 1 and mine != 3
    with pytest.raises(AttributeError, match="immutable"):
        mine.steps = 3  # type: ignore[attr-defined]


def test_a_schedule_keeps_what_it_was_given() -> None:
    values, parts, ends = {4: 0.5}, [s.constant(1.0), s.constant(2.0)], [3]
    steps, joined = s.stepwise(1.0, values), s.join(parts, ends)
    values[2], parts[1], ends[0] = 9.0, s.constant(9.0), 9
    assert steps(3) == 1.0 and joined(3) == 2.0 and steps == s.stepwise(1.0, {4: 0.5})


@given(
    peak=st.floats(1e-12, 1e6),
    end=st.floats(0, 1),
    steps=st.floats(0.5, 200),
    part=st.floats(0, 0.99),
    step=st.floats(-1, 400),
)
def test_no_schedule_leaves_its_bounds_for_fractional_arguments(
    peak: float, end: float, steps: float, part: float, step: float
) -> None:
    end = peak * end
    rise = part * steps
    for eta in (
        s.warmup_cosine(peak, steps, rise, end),
        s.linear(peak, end, steps),
        s.cosine(peak, end, steps),
        s.polynomial(peak, end, steps, 0.7),
        s.warmup(s.cosine(peak, end, steps), rise, shape="cosine"),
        s.warmup(s.cosine(peak, end, steps), rise),
        s.wsd(peak, steps, rise, steps - rise, end, "sqrt"),
        s.restarts(s.cosine(peak, end, steps), steps, 1.5),
        s.piecewise({0: end, rise + 1: peak, steps + 2: end}, "cosine"),
    ):
        assert 0 <= eta(max(step, 0)) <= peak, eta
    for eta in (s.warmup_cosine(peak, steps, rise, end), s.linear(peak, end, steps), s.cosine(peak, end, steps)):
        assert eta(steps) == end == eta(10 * steps), eta


def test_the_peak_is_reached_by_a_fractional_warmup() -> None:
    eta = s.warmup_cosine(1.0, 50, warmup=2.5)
    assert [eta(i) for i in range(3)] == [0.4, 0.8, 1.0] and max(eta(i) for i in range(60)) == 1.0


WRONG: list[Callable[[], Any]] = [
    lambda: s.linear(1.0, 0.0, 0),
    lambda: s.cosine(1.0, 0.0, -1),
    lambda: s.cosine(1.0, 0.0, math.nan),
    lambda: s.polynomial(1.0, 0.0, 5, 0),
    lambda: s.exponential(1.0, 0.0),
    lambda: s.inverse(1.0, -1.0),
    lambda: s.warmup(s.constant(1.0), -1),
    lambda: s.warmup(s.constant(1.0), 5, shape="sqrt"),
    lambda: s.warmup_cosine(1.0, 5, 5),
    lambda: s.piecewise({}),
    lambda: s.piecewise({0: 1.0}, "cubic"),
    lambda: s.wsd(1.0, 10, 6, 5),
    lambda: s.wsd(1.0, 10, 5, 0),
    lambda: s.one_cycle(1.0, 3),
    lambda: s.one_cycle(1.0, 30, 1.0),
    lambda: s.restarts(s.constant(1.0), 0),
    lambda: s.restarts(s.constant(1.0), 5, 0.5),
    lambda: s.join([s.constant(1.0)], [5]),
    lambda: s.join([s.constant(1.0)] * 3, [5, 5]),
    lambda: s.reduce_on_plateau(1.0),
    lambda: s.reduce_on_plateau(patience=-1),
    lambda: s.reduce_on_plateau(threshold=math.nan),
    lambda: s.reduce_on_plateau(mode="least"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: s.piecewise(0.1), "piecewise: points must be a dict from steps to numbers, got 0.1"),  # type: ignore[arg-type]
        (lambda: s.stepwise(0.1, [30, 60]), r"stepwise: values must be a dict .*got \[30, 60\]"),  # type: ignore[arg-type]
        (lambda: s.warmup(10, s.constant(1.0)), "warmup: schedule must be a schedule.*got 10"),  # type: ignore[arg-type]
        (lambda: s.join(s.constant(1.0), [5]), "join: schedules must be a list, got constant"),  # type: ignore[arg-type]
        (lambda: s.cosine("0.1", 0.0, 10), "cosine: start must be a number, got '0.1'"),  # type: ignore[arg-type]
        (lambda: s.linear(1.0, 0.0, None), "linear: steps must be a number, got None"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    assert s.linear(np.float32(1), 0, np.int64(4))(2) == s.linear(torch.tensor(1.0), 0, 4)(2) == 0.5


@pytest.mark.parametrize("wrong", range(len(WRONG)))
def test_arguments_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"must|need|point"):
        WRONG[wrong]()


LOSSES = [5, 4, 4, 3.9999, 4, 4.5, 4, 4, 4, 3, math.nan, 3, 3, 3, 3, 3, 3, 2.5, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"patience": 2},
        {"patience": 0, "factor": 0.5},
        {"patience": 1, "cooldown": 3},
        {"patience": 1, "threshold": 0.2},
        {"patience": 1, "threshold": 0.2, "threshold_mode": "abs"},
        {"patience": 1, "mode": "max"},
        {"patience": 2, "mode": "max", "threshold_mode": "abs", "threshold": 0.01},
    ],
    ids=str,
)
def test_reduce_on_plateau_equals_torch(arguments: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **arguments, eps=0.0)
    state = opt.setup(opt.Descent(PEAK), np.zeros(1))
    plateau = s.reduce_on_plateau(**arguments)
    for loss in LOSSES:
        before = state.rule.eta
        fell = plateau.observe_(state, loss)
        scheduler.step(loss)
        assert fell == (state.rule.eta < before)
        np.testing.assert_allclose(state.rule.eta, optimizer.param_groups[0]["lr"], rtol=1e-12)
        plateau = pickle.loads(pickle.dumps(plateau))


def test_reduce_on_plateau_keeps_ratios_and_stops_at_its_least_scale() -> None:
    state = opt.setup([opt.Descent(1.0), opt.Descent(0.1)], [np.zeros(1), np.zeros(1)])
    plateau = s.reduce_on_plateau(0.5, patience=0, min_scale=0.3)
    fell = [plateau.observe_(state, 1.0) for _ in range(5)]
    assert fell == [False, True, True, False, False]
    np.testing.assert_allclose([leaf.rule.eta for leaf in state], [0.3, 0.03])
    assert plateau != s.reduce_on_plateau(0.5, patience=0, min_scale=0.3)


def test_reduce_on_plateau_is_a_callback() -> None:
    x = np.zeros(1)
    state = opt.setup(opt.Descent(0.1), x)
    seen = s.reduce_on_plateau(0.5, patience=0, monitor=lambda info: 1.0 if info.step % 2 == 0 else None)
    opt.train_(lambda x: (1.0, np.zeros(1)), state, x, [()] * 6, callbacks=[seen], progress=False)
    assert state.rule.eta == 0.025, "observed at steps 2, 4 and 6"


def test_the_module_shows_its_names_and_answers_those_of_others() -> None:
    assert {name for name in dir(s) if not name.startswith("__")} == set(s.__all__)
    assert {name for name in vars(s) if not name.startswith("_")} == set(s.__all__)
    for name, ours in {
        "CosineAnnealingLR": "cosine", "cosine_decay_schedule": "cosine", "StepLR": "staircase",
        "OneCycleLR": "one_cycle",
        "SequentialLR": "join", "warmup_cosine_decay_schedule": "warmup", "ReduceLROnPlateau": "reduce_on_plateau",
        "Cosine": "cosine", "onecycle": "one_cycle", "warmupp": "warmup",
    }.items():  # fmt: skip
        with pytest.raises(AttributeError, match=f"; .*{ours}"):
            getattr(s, name)
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'$"):
        s.xyzzy  # noqa: B018
