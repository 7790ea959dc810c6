"""NaN, infinity, zero, overflow and sizes beyond 32 bits."""

import os

import numpy as np
import pytest
from support import (
    MEASURES,
    NUMPY_DTYPES,
    REFUSES_COMPLEX,
    SUMS,
    all_variants,
    bits,
    build,
    fingerprint,
    follow,
    is_complex,
    layers,
    numpy_dtype,
    plain_rules,
    reference,
    sized,
    spec_id,
    trained,
)

import optimisers as opt

PROPAGATING = [s for s in all_variants() if s[1].get("throw") is not True and s[0] not in SUMS]
KEEP_NAN_AWAY = {"AccumGrad", "ADOPT", "ZeroNonFinite"}  # in the first step, or for ever
EVERY_VARIANT = pytest.mark.parametrize("spec", PROPAGATING, ids=spec_id)


def gradients(dtype, n, steps=4):
    return [sized((n,), dtype, 100 + step) for step in range(steps)]


def dtypes_of(spec):
    return [d for d in NUMPY_DTYPES if not (is_complex(d) and spec[0] in REFUSES_COMPLEX)]


# --------------------------------------------------------------------------------------- NaN and infinity


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@EVERY_VARIANT
def test_non_finite_gradient_propagates_as_in_the_reference(spec, bad):
    """In one element at one step; the others, and later steps, as the formulas say. Sizes around vector widths.

    Infinities in real leaves only: NumPy multiplies a complex infinity by a real number into NaN, the formulas do not.
    """
    for dtype in dtypes_of(spec):
        if is_complex(dtype) and np.isinf(bad):
            continue
        for n, at in ((1, 0), (37, 36), (64, 5)):
            grads = gradients(dtype, n)
            grads[1][at] = bad
            follow(spec, sized((n,), dtype, 1), grads)


@EVERY_VARIANT
def test_nan_parameter_propagates_as_in_the_reference(spec):
    for dtype in dtypes_of(spec):
        x = sized((37,), dtype, 1)
        x[20] = np.nan
        follow(spec, x, gradients(dtype, 37))


@pytest.mark.parametrize("spec", [s for s in plain_rules() if s[0] not in KEEP_NAN_AWAY | MEASURES], ids=spec_id)
def test_nan_in_a_gradient_reaches_its_element_and_no_other(spec):
    x, clean = sized((9,), "float32", 1), sized((9,), "float32", 1)
    g = sized((9,), "float32", 2)
    opt.update_(opt.setup(build(spec), clean), clean, g)
    g[4] = np.nan
    opt.update_(opt.setup(build(spec), x), x, g)
    assert np.array_equal(np.flatnonzero(np.isnan(x)), [4])
    assert np.array_equal(np.delete(x, 4), np.delete(clean, 4))


@pytest.mark.parametrize("part", [complex(np.nan, 1), complex(1, np.nan)])
def test_nan_in_either_part_of_a_complex_gradient_propagates(part):
    for spec in PROPAGATING:
        if spec[0] not in REFUSES_COMPLEX | KEEP_NAN_AWAY | {"ClipGrad"}:  # which treats the parts separately
            x, g = sized((5,), "complex64", 1), sized((5,), "complex64", 2)
            g[3] = part
            opt.update_(opt.setup(build(spec), x), x, g)
            assert np.isnan(x[3]), spec


# --------------------------------------------------------------------------------------------------- zero


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_sign_of_zero_is_zero(dtype):
    x, zero = sized((9,), dtype, 1), np.zeros(9, numpy_dtype(dtype))
    want = bits(x)
    rules = [opt.Lion(), opt.SignDecay(0.1)] + ([] if is_complex(dtype) else [opt.Rprop()])
    for rule in rules:
        leaf = zero.copy() if isinstance(rule, opt.SignDecay) else x
        state = opt.setup(rule, leaf)
        for g in (zero, -zero, zero):
            opt.update_(state, leaf, g)
        assert not np.any(leaf) if leaf is not x else bits(x) == want


@EVERY_VARIANT
def test_zero_gradients_and_parameters_follow_the_reference(spec):
    for dtype in dtypes_of(spec):
        zero = np.zeros(5, numpy_dtype(dtype))
        x = sized((5,), dtype, 1)
        x[2] = 0
        follow(spec, x, [zero] * 3)
        follow(spec, zero.copy(), [*gradients(dtype, 5, 1), zero, zero])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_a_centred_variance_that_rounding_makes_negative_counts_as_zero(dtype):
    """A constant gradient has no variance: q and |l|² come to the same number, and to either side of each other."""
    real = np.zeros(0, dtype).real.dtype.type
    rho, epsilon = 0.8, 0.5
    x, g = np.zeros(200, dtype), sized((200,), dtype, 1)
    state = opt.setup(opt.RMSProp(1.0, rho, epsilon, centred=True), x)
    negative = np.zeros(200, bool)
    for _ in range(300):
        before = x.copy()
        opt.update_(state, x, g)
        q, mean = state.state
        variance = q - (mean.real * mean.real + mean.imag * mean.imag)
        negative |= variance < 0
        flat = variance <= 0
        assert np.array_equal(x[flat], before[flat] - g[flat] / real(epsilon))
    assert np.isfinite(x).all() and negative.any(), "no variance was rounded below zero"


def test_zero_is_added_to_no_sign_of_zero():
    """x - 0 keeps every bit of x, -0 included."""
    x = np.array([-0.0, 0.0, 1.5], np.float32)
    before = x.tobytes()
    opt.update_(opt.setup(opt.Descent(0.1), x), x, np.zeros(3, np.float32))
    assert x.tobytes() == before


def test_scalars_are_rounded_once_not_recomputed_in_float32():
    """1 - 0.999 in float32 is off by 1e-5; derived in double it is not."""
    x, g = np.zeros(1, np.float32), np.ones(1, np.float32)
    state = opt.setup(opt.Adam(beta=(0.9, 0.999)), x)
    opt.update_(state, x, g)
    assert state.state.v[0] == np.float32(1 - 0.999) and state.state.m[0] == np.float32(1 - 0.9)


# -------------------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("scope", ["leaf", "global"])
@pytest.mark.parametrize(
    "p, size",
    [(1.0, 1e200), (2.0, 1e200), (3.5, 1e200), (8.0, 1e100), (-2.0, 1e200), (-3.5, 1e200)],
)
def test_norm_is_scaled_where_its_powers_overflow(p, size, scope):
    spec = [("ClipNorm", {"omega": 1.0, "p": p, "scope": scope})]
    for n in (1, 37, 1500):
        grads = [g * size for g in gradients("float64", n)]
        follow(spec, sized((n,), "float64", 1), grads)
        follow(spec, sized((n,), "complex128", 1), [g * (1 + 1j) for g in grads])


@pytest.mark.parametrize("p", [2.0, 3.5])
def test_norm_is_scaled_where_its_powers_underflow(p):
    x, g = np.zeros(4), np.full(4, 1e-200)
    opt.update_(opt.setup(opt.ClipNorm(1e-201, p), x), x, g)
    assert np.allclose(-x, 1e-201 / 4 ** (1 / p), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_overflow_in_one_leaf_only_is_scaled_too(scope):
    sizes = [1.0, 1e200, 1e-3]
    model = [np.zeros(n) for n in (5, 600, 7)]
    spec = ("ClipNorm", {"omega": 2.0, "scope": scope})
    grads = [sized(x.shape, "float64", 5) * size for x, size in zip(model, sizes, strict=True)]
    leaves = [reference.Leaf(spec, x) for x in model]
    reference.update(leaves, grads)
    opt.update_(opt.setup(build(spec), model), model, grads)
    for leaf, x in zip(leaves, model, strict=True):
        assert np.allclose(x, leaf.x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, -1.0, float("inf"), float("-inf")])
def test_norm_of_narrow_types_is_accumulated_in_double(p):
    """60000 squared overflows float16, 1e37 squared float32."""
    for dtype, size in (("float16", 6e4), ("bfloat16", 1e37), ("float32", 1e37)):
        g = (sized((1001,), "float32", 3) * np.float32(size)).astype(numpy_dtype(dtype))
        follow([("ClipNorm", {"omega": 1e4, "p": p})], sized((1001,), dtype, 1), [g])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, -2.0, float("inf"), float("-inf")])
@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_norm_of_nothing_or_of_zeros_is_no_reason_to_clip_or_throw(p, scope):
    for x in (np.ones(0), np.ones(4), np.ones((3, 0))):
        before = bits(x)
        opt.update_(opt.setup(opt.ClipNorm(1.0, p, True, scope), x), x, np.zeros_like(x))
        assert bits(x) == before


def clipped(position, scope, throw):
    clip = opt.ClipNorm(0.5, 2.0, throw, scope)
    return {
        "alone": clip,
        "first": opt.OptimiserChain(clip, opt.Adam()),
        "behind Adam": opt.OptimiserChain(opt.Adam(), clip),
        "behind accumulation": opt.OptimiserChain(opt.AccumGrad(1), opt.Momentum(), clip, opt.Adam()),
        "behind another clip": opt.OptimiserChain(opt.ClipNorm(1.0, 2.0, False), opt.Adam(), clip),
        "master": opt.MixedPrecision(opt.OptimiserChain(opt.Adam(), clip)),
    }[position]


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("scope", ["leaf", "global"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "position",
    ["alone", "first", "behind Adam", "behind accumulation", "behind another clip", "master"],
)
def test_non_finite_norm_raises_with_the_path_and_changes_nothing(position, dtype, scope, pure):
    model = layers(20, dtype)
    state = trained(clipped(position, scope, True), model)
    before = fingerprint(model, state)
    for bad in (np.nan, np.inf):
        grads = layers(20, dtype, 300)
        grads["layers"][19]["bias"][-1] = bad
        with pytest.raises(FloatingPointError, match=r"layers\.19\.bias"):
            (opt.update if pure else opt.update_)(state, model, grads)
        assert fingerprint(model, state) == before
    opt.update_(state, model, layers(20, dtype, 300))
    assert fingerprint(model, state) != before


@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_without_throw_a_non_finite_norm_reaches_the_leaves_that_share_it(scope):
    model = layers(3)
    state = opt.setup(opt.ClipNorm(0.5, 2.0, False, scope), model)
    grads = layers(3, "float32", 300)
    grads["layers"][2]["bias"][0] = np.nan
    opt.update_(state, model, grads)
    assert np.isnan(model["layers"][2]["bias"]).all()
    assert np.isnan(model["layers"][0]["weight"]).all() == (scope == "global")


# ------------------------------------------------------------------------------------------------- sizes


def free_memory():
    """Bytes; 0 where the system does not say."""
    known = "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {})
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    """4 GiB of parameter, a gradient without memory of its own; every block of the leaf is looked at."""
    n, needed = 2**31 + 8, 10 * 2**30
    if free_memory() < needed:
        pytest.skip(f"needs {needed >> 30} GiB of memory, {free_memory() >> 30} GiB are known to be free")
    x = np.ones(n, np.float16)
    opt.update_(opt.setup(opt.Descent(0.5), x), x, np.broadcast_to(np.float16(1), (n,)))
    assert x[0] == x[n // 2] == x[2**31 - 1] == x[2**31] == x[-1] == np.float16(0.5)
    for start in range(0, n, 2**26):
        assert (x[start : start + 2**26].view(np.uint16) == np.float16(0.5).view(np.uint16)).all()
