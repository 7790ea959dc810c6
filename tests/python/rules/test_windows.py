"""Laws of AccumGrad's windows: what `flush_` makes of one that is not full, and of a change of n within one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import arrays, bits, build, everything, layers, leaf_bits, plain_rules, sized, spec_id
from user_rules import Scale

import optimisers as opt

EVERY_RULE = pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


def chain(n: int, *rest: opt.Rule) -> opt.Rule:
    return opt.OptimiserChain(opt.AccumGrad(n), *rest)


def gradients(count: int, dtype: str = "float64", seed: int = 10) -> list[np.ndarray]:
    return [sized((9,), dtype, seed + i) for i in range(count)]


def trained(rule: opt.Rule, grads: list[Any], dtype: str = "float64", *, flushed: bool = False) -> tuple[Any, Any]:
    x = sized((9,), dtype, 1)
    state = opt.setup(rule, x)
    for g in grads:
        opt.update_(state, x, g)
    if flushed:
        opt.flush_(state, x)
    return x, state


# ------------------------------------------------------------------------------------------------------ flush_


@pytest.mark.parametrize("calls", [1, 2, 4])
@pytest.mark.parametrize("spec", [s for s in plain_rules() if s[0] != "AccumGrad"], ids=spec_id)
def test_flushed_window_is_a_full_one_of_as_many_calls(spec: Any, calls: int) -> None:
    """Of powers of two the mean is weighed anew without rounding."""
    grads = gradients(calls)
    flushed = trained(chain(8, build(spec)), grads, flushed=True)
    full = trained(chain(calls, build(spec)), grads)
    assert bits(flushed[0]) == bits(full[0]) and bits(list(arrays(flushed[1].state[1]))) == bits(
        list(arrays(full[1].state[1]))
    )
    assert flushed[1].clock == full[1].clock
    opt.adjust_(flushed[1], n=2)
    opt.adjust_(full[1], n=2)
    for g in gradients(4, seed=50):  # and a new window begins
        for x, state in (flushed, full):
            opt.update_(state, x, g)
    assert leaf_bits(*flushed) == leaf_bits(*full)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, calls", [(5, 3), (7, 6), (3, 1), (100, 7)])
def test_flushed_mean_is_that_of_float64(dtype: str, n: int, calls: int) -> None:
    grads = gradients(calls, dtype)
    x, _ = trained(chain(n, opt.Descent(0.5)), grads, dtype, flushed=True)
    wide = "complex128" if "complex" in dtype else "float64"
    want = sized((9,), dtype, 1).astype(wide) - 0.5 * sum(g.astype(wide) for g in grads) / calls
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-14, "complex128": 1e-14}.get(dtype, 1e-6)
    np.testing.assert_allclose(x.astype(wide), want, rtol=tolerance, atol=tolerance)


def test_missing_gradients_of_the_window_count_as_zero() -> None:
    g = gradients(2)
    x, _ = trained(chain(8, opt.Descent(1.0)), [g[0], None, None, g[1]], flushed=True)
    assert np.array_equal(x, sized((9,), "float64", 1) - (g[0] + g[1]) / 4)


@pytest.mark.parametrize("calls", [[], [None], [None, None], ["full"]])
def test_where_nothing_is_held_nothing_changes(calls: list[Any]) -> None:
    grads = gradients(3) if calls == ["full"] else calls
    x, state = trained(chain(3, opt.ClipNorm(1.0), opt.AccumGrad(1), opt.Adam()), grads)
    before = leaf_bits(x, state)
    assert opt.flush_(state, x)[0] is state
    assert leaf_bits(x, state) == before


@EVERY_RULE
def test_rules_without_windows_are_left_alone(spec: Any) -> None:
    x, state = trained(build(spec), gradients(3))
    before = leaf_bits(x, state)
    opt.flush_(state, x)
    assert leaf_bits(x, state) == before


def test_a_frozen_leaf_is_not_flushed() -> None:
    model = layers()
    state = opt.setup(chain(3, opt.Momentum()), model)
    opt.update_(state, model, layers(seed=100))
    opt.freeze_(state["layers"][1])
    before = everything(model["layers"][1], state["layers"][1])
    opt.flush_(state, model)
    assert everything(model["layers"][1], state["layers"][1]) == before
    assert state["layers"][0]["weight"].clock[0].calls == 0 and state["layers"][1]["weight"].clock[0].calls == 1
    opt.thaw_(state)
    opt.flush_(state["layers"][1], model["layers"][1])  # a part of a tree alone
    assert state["layers"][1]["weight"].clock[0].calls == 0
    assert everything(model["layers"][1], state["layers"][1]) != before


@pytest.mark.parametrize("calls", range(7))
def test_windows_within_windows_are_flushed_from_the_first_that_holds_something(calls: int) -> None:
    """Means of two gradients, and of up to three of those; in float64 by hand."""
    g = gradients(calls)
    x, state = trained(chain(2, opt.AccumGrad(3), opt.Descent(1.0)), g, flushed=True)
    firings = [np.mean(g[i : i + 2], axis=0) for i in range(0, calls, 2)]
    full, rest = firings[:3] if calls >= 6 else [], firings[3:] if calls >= 6 else firings
    want = sized((9,), "float64", 1) - sum(np.mean(part, axis=0) for part in (full, rest) if part)
    np.testing.assert_allclose(x, want, rtol=1e-14)
    assert not any(any(dict(c).values()) for c in state.clock)


def test_gates_in_the_middle_let_the_stages_before_them_rest() -> None:
    g = gradients(3)
    rule = opt.OptimiserChain(opt.Momentum(1.0, 0.5), opt.AccumGrad(4), opt.ClipNorm(100.0), opt.Descent(1.0))
    x, state = trained(rule, g)
    v = state.state[0].v.copy()
    opt.flush_(state, x)
    velocities = [g[0], 0.5 * g[0] + g[1], 0.25 * g[0] + 0.5 * g[1] + g[2]]
    np.testing.assert_allclose(x, sized((9,), "float64", 1) - np.mean(velocities, axis=0), rtol=1e-14)
    assert np.array_equal(state.state[0].v, v)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_master_copies_take_what_is_flushed(dtype: str) -> None:
    grads = gradients(2, dtype)
    x, state = trained(opt.MixedPrecision(chain(8, opt.Adam(0.1)), "float64"), grads, dtype, flushed=True)
    y, full = trained(opt.MixedPrecision(chain(2, opt.Adam(0.1)), "float64"), grads, dtype)
    assert bits(x, state.state[0]) == bits(y, full.state[0])


def test_ties_and_layouts_are_flushed_once() -> None:
    w = np.arange(6.0).reshape(2, 3)
    model = {"a": w.copy(), "c": np.ones(2)}
    model["b"] = model["a"].T
    flat, re = opt.destructure(model)
    states = opt.setup(chain(4, opt.Adam(0.1)), model), opt.setup(chain(4, opt.Adam(0.1)), flat, layout=re)
    g = {"a": w + 1, "b": w.T + 2, "c": None}
    for _ in range(3):
        opt.update_(states[0], model, g)
        opt.update_(states[1], flat, g)
    before = model["a"].copy()
    opt.flush_(states[0], model)
    opt.flush_(states[1], flat)
    assert bits(re(flat)["a"], re(flat)["c"]) == bits(model["a"], model["c"])
    assert (model["a"] != before).all() and np.shares_memory(model["a"], model["b"]) and (model["c"] == 1).all()


@pytest.mark.parametrize("place", ["behind", "between", "before"])
def test_rules_of_users_take_part(place: str) -> None:
    g = gradients(5)
    rules = {
        "behind": chain(4, Scale(0.5), opt.Descent(1.0)),
        "between": chain(2, Scale(0.5), opt.AccumGrad(4), opt.Descent(1.0)),
        "before": opt.OptimiserChain(Scale(0.5), opt.AccumGrad(4), opt.Descent(1.0)),
    }
    x, state = trained(rules[place], g[:3], flushed=True)
    want = {
        "behind": (g[0] + g[1] + g[2]) / 3 / 2,
        "between": ((g[0] + g[1]) / 2 + g[2]) / 2 / 2,
        "before": (g[0] + g[1] + g[2]) / 3 / 2,
    }
    np.testing.assert_allclose(x, sized((9,), "float64", 1) - want[place], rtol=1e-14)
    before = leaf_bits(x, state)
    opt.flush_(state, x)
    assert leaf_bits(x, state) == before


def test_a_user_s_stage_between_two_windows_of_which_the_second_holds_something() -> None:
    g = gradients(2)
    x, _ = trained(chain(2, Scale(0.5), opt.AccumGrad(4), opt.Descent(1.0)), g, flushed=True)
    np.testing.assert_allclose(x, sized((9,), "float64", 1) - (g[0] + g[1]) / 4, rtol=1e-14)


def test_pure_flush_leaves_the_old_alone_and_takes_read_only_arrays() -> None:
    x, state = trained(chain(4, opt.Adam(0.1)), gradients(2))
    y, other = trained(chain(4, opt.Adam(0.1)), gradients(2), flushed=True)
    x.flags.writeable = False
    before = leaf_bits(x, state)
    new_state, new = opt.flush(state, x)
    assert leaf_bits(x, state) == before and leaf_bits(new, new_state) == leaf_bits(y, other)
    with pytest.raises(ValueError, match=r"flush_: parameter at .* is read-only; use flush, which"):
        opt.flush_(state, x)
    pair = opt.Duplicated(x, None)
    assert bits(opt.flush(state, pair)[1].model) == bits(new)


def test_flush_that_raises_changes_nothing() -> None:
    model = {"a": np.ones(2), "b": np.ones(2)}
    state = opt.setup(chain(4, opt.ClipNorm(1.0), opt.Adam()), model)
    opt.update_(state, model, {"a": np.ones(2), "b": np.array([np.inf, 1.0])})
    before = everything(model, state)
    with pytest.raises(FloatingPointError, match=r'flush: ClipNorm .* "b"'):
        opt.flush_(state, model)
    with pytest.raises(ValueError, match="flush: the model has 1 keys"):
        opt.flush_(state, {"a": np.ones(2)})
    with pytest.raises(ValueError, match="flush_: expected the state"):
        opt.flush_(model, model)
    assert everything(model, state) == before


# ------------------------------------------------------------------------------------- another n within a window


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_weighed_as_ever_where_n_stays(dtype: str) -> None:
    g = gradients(3, dtype)
    x, state = trained(chain(3, opt.Descent(1.0)), g, dtype)
    a = g[0] / x.dtype.type(3)
    for dx in g[1:]:
        a = a + dx / x.dtype.type(3)
    assert bits(state.state[0].a) == bits(a) and bits(x) == bits(sized((9,), dtype, 1) - a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "first, calls, second, fires_after",
    [(4, 1, 2, 2), (2, 1, 4, 4), (5, 3, 2, 4), (8, 7, 3, 8), (3, 2, 100, 100), (100, 5, 6, 6), (4, 3, 1, 4)],
)
def test_after_a_change_of_n_the_mean_is_that_of_what_there_was(
    dtype: str, first: int, calls: int, second: int, fires_after: int
) -> None:
    grads = gradients(fires_after, dtype)
    x, state = trained(chain(first, opt.Descent(1.0)), grads[:calls], dtype)
    opt.adjust_(state, n=second)
    for i, g in enumerate(grads[calls:], calls + 1):
        assert bits(x) == bits(sized((9,), dtype, 1)), i
        opt.update_(state, x, g)
    wide = "complex128" if "complex" in dtype else "float64"
    want = sized((9,), dtype, 1).astype(wide) - sum(g.astype(wide) for g in grads) / fires_after
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-13, "complex128": 1e-13}.get(dtype, 2e-6)
    np.testing.assert_allclose(x.astype(wide), want, rtol=tolerance, atol=tolerance)
    assert not any(dict(state.clock[0]).values())


def test_n_may_change_more_than_once_and_beside_missing_gradients() -> None:
    g = gradients(4)
    x = sized((9,), "float64", 1)
    state = opt.setup(chain(10, opt.Descent(1.0)), x)
    for dx, n in ((g[0], 3), (None, 20), (g[1], 7), (None, 6), (g[2], 2), (None, 2)):
        opt.update_(state, x, dx)
        opt.adjust_(state, n=n)
    # Five calls without the last; n = 2 was passed long before: the sixth ends the window.
    np.testing.assert_allclose(x, sized((9,), "float64", 1) - (g[0] + g[1] + g[2]) / 6, rtol=1e-14)


def test_a_state_goes_on_in_its_window_after_a_round_through_bytes() -> None:
    import pickle

    g = gradients(4)
    x, state = trained(chain(4, opt.Adam()), g[:2])
    other, y = pickle.loads(pickle.dumps(state)), x.copy()
    for s, z in ((state, x), (other, y)):
        opt.adjust_(s, n=3)
        opt.update_(s, z, g[2])
    assert leaf_bits(x, state) == leaf_bits(y, other)
