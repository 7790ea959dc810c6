"""leaf.clock is set by name: t and what follows from it."""

import numpy as np
import pytest
import support

import optimisers as opt

COUNTING = [
    cls for cls in opt.RULES if "t" in dict(opt.setup(cls(*[2] * (cls.__name__ == "AccumGrad")), np.ones((1, 1))).clock)
]


def after(rule, steps):
    x = np.ones((3, 1))
    state = opt.setup(rule, x)
    for _ in range(steps):
        opt.update_(state, x, np.full((3, 1), 0.5))
    return state


def follows(clock, cls):
    """What t says; what a rule has measured (NovoGrad's v, Prodigy's d), no count of steps does."""
    return {name: value for name, value in dict(clock).items() if not cls._sums or name == "t" or "beta" in name}


@pytest.mark.parametrize("cls", COUNTING, ids=lambda cls: cls.__name__)
def test_t_counts_steps_and_sets_what_follows_from_it(cls):
    state, fresh = after(cls(), 5), after(cls(), 0)
    assert state.clock.t == 5
    fresh.clock = {"t": 5}
    assert follows(fresh.clock, cls) == follows(state.clock, cls)
    fresh.clock = {"t": 0}
    assert follows(fresh.clock, cls) == follows(after(cls(), 0).clock, cls)
    fresh.clock = state.clock
    assert fresh.clock == state.clock


def test_every_rule_with_products_of_beta_counts():
    for cls in opt.RULES:
        names = dict(opt.setup(support.build((cls.__name__, support.needed(cls.__name__))), np.ones((1, 1))).clock)
        assert "t" in names or not any(name.startswith("beta") for name in names), cls.__name__
    assert len(COUNTING) >= 8


def test_steps_beyond_the_end_of_the_products_are_kept():
    state = after(opt.Adam(), 0)
    state.clock = {"t": 10**9}
    assert state.clock.t == 1e9 and state.clock.beta1_t < 1e-300
    opt.update_(state, np.ones((3, 1)), np.ones((3, 1)))
    assert state.clock.t == 1e9 + 1


def test_names_go_to_every_stage_that_has_them():
    chain = opt.OptimiserChain(
        opt.AccumGrad(3), opt.OptimiserChain(opt.Adam(), opt.ClipNorm()), opt.RAdam(beta=(0.5, 0.75))
    )
    state = after(chain, 0)
    state.clock = {"t": 2, "calls": 1}
    assert (state.clock[0].calls, state.clock[1][0].beta1_t, state.clock[2].beta2_t) == (1, 0.9 * 0.9, 0.75 * 0.75)
    other = after(chain, 4)
    other.clock = state.clock
    assert other.clock == state.clock
    state.clock = {"t": 7, "beta1_t": 0.125}
    assert (state.clock[2].t, state.clock[2].beta1_t, state.clock[2].beta2_t) == (7, 0.125, 0.75 * 0.75)


@pytest.mark.parametrize(
    "given", [{"s": 1}, {"t": -1}, {"t": 1.5}, {"t": float("nan")}, {"t": 1, "beta1_t": None}, {"t": True}]
)
def test_what_is_no_clock_is_refused_and_changes_nothing(given):
    state = after(opt.Adam(), 3)
    before = state.clock
    with pytest.raises(ValueError, match="clock: "):
        state.clock = given
    with pytest.raises(TypeError, match="by name"):
        state.clock = 5
    with pytest.raises(ValueError, match="none"):
        opt.setup(opt.Descent(), np.ones(2)).clock = {"t": 1}
    assert state.clock == before
