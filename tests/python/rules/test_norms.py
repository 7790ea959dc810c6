"""Norms: who contributes to one, in which order it is summed, that no power overflows; measuring writes nothing."""

import numpy as np
import pytest
from following import follow_together, leaf_gradients
from support import NUMPY_DTYPES, build, close, fingerprint, reference, sized

import optimisers as opt

INF = float("inf")
TOGETHER = ("ClipNorm", {"omega": 2.0, "scope": "global"})

# ------------------------------------------------------------------------------------------- who contributes


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, -2.0, INF, -INF])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_global_clip_shares_one_norm_each_leaf_with_its_omega(dtype, p):
    shapes = [(3, 5), (), (0,), (513,), (7,)]
    specs = [[("ClipNorm", {"omega": 0.01 * (1 + i), "scope": "global", "p": p}), ("Adam", {})] for i in range(5)]
    follow_together(specs, shapes, leaf_gradients(shapes, dtype), dtype)


def test_global_norm_is_of_dx_as_it_reaches_the_stage():
    shapes = [(3, 5), (11,), (600,)]
    specs = [[("Adam", {"eta": 0.1 * (1 + i)}), TOGETHER, ("Momentum", {"eta": 1.0})] for i in range(3)]
    follow_together(specs, shapes, leaf_gradients(shapes, "float32"), "float32")


def test_kth_global_clips_meet_whatever_stands_before_them():
    shapes = [(3, 5), (11,), (20,), (6,)]
    other = ("ClipNorm", {"omega": 0.3, "p": 1.0, "scope": "global"})
    specs = [
        [TOGETHER, ("Momentum", {}), other],
        [("WeightDecay", {}), ("ClipNorm", {"omega": 1.5}), TOGETHER, other],
        [other, ("Descent", {}), TOGETHER],
        [("Adam", {})],
    ]
    follow_together(specs, shapes, leaf_gradients(shapes, "float64"), "float64")


def test_leaves_frozen_missing_or_stopped_contribute_nothing_to_a_global_norm():
    shapes = [(3, 5), (11,), (20,), (6,)]
    specs = [
        [TOGETHER, ("Adam", {})],
        [TOGETHER],
        [("AccumGrad", {"n": 2}), TOGETHER, ("Adam", {})],
        [TOGETHER],
    ]
    grads = leaf_gradients(shapes, "float64")
    for step in (1, 2):
        grads[step][1] = None
    follow_together(specs, shapes, grads, "float64", frozen=(3,))


@pytest.mark.parametrize("p", [2.0, 1.0, -2.0, -INF, INF])
def test_a_leaf_that_enters_behind_a_norm_contributes_nothing_to_it(p):
    """An AccumGrad fires without a gradient: what stands before it has not run, and its zeros are no gradients."""
    shapes = [(3, 5), (11,), (20,)]
    clip = ("ClipNorm", {"omega": 0.01, "p": p, "scope": "global"})
    chain = [clip, ("AccumGrad", {"n": 2}), ("Descent", {})]
    grads = leaf_gradients(shapes, "float64", 8)
    for step in (1, 5):
        grads[step][0] = grads[step][2] = None
    follow_together([chain, [clip, ("Descent", {})], chain], shapes, grads, "float64")


def test_a_leaf_that_enters_between_norms_meets_the_others_where_it_is():
    """The k-th global norm of its chain is that of the others, whether the leaf came to those before or not."""
    shapes = [(3, 5), (11,)]
    chain = [
        ("ClipNorm", {"omega": 0.3, "scope": "global"}),
        ("AccumGrad", {"n": 2}),
        ("ClipNorm", {"omega": 0.1, "scope": "global"}),
        ("Descent", {}),
    ]
    grads = leaf_gradients(shapes, "float64", 8)
    grads[1][0] = grads[3][1] = None
    follow_together([chain, chain], shapes, grads, "float64")


# ------------------------------------------------------------------------------------------------- the order


def folded(lanes):
    """The upper half is added to the lower until one is left; over the first axis."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


def added(terms, lanes):
    """Term i goes to lane i mod `lanes`, one after the other; then the lanes are folded. Over the first axis."""
    total = np.zeros((lanes, *terms.shape[1:]))
    for start in range(0, len(terms), lanes):
        part = terms[start : start + lanes]
        total[: len(part)] += part
    return folded(total)


def norm_in_order(x):
    """The 2-norm as the core sums it: 16 lanes in a row of 2048, 16 rows in a chunk, 256 lanes of chunks."""
    lanes, rows, row, chunk_lanes = 16, 16, 2048, 256
    squares = np.zeros(-(-x.size // (rows * row)) * rows * row)
    squares[: x.size] = x.astype(np.float64) ** 2  # zeros add nothing, and 0 is what a lane starts at
    of_rows = added(squares.reshape(-1, row).T.copy(), lanes)
    return np.sqrt(added(folded(of_rows.reshape(-1, rows).T), chunk_lanes))


@pytest.mark.parametrize("chunks", [0.1, 1, 2, 129])
def test_a_norm_is_summed_in_the_order_that_all_devices_share(chunks, threads):
    size = int(chunks * 32768) - 5
    x = np.random.default_rng(1).random(size, np.float32)
    want = norm_in_order(x)
    for count in (1, 3):
        opt.set_num_threads(count)
        assert opt.norm(x) == want


def test_chunks_of_one_lane_are_added_before_lanes_are_folded():
    """The first and the 257th come together before the 129th: two halves of a unit in its last place make one."""
    x = np.zeros(257 * 32768, np.float32)
    x[0] = x[256 * 32768] = 2.0**-53
    x[128 * 32768] = 1
    assert opt.norm(x, 1) == 1 + 2.0**-52


# ------------------------------------------------------------------------------------------------- overflow


@pytest.mark.parametrize("p", [-2.0, -3.5, 2.0, 3.5])
@pytest.mark.parametrize("low, high", [(1e-200, 1e200), (1e-200, 1.0), (1.0, 1e200), (1e-250, 1e-150)])
def test_norm_of_elements_far_apart_is_ruled_by_those_that_dominate(p, low, high):
    """For p < 0 the smallest, whose powers are the largest."""
    x = np.array([low, high, 2 * low, 2 * high])
    want = reference.norm([x], p)
    assert opt.norm(x, p) == pytest.approx(want, rel=1e-12, abs=0)
    parts = [x[:1].copy(), x[1:2].copy(), x[2:].copy()]
    assert opt.norm(parts, p) == pytest.approx(want, rel=1e-12, abs=0)
    for scope in ("leaf", "global"):
        spec = ("ClipNorm", {"omega": want / 8, "p": p, "scope": scope})
        for model in ([x], parts):
            xs = [np.zeros_like(a) for a in model]
            leaves = [reference.Leaf(spec, a) for a in xs]
            reference.update(leaves, model)
            opt.update_(opt.setup(build(spec), xs), xs, model)
            for leaf, a in zip(leaves, xs, strict=True):
                assert close(a, leaf.x, 1e-12 * np.abs(leaf.x))


# ---------------------------------------------------------------------------------------------- what is written


def test_measuring_takes_no_edit_into_the_master_copy():
    """A refused call has not seen that the leaf was edited: put back, it is what its master rounds to."""
    rule = opt.MixedPrecision(opt.OptimiserChain(opt.WeightDecay(0.1), opt.ClipNorm(1.0), opt.Descent(0.01)))
    x = sized((700,), "float16", 1)
    state = opt.setup(rule, x)
    opt.update_(state, x, sized((700,), "float16", 2))
    before, kept = fingerprint(x, state), x.copy()
    x[::3] = 0.5
    bad = sized((700,), "float16", 3)
    bad[9] = np.inf
    with pytest.raises(FloatingPointError):
        opt.update_(state, x, bad)
    x[...] = kept
    assert fingerprint(x, state) == before
