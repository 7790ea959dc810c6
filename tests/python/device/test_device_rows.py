"""What reaches some rows of a (emulated) device and not others, and what is read of arrays there: the host's bits."""

import numpy as np
import pytest
from device_arrays import host, needs_emulation, on_device
from support import bits, copied, numpy_dtype, sized

import optimisers as opt

pytestmark = needs_emulation


def test_adjusting_scattered_leaves_reaches_no_leaf_between():
    """A marker's leaves are rows of one table that do not follow one another."""
    marker = opt.Marker("some")
    here = [sized((5,), "float32", i) for i in range(40)]
    there = on_device(copied(here))
    for model in (here, there):
        for i in (1, 2, 5, 11, 12, 13, 39):
            marker(model[i])
    states = opt.setup(opt.Adam(), here), opt.setup(opt.Adam(), there)
    for step in range(3):
        g = [sized((5,), "float32", 50 + i + step) for i in range(40)]
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, on_device(g))
        for state in states:
            opt.adjust_(state.marked(marker), 0.5 + step)
    assert bits(here) == bits(host(there))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("w", [0.1, 1 / 3, 0.999, 1e-9])
def test_lerp_gives_the_bits_of_the_host(dtype, w):
    here, source = sized((300,), dtype, 1), sized((300,), dtype, 2)
    there = on_device(here.copy())
    opt.lerp_(here, source, w)
    opt.lerp_(there, on_device(source), w)
    assert bits(here) == bits(host(there))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("edit", [0.0, -0.0, np.nan, np.inf, 0.25])
def test_a_master_copy_takes_edits_bit_by_bit(dtype, edit):
    """Also -0 for 0, which are equal, and NaN, which equals nothing."""
    rule = opt.MixedPrecision(opt.Descent(1.0), "float64" if dtype in ("float32", "complex64") else "float32")
    here = np.zeros(40, numpy_dtype(dtype))
    here[1::2] = -0.0
    there = on_device(here.copy())
    states = opt.setup(rule, here), opt.setup(rule, there)
    for x in (here, host(there)):
        x[::4] = edit
        x[1::4] = edit
    g = np.zeros(40, numpy_dtype(dtype))
    opt.update_(states[0], here, g)
    opt.update_(states[1], there, on_device(g))
    masters = [host(state.state[0]) for state in states]
    assert bits(here, masters[0]) == bits(host(there), masters[1])
    same = (here[::4] == edit) | (np.isnan(here[::4]) & np.isnan(edit))
    assert same.all() and np.signbit(here[::4].real).all() == np.signbit(edit)
