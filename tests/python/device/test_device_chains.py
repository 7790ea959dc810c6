"""On (emulated) devices too a chain is run as what its stages are, by kernels of its own or by the interpreter."""

import pytest
from chains import ON_DEVICES, drawn_chains, partners, suits
from device_arrays import host, needs_emulation, on_device
from support import NUMPY_DTYPES, arrays, bits, build, sized, spec_id

import optimisers as opt

pytestmark = needs_emulation

WITH_TEMPLATES = ("float32", "bfloat16")


def check(chain, dtype):
    """The bits of the host, which `rules/test_chains.py` holds to the reference."""
    x = sized((37,), dtype, 1, 0.5, 2.0)
    there = on_device(x.copy())
    states = opt.setup(build(chain), x), opt.setup(build(chain), there)
    for step in range(2):
        g = sized((37,), dtype, 1000 + step)
        opt.update_(states[0], x, g)
        opt.update_(states[1], there, on_device(g))
    slots = [list(arrays(host(state.state))) for state in states]
    assert bits(x, slots[0]) == bits(there.host, slots[1]), f"{spec_id(chain)} {dtype}"


@pytest.mark.parametrize("first", ON_DEVICES, ids=spec_id)
def test_any_two_rules_are_run_as_what_they_are(first):
    for second in partners(first, ON_DEVICES):
        for dtype in WITH_TEMPLATES:
            check([first, second], dtype)


@pytest.mark.parametrize("first", ON_DEVICES, ids=spec_id)
@pytest.mark.parametrize("dtype", [dtype for dtype in NUMPY_DTYPES if dtype not in WITH_TEMPLATES])
def test_any_two_rules_are_interpreted_as_what_they_are(first, dtype):
    for second in partners(first, ON_DEVICES)[:: 1 + len(first[0]) % 5]:
        if suits([first, second], dtype):
            check([first, second], dtype)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_any_three_rules_are_run_as_what_they_are(dtype):
    for chain in drawn_chains(3, dtype, 60, ON_DEVICES):
        check(chain, dtype)
