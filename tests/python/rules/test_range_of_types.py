"""Hyperparameters that the type a leaf is computed in cannot hold: too large is an error, too small counts as 0."""

import numpy as np
import pytest
from support import NUMPY_DTYPES, REFUSES_COMPLEX, RULES, everything, is_complex, needed, numpy_dtype, sized

import optimisers as opt

TOO_LARGE = 1e39
IN_FLOAT32 = ("float16", "bfloat16", "float32", "complex64")
IN_FLOAT64 = ("float64", "complex128")
SCALARS = [
    (name, field)
    for name in RULES
    for field in RULES[name].fields
    if field.kind in ("double", "pair") and field.range not in ("norm_order", "unit")
]
EVERY_SCALAR = pytest.mark.parametrize("name, field", SCALARS, ids=lambda v: v if isinstance(v, str) else v.name)


def large(field):
    return (field.default[0], TOO_LARGE) if field.kind == "pair" else TOO_LARGE


def made(name, **fields):
    return RULES[name](**(needed(name) | fields))


def dtypes_of(name, dtypes):
    return [d for d in dtypes if not (is_complex(d) and name in REFUSES_COMPLEX)]


def refused(name, field, dtype, path, call, *arguments, **fields):
    with pytest.raises(ValueError) as caught:
        call(*arguments, **fields)
    for part in (f"{name} at", path, field.name.rstrip("_"), "1e+39", dtype, "3.4028235e+38"):
        assert part in str(caught.value), caught.value


@EVERY_SCALAR
def test_more_than_the_compute_type_holds_is_refused_wherever_it_is_set(name, field):
    value = large(field)
    for dtype in dtypes_of(name, IN_FLOAT32):
        model = {"wide": sized((3,), "float64", 1), "narrow": sized((3,), dtype, 2)}
        refused(name, field, dtype, "narrow", opt.setup, made(name, **{field.name: value}), model)
        state = opt.setup(made(name), model)
        before = everything(model, state)
        for call in (opt.adjust_, opt.adjust):
            refused(name, field, dtype, "narrow", call, state, **{field.name: value})
            assert everything(model, state) == before


@EVERY_SCALAR
def test_more_than_float32_holds_is_no_matter_in_double_precision(name, field):
    value = large(field)
    for dtype in dtypes_of(name, IN_FLOAT64):
        state = opt.setup(made(name, **{field.name: value}), sized((3,), dtype, 1))
        opt.adjust_(state, **{field.name: value})
    opt.setup(opt.MixedPrecision(made(name, **{field.name: value}), "float64"), sized((3,), "float32", 1))
    with pytest.raises(ValueError, match="float16"):
        opt.setup(opt.MixedPrecision(made(name, **{field.name: value}), "float32"), sized((3,), "float16", 1))


@EVERY_SCALAR
def test_one_array_functions_refuse_it_and_keep_the_state(name, field):
    x = sized((3,), "float32", 1)
    chain = opt.OptimiserChain(opt.WeightDecay(0.5), made(name, **{field.name: large(field)}))
    with pytest.raises(ValueError, match=name):
        opt.init(chain, x)
    before = opt.OptimiserChain(opt.WeightDecay(), made(name))
    state = opt.init(before, x)
    with pytest.raises(ValueError, match=f"apply_: {name}"):
        opt.apply_(chain, state, x, x)
    assert state.rule == before


@pytest.mark.parametrize(
    "rule, dtype, field",
    [
        (opt.AdamW(1e30, lambda_=1e30), "float32", "eta"),
        (opt.Adam(1e38, (0.999999, 0.9)), "bfloat16", "eta"),
        (opt.Adam(0.1, (1 - 1e-16, 0.9)), "float32", None),
        (opt.Adam(1e300, (1 - 1e-16, 0.9)), "float64", "eta"),
        (opt.Nesterov(3e38), "complex64", "eta"),
    ],
)
def test_what_a_step_makes_of_them_is_held_to_the_type_too(rule, dtype, field):
    x = sized((3,), dtype, 1)
    if field is None:
        opt.update_(opt.setup(rule, x), x, np.zeros_like(x))
        assert np.isfinite(x).all()
        return
    with pytest.raises(ValueError, match=f'at "x" cannot train {dtype}: {field} is .* makes a scalar more than'):
        opt.setup(rule, {"x": x})


TINY = {"float64": 1e-320, "complex128": 1e-320}


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@EVERY_SCALAR
def test_what_vanishes_makes_no_nan_of_a_zero_gradient(name, field, dtype):
    if is_complex(dtype) and name in REFUSES_COMPLEX:
        return
    tiny = TINY.get(dtype, 1e-300)
    values = [tiny] if field.range == "positive" else [tiny, 0.0]
    for value in values if field.kind != "pair" else [(tiny, field.default[1])]:
        x = sized((5,), dtype, 1)
        x[2] = 0
        state = opt.setup(made(name, **{field.name: value}), x)
        for g in (np.zeros_like(x), np.zeros_like(x), sized((5,), dtype, 2), np.zeros_like(x)):
            opt.update_(state, x, g)
            assert np.isfinite(x.astype(np.complex128)).all(), f"{name}({field.name}={value})"


@pytest.mark.parametrize("dtype, small", [("float32", 1e-25), ("complex64", 1e-25), ("float64", 1e-170)])
@pytest.mark.parametrize("name", [name for name, field in SCALARS if field.name == "epsilon"])
def test_gradients_whose_squares_vanish_make_no_great_steps(name, dtype, small):
    """Where epsilon has vanished too, the step is at most a few times the learning rate."""
    for epsilon in (0.0, TINY.get(dtype, 1e-300)):
        x = np.zeros(4, numpy_dtype(dtype))
        state = opt.setup(made(name, epsilon=epsilon), x)
        for _ in range(5):
            opt.update_(state, x, np.full(4, small, numpy_dtype(dtype)))
        assert np.abs(x).max() < 1


def test_a_vanishing_epsilon_changes_no_bit_beside_a_root_that_did_not():
    for rule in (opt.Adam, opt.RMSProp, opt.AdaGrad, opt.NAdam, opt.RAdam, opt.AMSGrad, opt.OAdam, opt.AdaMax):
        xs = [sized((100,), "float32", 1) for _ in range(2)]
        for x, epsilon in zip(xs, (0.0, 2.0**-75), strict=True):
            state = opt.setup(rule(epsilon=epsilon), x)
            for seed in range(4):
                opt.update_(state, x, sized((100,), "float32", 10 + seed, 1e-6, 1.0))
        assert xs[0].tobytes() == xs[1].tobytes(), rule
