"""Laws of `non_finite`: a step whose gradients are not all finite is computed, refused by name, or left out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from support import bits, everything, layers, sized, to_torch
from user_rules import Scale

import optimisers as opt

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
CALLS = pytest.mark.parametrize("call", [opt.update_, opt.update])


def poisoned(shape: tuple[int, ...], dtype: str, value: float, at: int = -1, part: str = "real") -> np.ndarray:
    g = sized(shape, dtype, 3)
    if "complex" in dtype:
        getattr(g.reshape(-1), part)[at] = value
    else:
        g.reshape(-1)[at] = value
    return g


def skips(state: Any, model: Any, g: Any, **kwargs: Any) -> bool:
    """Whether the step is left out and would have been refused; everything stays as it is then."""
    before, skipped = everything(model, state), state.skipped
    try:
        opt.update_(state, model, g, non_finite="raise", **kwargs)
    except opt.NonFiniteError:
        assert everything(model, state) == before and state.skipped == skipped
        assert opt.update_(state, model, g, non_finite="skip", **kwargs) == (state, model)
        assert everything(model, state) == before and state.skipped == skipped + 1
        return True
    assert everything(model, state) != before and state.skipped == skipped
    return False


# --------------------------------------------------------------------------------------------- what counts as finite


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 15, 512, 513, 40_001])
def test_one_element_is_seen_wherever_it_stands(size: int, dtype: str, value: str) -> None:
    for at in {0, size // 2, size - 1}:
        for part in ("real", "imag") if "complex" in dtype else ("real",):
            model = {"a": sized((3,), dtype, 1), "b": sized((size,), dtype, 2)}
            state = opt.setup(opt.Adam(), model)
            assert skips(
                state, model, {"a": sized((3,), dtype, 4), "b": poisoned((size,), dtype, BAD[value], at, part)}
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_smallest_numbers_are_finite(dtype: str) -> None:
    import ml_dtypes

    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    info = ml_dtypes.finfo(real)
    g = np.full(70, info.max, real).astype(dtype)
    if "complex" in dtype:
        g = g * (1 + 0j) if dtype == "complex64" else g
        g.imag[:] = info.max
    g[::3], g[1] = info.smallest_subnormal, 0
    model = {"w": sized((70,), dtype, 1)}
    assert not skips(opt.setup(opt.ClipGrad(1.0), model), model, {"w": g})


def test_what_the_leaf_s_type_cannot_hold_is_not_finite() -> None:
    for x, g in ((np.ones(3, np.float32), 1e39), (np.ones(3, np.float16), 1e39), (np.ones(3, np.complex64), 1e39j)):
        assert skips(opt.setup(opt.Adam(), x), x, np.full(3, g))
    x = np.ones(3, np.float16)  # computes in float32
    assert not skips(opt.setup(opt.ClipGrad(1.0), x), x, np.full(3, 1e30))


@pytest.mark.parametrize(
    "kind", ["strided", "reversed", "transposed", "broadcast", "integers", "misaligned", "tensor", "wider"]
)
def test_gradients_of_any_layout_are_looked_at(kind: str) -> None:
    x = np.ones((6, 7), np.float32)
    memory = np.ones((12, 14), np.float32)
    g: Any = {
        "strided": memory[::2, ::2],
        "reversed": memory[5::-1, 6::-1],
        "transposed": np.ones((7, 6), np.float32).T,
        "broadcast": np.broadcast_to(np.float32(1), (6, 7)),
        "integers": np.ones((6, 7), np.int64),
        "misaligned": np.ndarray((6, 7), np.float32, bytearray(6 * 7 * 4 + 1), offset=1),
        "tensor": to_torch(np.ones((6, 7), np.float32)),
        "wider": np.ones((6, 7)),
    }[kind]
    if kind == "misaligned":
        g[...] = 1
    memory[1::2] = np.nan  # beside the strided ones
    if kind == "reversed":
        memory[:] = 1
    assert not skips(opt.setup(opt.Descent(0.5), x), x, g)
    if kind == "broadcast":
        assert skips(opt.setup(opt.Descent(0.5), x), x, np.broadcast_to(np.float32(np.nan), (6, 7)))
    elif kind != "integers":
        g[2, 3] = np.nan
        assert skips(opt.setup(opt.Descent(0.5), x), x, g)


def test_the_sum_of_a_tied_leaf_counts() -> None:
    w = np.ones(3, np.float32)
    model, big = {"a": w, "b": w}, np.full(3, 3e38, np.float32)
    state = opt.setup(opt.ClipGrad(1.0), model)
    assert skips(state, model, {"a": big, "b": big})
    assert not skips(state, model, {"a": big, "b": -big / 2})
    assert skips(state, model, {"a": None, "b": np.full(3, np.inf, np.float32)})
    model["b"] = model["a"] = np.ones(3, np.float32)
    assert skips(state, model, {"a": big, "b": np.array([0, np.nan, 0], np.float32)})


def test_frozen_and_missing_gradients_do_not_count() -> None:
    model = layers()
    state = opt.setup(opt.Momentum(), model)
    opt.freeze_(state["layers"][0])
    bad = {"weight": np.full((3, 4), np.nan, np.float32), "bias": None}
    bad["weight"] = np.full(model["layers"][0]["weight"].shape, np.nan, np.float32)
    g = layers(seed=100)
    g["layers"][0] = bad
    assert not skips(state, model, g)
    g["layers"][1] = None
    assert not skips(state, model, g)
    opt.thaw_(state)
    assert skips(state, model, g)
    before = everything(model, state)
    opt.update_(state, model, None, non_finite="raise")
    assert everything(model, state) == before


@pytest.mark.parametrize("leaves", [3, 5000])
def test_the_first_such_leaf_is_named(leaves: int) -> None:
    model, g = [np.ones(2) for _ in range(leaves)], [np.ones(2) for _ in range(leaves)]
    for i in (leaves - 1, leaves // 2):
        g[i] = np.array([1.0, np.nan])
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(FloatingPointError, match=rf'update: gradient at "{leaves // 2}" has .* not a number; nothing'):
        opt.update_(state, model, g, non_finite="raise")


# ------------------------------------------------------------------------------------------------- what a step is


def test_it_propagates_unless_told_otherwise() -> None:
    for kwargs in ({}, {"non_finite": "propagate"}):
        x = np.ones(3)
        opt.update_(opt.setup(opt.Descent(1.0), x), x, np.array([1, np.nan, np.inf]), **kwargs)
        assert x[0] == 0 and np.isnan(x[1]) and x[2] == -np.inf


@CALLS
@pytest.mark.parametrize("how", ["propagate", "skip", "raise"])
def test_finite_steps_are_the_same_steps(call: Any, how: str) -> None:
    results = []
    for kwargs in ({}, {"non_finite": how}):
        model = layers()
        state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.AccumGrad(2), opt.Adam()), model)
        for seed in range(5):
            state, model = call(state, model, layers(seed=100 + seed), **kwargs)
        assert state.skipped == 0
        results.append(everything(model, state))
    assert results[0] == results[1]


def test_a_skipped_step_is_no_call_of_a_window() -> None:
    x = np.ones(3)
    state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), opt.Descent(1.0)), x)
    for g in (np.ones(3), np.full(3, np.inf), None, np.full(3, np.nan)):
        opt.update_(state, x, g, non_finite="skip")
    assert (x == 0.5).all() and state.skipped == 2 and state.clock[0].calls == 0


@pytest.mark.parametrize("tree", ["plain", "layout", "master", "user", "duplicated"])
def test_ways_to_a_step_all_have_it(tree: str) -> None:
    x = np.ones(3, np.float16 if tree == "master" else np.float64)
    rules = {
        "master": opt.MixedPrecision(opt.Adam()),
        "user": opt.OptimiserChain(opt.Momentum(), Scale(0.5), opt.Adam()),
    }
    rule, model = rules.get(tree, opt.Adam()), {"a": x, "b": x + 1}
    good, bad = {"a": x * 1, "b": x * 2}, {"a": x * 1, "b": np.where([0, 1, 0], np.nan, x)}
    if tree == "layout":
        flat, re = opt.destructure(model)
        state = opt.setup(rule, flat, layout=re)
        before = bits(flat)
        for g in (re.flatten(bad), bad):
            opt.update_(state, flat, g, non_finite="skip")
        assert bits(flat) == before and state.skipped == 2 and state["a"].clock.beta1_t == 1
        opt.update_(state, flat, good, non_finite="raise")
        assert bits(flat) != before
        return
    state = opt.setup(rule, model)
    if tree == "duplicated":
        pair = opt.Duplicated(model, bad)
        before = everything(model, state)
        opt.update_(state, pair, non_finite="skip", zero_grad=True)
        assert everything(model, state) == before and not bad["a"].any() and not bad["b"].any()  # or the next is bad
        return
    assert skips(state, model, bad) and skips(state["b"], model["b"], bad["b"]) and not skips(state, model, good)
    assert not skips(state["a"], model["a"], bad["a"]) and state["a"].skipped == state.skipped == 2


def test_torch_hears_of_no_write_that_did_not_happen() -> None:
    torch = pytest.importorskip("torch")
    m = torch.nn.Linear(2, 1)
    m(torch.full((1, 2), torch.inf)).sum().backward()
    version, state = m.weight._version, opt.setup(opt.Adam(), m)
    with pytest.raises(opt.NonFiniteError, match='"weight"'):
        opt.update_(state, m, non_finite="raise", zero_grad=True)
    assert m.weight.grad is not None
    opt.update_(state, m, non_finite="skip", zero_grad=True)
    assert m.weight._version == version and m.weight.grad is None and state.skipped == 1


def test_the_count_is_kept_by_copies_and_bytes() -> None:
    x = np.ones(3)
    old = opt.setup(opt.Adam(), x)
    state, _ = opt.update(old, x, x * np.nan, non_finite="skip")
    assert (old.skipped, state.skipped) == (0, 1)
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), opt.adjust(state, 0.1), opt.freeze(state)):
        opt.update_(other, x, x * np.inf, non_finite="skip")
        assert other.skipped == (1 if other.frozen else 2) and state.skipped == 1


@pytest.mark.parametrize("wrong", ["none", "Skip", "", None, True, np.nan, ["skip"]])
@CALLS
def test_other_words_are_refused_before_anything_is_written(call: Any, wrong: Any) -> None:
    x = np.ones(3)
    state = opt.setup(opt.Adam(), x)
    with pytest.raises(
        (TypeError, ValueError), match=r'update_?: non_finite must be "propagate", "raise" or "skip", got'
    ):
        call(state, x, x, non_finite=wrong)
    assert (x == 1).all() and state.skipped == 0


def test_a_wrong_shape_is_told_before_the_elements_are_looked_at() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"gradient .* has shape"):
        opt.update_(opt.setup(opt.Adam(), x), x, np.full(4, np.nan), non_finite="raise")


def test_many_small_leaves_on_the_fast_road() -> None:
    model = [np.ones(2, np.float32) for _ in range(100)]
    state, bad = opt.setup(opt.Adam(), model), [np.ones(2, np.float32) for _ in range(100)]
    bad[57] = np.array([1, np.inf], np.float32)
    for _ in range(3):
        opt.update_(state, model, [x * 0 for x in model])
        before = bits(model)
        opt.update_(state, model, bad, non_finite="skip")
        assert bits(model) == before
    assert state.skipped == 3 and state[0].clock.beta1_t == pytest.approx(0.9**3)
