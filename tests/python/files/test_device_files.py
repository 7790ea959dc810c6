"""States on (emulated) devices write and read the files of states on the host."""

import numpy as np
import pytest
from device_arrays import host, needs_emulation, on_device
from support import bits, copied, layers

import optimisers as opt

pytestmark = needs_emulation

RULE = opt.MixedPrecision(opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam(0.1)), "float64")


def trained(model, wrap):
    state = opt.setup(RULE, model)
    for step in range(2):
        opt.update_(state, model, wrap(layers(2, seed=50 + step)))
    return state


def test_device_and_host_read_each_others_files(tmp_path):
    here = layers(2)
    there = on_device(copied(here))
    states = trained(here, lambda x: x), trained(there, on_device)
    for name, state in zip(("host", "device"), states, strict=True):
        opt.save(tmp_path / name, state)
    header = opt.inspect(tmp_path / "host")
    assert header.arrays == opt.inspect(tmp_path / "device").arrays
    from_there, from_here = opt.setup(RULE, here), opt.setup(RULE, there)
    opt.load(tmp_path / "device", from_there)
    opt.load(tmp_path / "host", from_here)
    opt.update_(from_there, here, layers(2, seed=90))
    opt.update_(from_here, there, on_device(layers(2, seed=90)))
    assert bits(host(there)) == bits(here)


def test_parameters_on_a_device_are_saved(tmp_path):
    here = layers(2)
    there = on_device(copied(here))
    opt.save(tmp_path / "state", opt.setup(RULE, there), there)
    other = {"layers": [{k: np.zeros_like(x) for k, x in layer.items()} for layer in here["layers"]]} | {
        k: np.zeros_like(x) for k, x in here.items() if k != "layers"
    }
    opt.load(tmp_path / "state", None, other)
    assert bits(other) == bits(here)
    with pytest.raises(ValueError, match="neither torch nor CuPy"):
        opt.load(tmp_path / "state", None, there)
