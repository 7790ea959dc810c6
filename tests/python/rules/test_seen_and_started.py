"""What stages see beside dx, the gradient, and slots that start at the parameter; averages and projections built so."""

import numpy as np
import pytest
from support import bits, sized, slots, wide

import optimisers as opt

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64"]
C = opt.OptimiserChain


def signs(x):
    return np.sign(x.astype(np.float64))


def test_a_stage_sees_the_gradient_and_not_what_others_made_of_it():
    """Momentum points the other way at first, then the gradient turns."""
    x = np.zeros(3)
    state = opt.setup(C(opt.Momentum(1.0, 0.9), opt.ClipGrad(10.0), opt.Grams()), x)
    opt.update_(state, x, np.array([2.0, -2.0, 2.0]))
    before = x.copy()
    opt.update_(state, x, np.array([-0.5, 0.5, 0.0]))
    assert np.allclose(before - x, [-1.3, 1.3, 0.0])


def test_behind_a_gate_the_gradient_is_what_the_gate_lets_out():
    chain = C(opt.Descent(-1.0 + 2.0), opt.AccumGrad(2), opt.Momentum(1.0, 0.5), opt.Grams())
    x = np.zeros(2)
    state = opt.setup(chain, x)
    for g in ([4.0, -4.0], [-2.0, 3.0]):  # their means: 1, -0.5
        opt.update_(state, x, np.array(g))
    assert np.allclose(x, [-1.0, 0.5])
    for g in ([-1.0, 1.0], [0.5, 0.0]):
        opt.update_(state, x, np.array(g))
    assert np.allclose(x, [-1.0 + 0.25, 0.5 - 0.25])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 511, 513, 1700])
def test_the_gradient_is_seen_in_any_layout_and_type(dtype, size):
    rule = C(opt.WeightDecay(0.5), opt.Momentum(1.0, 0.9), opt.SignDecay(0.1), opt.Grams(), opt.ClipNorm(0.5))
    x, strided = sized((size,), dtype, 1), np.zeros((size, 2), sized((1,), dtype, 1).dtype)[:, 0]
    strided[...] = x
    states = opt.setup(rule, x), opt.setup(rule, strided)
    for seed in range(4):
        g = sized((size,), dtype, 10 + seed)
        before = wide(x)
        opt.update_(states[0], x, g)
        opt.update_(states[1], strided, np.repeat(g, 2)[::2])
        if dtype in ("float32", "float64"):
            assert (signs(before - wide(x)) == signs(g)).all()
    assert bits(x, slots(states[0])) == bits(strided.copy(), slots(states[1]))


def test_the_gradient_of_a_tied_leaf_is_the_sum():
    x = np.zeros(1)
    state = opt.setup(C(opt.Momentum(1.0, 0.0), opt.Grams()), {"a": x, "b": x})
    opt.update_(state, {"a": x, "b": x}, {"a": np.array([3.0]), "b": np.array([-4.0])})
    assert x[0] == 1.0


def test_a_parameter_that_is_its_own_gradient_is_seen_as_if_copied_first():
    x, twin = sized((700,), "float32", 1), sized((700,), "float32", 1)
    rule = C(opt.Momentum(1.0, 0.9), opt.WeightDecay(0.1), opt.Grams())
    states = opt.setup(rule, x), opt.setup(rule, twin)
    for _ in range(3):
        opt.update_(states[0], x, x)
        opt.update_(states[1], twin, twin.copy())
    assert bits(x) == bits(twin)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", [opt.Ema(), opt.Lookahead(), opt.ScheduleFree()], ids=repr)
def test_slots_start_at_the_parameter_whatever_its_layout(rule, dtype):
    x = sized((300, 7), dtype, 1)
    compute = np.float32 if x.itemsize == 2 else x.dtype
    for view in (x, x.T, x[::2], x[::-1]):
        for state in (opt.setup(rule, view), opt.setup(C(opt.Adam(), rule), view)):
            slot = slots(state)[-1]
            assert slot.dtype == compute and np.array_equal(slot, view.astype(compute))
    wider = opt.setup(opt.MixedPrecision(C(opt.Adam(), rule), "float64"), x)
    assert np.array_equal(slots(wider)[-1], x.astype(np.complex128 if dtype == "complex64" else np.float64))
    added = opt.extend_(opt.setup(rule, {"a": x}), {"a": x, "b": x.copy()}, rule)
    assert np.array_equal(slots(added["b"])[-1], x.astype(compute))


def test_an_average_of_a_16_bit_leaf_does_not_stand_still():
    x = np.ones(3, np.float16)
    state = opt.setup(C(opt.Descent(1.0), opt.Ema(0.999)), x)
    opt.update_(state, x, np.full(3, 0.5, np.float16))
    for _ in range(2000):
        opt.update_(state, x, np.zeros(3, np.float16))
    assert np.allclose(state.state[1].a, 0.5 + 0.5 * 0.999**2001, rtol=1e-4)


def test_weights_of_a_schedule_free_average_go_on_growing_in_bfloat16():
    """Where they are summed in the leaf's type, c stops at about 1/256."""
    x = sized((4,), "bfloat16", 1)
    state = opt.setup(C(opt.Descent(1e-3), opt.ScheduleFree()), x)
    for step in range(1000):
        opt.update_(state, x, sized((4,), "bfloat16", step))
    assert state.clock[-1].weights == 1000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_box_is_never_left(dtype):
    rng = np.random.default_rng(3)
    low, high = (float(np.asarray(v).astype(sized((1,), dtype, 1).dtype)) for v in (-0.1, 0.7))
    x = sized((4000,), dtype, 1, 0.0, 3.0)
    state = opt.setup(C(opt.Descent(1.0), opt.Box((low, high))), x)
    for _ in range(20):
        opt.update_(state, x, (rng.normal(size=4000) * 10.0 ** rng.integers(-6, 3, 4000)).astype(x.dtype))
        assert (wide(x) >= low).all() and (wide(x) <= high).all()
    assert (np.isclose(wide(x), low).sum() > 100) and (np.isclose(wide(x), high).sum() > 100)


def test_what_is_not_negative_is_exact_and_nan_stays():
    x = np.array([0.3, 0.3, 1e-30, np.nan], np.float32)
    state = opt.setup(C(opt.Descent(1.0), opt.NonNegative()), x)
    opt.update_(state, x, np.array([0.1, 5.0, 1e-20, 1.0], np.float32))
    assert x[0] == np.float32(0.3) - np.float32(0.1) and x[1] == 0 and x[2] == 0 and np.isnan(x[3])
    opt.update_(state, x, np.array([np.nan, 0, 0, 0], np.float32))
    assert np.isnan(x[0])
