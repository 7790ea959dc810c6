"""What goes with a step, on (emulated) devices as on the host: windows that are flushed, non_finite, the norm seen."""

import pickle

import numpy as np
import pytest
from device_arrays import CudaArray, host, needs_emulation, on_device
from support import bits, copied, layers, sized

import optimisers as opt

pytestmark = needs_emulation


def both(rule, count=2, dtype="float32"):
    here = layers(count, dtype)
    there = on_device(copied(here))
    return here, there, opt.setup(rule, here), opt.setup(rule, there)


def clocks(state):
    return [leaf[name].clock for leaf in state["layers"] for name in ("weight", "bias")]


# ---------------------------------------------------------------------------------------------------- windows

CHAINS = {
    "alone": opt.OptimiserChain(opt.AccumGrad(4), opt.Adam(0.1)),
    "behind a stage": opt.OptimiserChain(opt.Momentum(), opt.AccumGrad(4), opt.ClipNorm(0.1), opt.Adam(0.1)),
    "two": opt.OptimiserChain(opt.ClipNorm(5.0), opt.AccumGrad(2), opt.ClipNorm(0.5), opt.AccumGrad(3), opt.Descent()),
    "global": opt.OptimiserChain(opt.AccumGrad(4), opt.ClipNorm(0.1, scope="global"), opt.Momentum()),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
@pytest.mark.parametrize("chain", CHAINS)
def test_flushed_windows_have_the_host_s_bits(chain, calls, dtype):
    here, there, ours, theirs = both(CHAINS[chain], dtype=dtype)
    for step in range(2):
        for call in range(calls):
            g = layers(2, dtype, 50 + 10 * step + call)
            g["layers"][call % 2]["bias"] = None
            opt.update_(ours, here, g)
            opt.update_(
                theirs,
                there,
                on_device({"layers": [{k: v for k, v in layer.items() if v is not None} for layer in g["layers"]]}),
            )
        opt.flush_(ours, here)
        opt.flush_(theirs, there)
        assert bits(host(there)) == bits(here) and clocks(theirs) == clocks(ours)


@pytest.mark.parametrize("first, second", [(4, 2), (2, 4), (3, 7)])
def test_another_n_within_a_window_has_the_host_s_bits(first, second):
    here, there, ours, theirs = both(opt.OptimiserChain(opt.AccumGrad(first), opt.Adam(0.1)))
    for call in range(8):
        g = layers(2, seed=60 + call)
        opt.update_(ours, here, g)
        opt.update_(theirs, there, on_device(g))
        if call == 0:
            opt.adjust_(ours, n=second)
            opt.adjust_(theirs, n=second)
        assert bits(host(there)) == bits(here) and clocks(theirs) == clocks(ours)


# ------------------------------------------------------------------------------------------------- non_finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_gradients_that_are_not_finite_are_seen(dtype, value):
    for strided in (False, True):
        model = on_device({"a": sized((6,), dtype, 1), "b": sized((5, 4), dtype, 2)})
        state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), opt.Adam()), model)
        g = sized((4, 5), dtype, 3).T if strided else sized((5, 4), dtype, 3)
        if "complex" in dtype:
            g.imag[2, 3] = value
        else:
            g[2, 3] = value
        bad = on_device({"a": sized((6,), dtype, 4), "b": g})
        before = bits(host(model)), [state[k].clock for k in "ab"]
        with pytest.raises(opt.NonFiniteError, match='gradient at "b" has'):
            opt.update_(state, model, bad, non_finite="raise")
        opt.update_(state, model, bad, non_finite="skip")
        assert (bits(host(model)), [state[k].clock for k in "ab"]) == before and state.skipped == 1
        opt.update_(state, model, {"a": bad["a"], "b": None}, non_finite="raise")
        assert state["a"].clock[0].calls == 1


def test_large_numbers_are_judged_by_what_the_leaf_can_hold():
    x, largest = CudaArray(np.ones(3, np.float32)), np.finfo(np.float32).max
    state = opt.setup(opt.ClipGrad(1.0), {"a": x, "b": x})
    model = {"a": x, "b": x}
    for g, fits in (
        ({"a": CudaArray(np.full(3, 1e39)), "b": None}, False),
        ({"a": CudaArray(np.full(3, largest)), "b": None}, True),
        ({"a": CudaArray(np.full(3, largest)), "b": CudaArray(np.full(3, largest))}, False),
        ({"a": CudaArray(np.full(3, largest / 4)), "b": CudaArray(np.full(3, -largest / 4))}, True),
    ):
        before = state.skipped
        opt.update_(state, model, g, non_finite="skip")
        assert (state.skipped == before) is fits
    y = CudaArray(np.ones(3, np.complex128))
    opt.update_(opt.setup(opt.ClipGrad(1.0), y), y, CudaArray(np.full(3, 1.7e308 + 1.7e308j)), non_finite="raise")


# ------------------------------------------------------------------------------------------------------- norm


def test_the_norm_is_the_host_s():
    rule = opt.OptimiserChain(opt.AccumGrad(2), opt.ClipNorm(0.5, scope="global"), opt.Adam())
    here, there, ours, theirs = both(rule)
    for call in range(5):
        g = layers(2, seed=70 + call)
        opt.update_(ours, here, g)
        opt.update_(theirs, there, on_device(g))
        assert theirs.norm == ours.norm and (ours.norm is None) is (call == 0)
    for other in (pickle.loads(pickle.dumps(theirs)), opt.adjust(theirs, 0.1), opt.to_device(theirs, "cpu")):
        assert other.norm == ours.norm
    assert opt.setup(opt.Adam(), there).norm is None


def test_of_several_norms_it_is_the_first_leaf_s_first():
    model = {"late": np.ones(2), "early": np.ones(2)}
    rules = {
        "late": opt.OptimiserChain(opt.ClipNorm(9.0, np.inf, scope="global"), opt.ClipNorm(9.0, 1, scope="global")),
        "early": opt.ClipNorm(9.0, 1, scope="global"),
    }
    there = on_device(model)
    state = opt.setup(rules, there)
    opt.update_(state, there, on_device({"late": np.full(2, 3.0), "early": np.full(2, 3.0)}))
    assert state.norm == 3
    opt.update_(state, there, {"late": None, "early": CudaArray(np.full(2, 3.0))})
    assert state.norm == 6
