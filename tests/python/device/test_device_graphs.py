"""Graphs of an (emulated) device: what was captured does nothing then, and a step whenever it is replayed."""

import numpy as np
import pytest
from device_arrays import CudaArray, emulation, host, needs_emulation, on_device
from support import bits, layers

import optimisers as opt

pytestmark = needs_emulation

RULES = {
    "Adam": opt.Adam(),
    "a rule without a kernel of its own": opt.AdaBelief(),
    "a norm of each leaf": opt.OptimiserChain(opt.ClipNorm(0.5), opt.Momentum()),
    "a norm of all": opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam()),
    "gathered": opt.OptimiserChain(opt.AccumGrad(2), opt.Adam()),
    "master copies": opt.MixedPrecision(opt.Adam(), "float64"),
}


@pytest.fixture
def record(monkeypatch):
    def inside(step):
        monkeypatch.setenv("OPTIMISERS_EMULATED_CAPTURE", "record")
        step()
        monkeypatch.delenv("OPTIMISERS_EMULATED_CAPTURE")

    yield inside
    emulation("forget")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_replay_is_a_step_with_what_the_arrays_hold_then(record, rule):
    here, there = layers(3), on_device(layers(3))
    given = on_device(layers(3, seed=5))
    states = opt.setup(rule, here), opt.setup(rule, there)
    before = bits(host(there)), states[1].layers[0].weight.clock
    record(lambda: opt.update_(states[1], there, given))
    assert (bits(host(there)), states[1].layers[0].weight.clock) == before
    for step in range(4):
        new = layers(3, seed=10 + step)
        for one, other in zip(given["layers"], new["layers"], strict=True):
            for name, array in one.items():
                array.host[...] = other[name]
        if step == 2:  # what was captured reads hyperparameters where adjusting writes them
            for state in states:
                opt.adjust_(state, 0.01)
        opt.update_(states[0], here, new)
        emulation("replay")
        assert bits(host(there)) == bits(here), f"replay {step}"
        assert states[1].layers[0].weight.clock == states[0].layers[0].weight.clock


def test_eager_steps_between_replays_change_nothing_of_the_graph(record):
    """Tables that an eager step sends are not those that the graph reads."""
    rule = opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam())
    here, there = layers(3), on_device(layers(3))
    states = opt.setup(rule, here), opt.setup(rule, there)
    g, other = layers(3, seed=5), layers(2, seed=6)["layers"]
    other = {"layers": [*other, dict.fromkeys(g["layers"][2])]}
    kept = on_device(g)
    record(lambda: opt.update_(states[1], there, kept))
    for _ in range(2):
        opt.update_(states[0], here, other)
        opt.update_(states[1], there, on_device(other))
        opt.update_(states[0], here, g)
        emulation("replay")
        assert bits(host(there)) == bits(here)


def test_a_graph_of_lerp_and_of_zeroing(record):
    x, y = (np.random.default_rng(seed).standard_normal(500).astype("float32") for seed in (1, 2))
    target, source = CudaArray(x.copy()), CudaArray(y.copy())
    opt.lerp_({"a": target}, {"a": source}, 0.0)  # loads the kernel
    record(lambda: opt.lerp_({"a": target}, {"a": source}, 0.25))
    assert bits(target.host) == bits(x)
    for _ in range(2):
        emulation("replay")
        opt.lerp_({"a": x}, {"a": y}, 0.25)
        assert bits(target.host) == bits(x)
