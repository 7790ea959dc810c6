"""Laws of the two stages that hold back: AccumGrad stops a chain, MixedPrecision keeps a wider copy of the leaf."""

import numpy as np
import pytest
from support import (
    arrays,
    bits,
    build,
    fingerprint,
    layers,
    leaf_bits,
    plain_rules,
    sized,
    spec_id,
    to_numpy,
)

import optimisers as opt

EVERY_RULE = pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)

# ------------------------------------------------------------------------------------------------ AccumGrad


def accumulating(n, *rest):
    return opt.OptimiserChain(opt.AccumGrad(n), *rest)


@EVERY_RULE
def test_nothing_behind_an_accumulation_moves_before_it_fires(spec):
    x = sized((9,), "float64", 1)
    state = opt.setup(accumulating(3, build(spec)), x)
    before = bits(x, list(arrays(tuple(state.state[1]))))
    for seed in (2, 3):
        opt.update_(state, x, sized((9,), "float64", seed))
        assert bits(x, list(arrays(tuple(state.state[1])))) == before
    opt.update_(state, x, sized((9,), "float64", 4))
    moves_nothing_yet = {"AccumGrad", "ADOPT"}
    assert bits(x) != bits(sized((9,), "float64", 1)) or spec[0] in moves_nothing_yet


def run_with(rule, grads):
    x = sized((9,), "float64", 1)
    state = opt.setup(rule, x)
    for g in grads:
        opt.update_(state, x, g)
    return leaf_bits(x, state)


def test_accumulation_takes_a_missing_gradient_for_zero():
    g = [sized((9,), "float64", i) for i in range(6)]
    zero = np.zeros(9)
    rule = accumulating(3, opt.Adam())
    assert run_with(rule, [g[0], None, g[2], None, g[4], None]) == run_with(rule, [g[0], zero, g[2], zero, g[4], zero])


def test_a_read_only_leaf_is_refused_where_it_might_be_written_without_a_gradient():
    """The accumulation would fire on what it has."""
    x = sized((9,), "float64", 1)
    model = {"x": x, "y": x.copy()}
    state = opt.setup(accumulating(2, opt.Momentum()), model)
    opt.update_(state, model, {"x": x.copy(), "y": x.copy()})
    x.flags.writeable = False
    before = fingerprint(model, state)
    with pytest.raises(ValueError, match='"x" is read-only'):
        opt.update_(state, model, {"y": sized((9,), "float64", 2)})
    assert fingerprint(model, state) == before
    opt.freeze_(state["x"])
    opt.update_(state, model, {"y": sized((9,), "float64", 2)})


def test_accumulation_of_missing_gradients_only_leaves_the_leaf_untouched():
    g = [sized((9,), "float64", i) for i in range(6)]
    rule = accumulating(3, opt.Adam())
    assert run_with(rule, g[:3] + [None] * 3 + g[3:]) == run_with(rule, g)


def test_accumulation_does_not_count_a_frozen_leaf():
    model = layers()
    state = opt.setup(accumulating(2, opt.Momentum()), model)
    opt.update_(state, model, layers(3, "float32", 100))
    opt.freeze_(state["layers"][0])
    before = fingerprint(model, state)
    opt.update_(state, model, layers(3, "float32", 150))
    opt.thaw_(state["layers"][0])
    assert fingerprint(model, state)[:2] == before[:2]
    opt.update_(state, model, layers(3, "float32", 200))
    after = fingerprint(model, state)
    assert all(after[i][0] != before[i][0] for i in range(6))


def test_second_accumulation_counts_firings():
    x = sized((9,), "float64", 1)
    state = opt.setup(accumulating(2, opt.AccumGrad(3), opt.Descent(1)), x)
    moved = []
    for seed in range(12):
        before = bits(x)
        opt.update_(state, x, sized((9,), "float64", 10 + seed))
        moved.append(bits(x) != before)
    assert moved == [False] * 5 + [True] + [False] * 5 + [True]


# -------------------------------------------------------------------------------------------- MixedPrecision


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@EVERY_RULE
def test_mixed_precision_leaf_is_its_rounded_master(spec, dtype):
    x = sized((37,), dtype, 1)
    master = x.astype(np.float32)
    state = opt.setup(opt.MixedPrecision(build(spec)), x)
    alone = opt.setup(build(spec), master)
    for seed in range(6):
        g = sized((37,), dtype, 100 + seed)
        opt.update_(state, x, g)
        opt.update_(alone, master, g.astype(np.float32))
        kept, inner = state.state
        assert bits(kept) == bits(master)
        assert bits(x) == bits(master.astype(x.dtype))
        assert {to_numpy(s).dtype.name for s in arrays(tuple(inner))} <= {"float32"}


def test_mixed_precision_keeps_steps_too_small_for_the_leaf():
    x = np.ones(4, np.float16)
    state = opt.setup(opt.MixedPrecision(opt.Descent(1e-4)), x)
    for _ in range(10):
        opt.update_(state, x, np.ones(4, np.float16))
    assert np.all(x == np.float16(0.999))


@pytest.mark.parametrize("dtype, size", [("float16", 8), ("bfloat16", 8), ("bfloat16", 69)])
def test_master_takes_a_leaf_edited_from_outside_and_only_that_element(dtype, size):
    x = sized((size,), dtype, 1)
    g = np.ones(size, x.dtype)
    state = opt.setup(opt.MixedPrecision(opt.Descent(1e-5)), x)
    for _ in range(3):
        opt.update_(state, x, g)
    master = np.array(state.state[0])
    for at in (3, size - 2):
        x[at], master[at] = 0.25, 0.25
    opt.update_(state, x, g)
    assert np.array_equal(state.state[0], master - np.float32(1e-5))
    assert bits(x) == bits(np.asarray(state.state[0]).astype(x.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_leaf_already_as_wide_has_no_master(dtype):
    x, y = sized((9,), dtype, 1), sized((9,), dtype, 1)
    state, plain = opt.setup(opt.MixedPrecision(opt.Adam()), x), opt.setup(opt.Adam(), y)
    for seed in range(3):
        opt.update_(state, x, sized((9,), dtype, 100 + seed))
        opt.update_(plain, y, sized((9,), dtype, 100 + seed))
    assert bits(x) == bits(y)
    assert state.state[0] is None


@pytest.mark.parametrize("dtype, master", [("float32", "float64"), ("float16", "float64"), ("complex64", "complex128")])
def test_master_in_double(dtype, master):
    x = sized((9,), dtype, 1)
    start = x.astype(master)
    state = opt.setup(opt.MixedPrecision(opt.Adam(), "float64"), x)
    alone = opt.setup(opt.Adam(), start)
    for seed in range(3):
        g = sized((9,), dtype, 100 + seed)
        opt.update_(state, x, g)
        opt.update_(alone, start, g.astype(master))
    assert bits(state.state[0]) == bits(start) and bits(x) == bits(start.astype(dtype))
