"""Norms on (emulated) devices: who shares one, who waits for whom, and what a plan that is kept knows; host's bits."""

import numpy as np
import pytest
from device_arrays import CudaArray, host, needs_emulation, on_device
from support import arrays, bits, copied, sized

import optimisers as opt

pytestmark = needs_emulation

INF = float("inf")
SHAPES = {"a": (3, 5), "b": (11,), "c": (20,)}


def clip(omega=0.3, p=2.0, scope="global"):
    return opt.ClipNorm(omega, p, scope=scope)


def model_of(dtype, seed=0):
    return {name: sized(shape, dtype, seed + i) for i, (name, shape) in enumerate(SHAPES.items())}


def both(rules, missing, dtype="float32", steps=8, scale=None):
    """Steps on the host and on a device; `missing` gives the leaves without a gradient in each step."""
    here = model_of(dtype)
    there = on_device(copied(here))
    states = opt.setup(rules, here), opt.setup(rules, there)
    for step in range(steps):
        g = model_of(dtype, 100 + 10 * step)
        for name, factor in (scale or {}).items():
            g[name] *= factor
        g = {name: a for name, a in g.items() if name not in missing.get(step, "")}
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, on_device(g))
        assert bits(here) == bits(host(there)) and states[0].norm == states[1].norm, step
        slots = [[list(arrays(host(state[name].state))) for name in SHAPES] for state in states]
        assert bits(slots[0]) == bits(slots[1]), step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [-2.0, -3.5, -INF, 3.5])
def test_norms_of_elements_far_apart_are_scaled_by_those_that_dominate(p, dtype):
    far = {"a": 1e-30, "c": 1e30} if dtype == "float32" else {"a": 1e-200, "c": 1e200}
    for scope in ("leaf", "global"):
        both(opt.OptimiserChain(clip(1e-40, p, scope), opt.Descent(0.1)), {}, dtype, 2, far)
    x = np.array([1e-200, 1e200, 2e-200]) if dtype == "float64" else np.array([1e-30, 1e30], "float32")
    assert opt.norm(CudaArray(x), p) == opt.norm(x, p)
    assert opt.norm([CudaArray(x[:1].copy()), CudaArray(x[1:].copy())], p) == opt.norm([x[:1], x[1:]], p)


def test_norms_of_different_orders_are_apart():
    """All of them the first global norm of their leaf."""
    rules = {"a": clip(0.1, 2.0), "b": clip(0.1, 1.0), "c": clip(0.1, INF)}
    both(rules, {})


def test_a_norm_waits_for_leaves_that_come_to_it_later():
    late = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Momentum(0.1), opt.ClipNorm(0.4), clip(0.1))
    both({"a": clip(0.1), "b": late, "c": opt.OptimiserChain(opt.WeightDecay(0.1), clip(0.1))}, {})


@pytest.mark.parametrize("first_missing", [0, 1])
@pytest.mark.parametrize("p", [2.0, -2.0])
@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_leaves_that_enter_behind_a_norm_meet_the_others_where_they_are(scope, p, first_missing):
    """With and without a gradient in turn: what is planned for the one does not serve for the other."""
    rule = opt.OptimiserChain(clip(0.3, p, scope), opt.AccumGrad(2), clip(0.1, p, scope), opt.Descent(0.5))
    missing = {first_missing: "a", 3: "b", 5: "ac", 6: "b"}
    both(rule, missing)
    both({"a": rule, "b": clip(0.2, p), "c": rule}, missing)


def test_leaves_that_are_missing_at_the_end_of_a_call_contribute_nothing():
    both(opt.OptimiserChain(clip(0.3), opt.Adam()), {1: "c", 2: "bc", 4: "c", 5: "a"})


def test_norms_of_more_chunks_than_there_are_lanes_have_the_bits_of_the_host():
    """More than 256 chunks of 32768 elements; on the host `rules/test_norms.py` says which bits these are."""
    x = np.random.default_rng(1).random(300 * 32768 - 5, np.float32)
    assert opt.norm(CudaArray(x)) == opt.norm(x)
