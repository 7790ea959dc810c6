"""What runs a chain is chosen by its stages as they are: the same rule with other switches or slots is another stage.

A chain has the bits of the same chain with a stage that changes nothing between its stages, and follows the reference.
"""

import numpy as np
import pytest
from chains import SWITCHED, apart, drawn_chains, partners, suits
from support import NUMPY_DTYPES, Follower, bits, build, close, is_complex, reference, sized, slots, spec_id, wide

import optimisers as opt

STEPS, SIZE = 3, 37  # a whole line of bfloat16 and some elements behind it
NARROW = ("float16", "bfloat16")


def gradients(chain, dtype):
    """Behind an AccumGrad of one sign: sums that cancel lose the digits that are compared."""
    steady = (2 + 1j) / 3 if is_complex(dtype) else 1
    grads = [sized((SIZE,), dtype, 1000 + step) for step in range(STEPS)]
    accumulates = any(name == "AccumGrad" for name, _ in chain)
    return [np.asarray(np.abs(g) * steady).astype(g.dtype) for g in grads] if accumulates else grads


def check(chain, dtype, follow):
    """`follow(follower, x, state)` compares with the reference."""
    x = sized((SIZE,), dtype, 1, 0.5, 2.0)
    twin = x.copy()
    state, twin_state = opt.setup(build(chain), x), opt.setup(build(apart(chain)), twin)
    follower = Follower(chain, x)
    for g in gradients(chain, dtype):
        follower.before(x)
        reference.update([follower.leaf], [wide(g)])
        opt.update_(state, x, g)
        opt.update_(twin_state, twin, g)
        assert bits(x, slots(state)) == bits(twin, slots(twin_state)), f"{spec_id(chain)} {dtype}"
        follow(follower, x, state.state)


@pytest.mark.parametrize("first", SWITCHED, ids=spec_id)
def test_any_two_rules_are_run_as_what_they_are(first):
    for second in partners(first, SWITCHED):
        for dtype in NUMPY_DTYPES:
            if suits([first, second], dtype):
                check([first, second], dtype, Follower.check)


def about(follower, x, state):
    """In double precision only: three rules may come to differences of what is nearly equal, and to their signs."""
    if x.dtype.name in ("float64", "complex128"):
        assert close(x, follower.leaf.x, 1e-9 * (1 + np.abs(follower.leaf.dx)))


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_any_three_rules_are_run_as_what_they_are(dtype):
    for chain in drawn_chains(3, dtype, 250):
        check(chain, dtype, about)


def master_bits(chain, dtype):
    x = sized((SIZE,), dtype, 1, 0.5, 2.0)
    state = opt.setup(opt.MixedPrecision(build(chain)), x)
    for g in gradients(chain, dtype):
        opt.update_(state, x, g)
    return bits(x, slots(state))  # the slots of NOTHING are none


@pytest.mark.parametrize("dtype", NARROW)
def test_any_two_rules_on_a_master_copy_are_run_as_what_they_are(dtype):
    for first in SWITCHED:
        for second in partners(first, SWITCHED):
            chain = [first, second]
            assert master_bits(chain, dtype) == master_bits(apart(chain), dtype), f"{spec_id(chain)} {dtype}"
