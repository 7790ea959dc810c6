"""Rules that sum over a leaf, or over all: what they sum, in which order, when, and what they refuse."""

import numpy as np
import pytest
from following import follow_together, leaf_gradients
from support import SUMS, bits, build, fingerprint, follow, layers, needed, sized, slots, spec_id, trained, wide

import optimisers as opt
from optimisers.torch._local import looks_at_whole

C = opt.OptimiserChain
EVERY_SUM = pytest.mark.parametrize("name", sorted(SUMS))


def in_the_documented_order(terms: np.ndarray) -> float:
    """Element i to lane i mod 16 of row i / 2048; lanes, 16 rows and at last 256 lanes of chunks are folded."""

    def fold(a: np.ndarray) -> np.ndarray:
        while len(a) > 1:
            a = a[: len(a) // 2] + a[len(a) // 2 :]
        return a[0]

    chunks = []
    for chunk in np.split(terms, range(16 * 2048, len(terms), 16 * 2048)):
        rows = np.zeros((16, 16))  # [lane][row]
        for i, row in enumerate(np.split(chunk, range(2048, len(chunk), 2048))):
            for begin in range(0, len(row), 16):
                part = row[begin : begin + 16]
                rows[: len(part), i] += part
        chunks.append(fold(rows.reshape(256)))
    lanes = np.zeros(256)
    for i, total in enumerate(chunks):
        lanes[i % 256] += total
    return float(chunks[0] if len(chunks) == 1 else fold(lanes))


@pytest.mark.parametrize("n", [1, 15, 17, 2048, 2049, 32_768, 100_003])
def test_sums_are_made_in_the_order_of_norms(n):
    x, g = sized((n,), "float64", 1, 0.1, 3.0), sized((n,), "float64", 2, 0.1, 3.0)
    sizes = [np.sqrt(in_the_documented_order(a * a)) for a in (x, g)]
    want = x - ((sizes[0] / sizes[1]) * g + 0.0 * x)
    state = opt.setup(opt.TrustRatio(), x)
    opt.update_(state, x, g)
    assert bits(x) == bits(want)


def test_the_order_of_leaves_in_a_global_sum_is_their_place_in_the_model():
    shapes = [(3, 5), (40_000,), (), (0,), (513,)]
    x = [np.zeros(shape) for shape in shapes]
    g = [sized(shape, "float64", 3 + i, 0.5, 4.0) for i, shape in enumerate(shapes)]
    sums = [in_the_documented_order(a.ravel() ** 2) if a.size else 0.0 for a in g]
    rms = np.sqrt(_folded(sums) / sum(a.size for a in g))
    opt.update_(opt.setup(opt.ClipRMS(0.5, "global"), x), x, g)
    assert all(np.array_equal(a, -(1 / (rms / 0.5)) * b) for a, b in zip(x, g, strict=True))


def _folded(sums: list[float]) -> float:
    lanes = np.zeros(256)
    lanes[: len(sums)] = sums
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return float(lanes[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_a_global_sum_is_of_all_leaves_that_come_to_it(dtype):
    shapes = [(3, 5), (), (0,), (513,), (7,)]
    together = ("ClipRMS", {"omega": 0.01, "scope": "global"})
    specs = [[("Momentum", {}), together, ("Adam", {})] if i % 2 else [together, ("Adam", {})] for i in range(5)]
    follow_together(specs, shapes, leaf_gradients(shapes, dtype), dtype)


def test_norms_and_sums_meet_their_own_kind_only():
    shapes = [(3, 5), (11,), (20,), (6,)]
    rms, clip = ("ClipRMS", {"omega": 0.1, "scope": "global"}), ("ClipNorm", {"omega": 0.3, "scope": "global"})
    specs = [
        [rms, ("Momentum", {}), clip],
        [("WeightDecay", {}), ("TrustRatio", {}), clip, rms],
        [clip, ("ClipRMS", {"omega": 0.2}), rms],
        [("AccumGrad", {"n": 2}), rms, ("Adam", {})],
    ]
    grads = leaf_gradients(shapes, "float64")
    grads[1][0] = grads[2][1] = None
    follow_together(specs, shapes, grads, "float64", frozen=())


@pytest.mark.parametrize("name", sorted(SUMS))
@pytest.mark.parametrize("where", ["between", "behind a gate", "twice"])
def test_sums_are_of_what_has_come_to_the_stage(name, where):
    spec = (name, needed(name))
    chain = {
        "between": [("Momentum", {}), spec, ("WeightDecay", {"lambda_": 0.1})],
        "behind a gate": [("AccumGrad", {"n": 2}), ("Adam", {}), spec],
        "twice": [spec, ("Descent", {"eta": 0.5}), spec],
    }[where]
    for dtype in ("float16", "float32", "float64"):
        grads = [np.abs(sized((1300,), dtype, 20 + i)) for i in range(6)]
        follow(chain, sized((1300,), dtype, 1, 0.5, 2.0), grads)


@EVERY_SUM
def test_sums_of_a_master_copy_are_those_of_a_wide_leaf(name):
    rule, narrow = C(opt.Adam(), build((name, needed(name)))), sized((1300,), "float16", 1, 0.5, 2.0)
    wide_one = narrow.astype(np.float32)
    states = opt.setup(opt.MixedPrecision(rule), narrow), opt.setup(rule, wide_one)
    for seed in range(3):
        g = sized((1300,), "float16", 10 + seed)
        opt.update_(states[0], narrow, g)
        opt.update_(states[1], wide_one, g.astype(np.float32))
    assert bits(states[0].state[0]) == bits(wide_one) and bits(narrow) == bits(wide_one.astype(np.float16))


@EVERY_SUM
def test_any_layout_gives_the_bits_of_a_contiguous_leaf(name):
    rule = build([("Momentum", {}), (name, needed(name))])
    x, strided = sized((4100,), "float32", 1), np.zeros((4100, 2), np.float32)[:, 0]
    strided[...] = x
    states = opt.setup(rule, x), opt.setup(rule, strided)
    for seed in range(3):
        g = sized((4100,), "float32", 10 + seed)
        opt.update_(states[0], x, g)
        opt.update_(states[1], strided, np.repeat(g, 2)[::2])
    assert bits(x, slots(states[0])) == bits(strided.copy(), slots(states[1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("spec", [(n, needed(n)) for n in sorted(SUMS - {"Cautious"})], ids=spec_id)
def test_a_sum_that_is_not_finite_is_an_error_and_nothing_is_written(spec, bad):
    model = layers()
    state = trained(build([("Momentum", {}), spec]), model)
    before, grads = fingerprint(model, state), layers(3, "float32", 7)
    grads["layers"][1]["weight"][2] = bad
    with pytest.raises(FloatingPointError, match=rf'{spec[0]} expects finite .* first at "layers\.1\.weight"') as error:
        opt.update_(state, model, grads)
    assert 'non_finite="skip"' in str(error.value)
    assert fingerprint(model, state) == before


def test_a_global_sum_names_the_first_leaf_that_is_to_blame():
    model = {"a": np.ones(3), "b": np.ones(3), "c": np.ones(3)}
    state = opt.setup(opt.ClipRMS(scope="global"), model)
    bad = np.array([1.0, np.nan, 1.0])
    with pytest.raises(FloatingPointError, match=r'ClipRMS expects finite numbers, got nan .* "b"'):
        opt.update_(state, model, {"a": np.ones(3), "b": bad, "c": bad})
    assert all((x == 1).all() for x in model.values())


def test_a_number_of_the_clock_that_sums_join_goes_back_with_the_call():
    model = {"a": np.ones(3), "b": np.ones(3)}
    state = opt.setup(opt.NovoGrad(), model)
    opt.update_(state, model, {"a": np.full(3, 2.0), "b": np.ones(3)})
    assert state["a"].clock.v == 12.0
    with pytest.raises(FloatingPointError):
        opt.update_(state, model, {"a": np.ones(3), "b": np.full(3, np.nan)})
    assert state["a"].clock.v == 12.0 and state["a"].clock.t == 1


# ------------------------------------------------------------------------------------ the papers' algorithms


def test_lamb_is_a_chain():
    x, lr, decay = sized((3, 7), "float64", 1), 0.1, 0.01
    want, m, v = x.copy(), 0.0, 0.0
    state = opt.setup(C(opt.Adam(1.0, epsilon=1e-6), opt.WeightDecay(decay), opt.TrustRatio(), opt.Descent(lr)), x)
    for t in range(1, 9):
        g = sized((3, 7), "float64", 10 + t)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * want
        want = want - lr * np.linalg.norm(want) / np.linalg.norm(u) * u
        opt.update_(state, x, g)
        assert np.allclose(x, want, rtol=1e-13)


def test_lars_and_larc_are_chains():
    x, lr, decay, trust = sized((40,), "float64", 1), 0.5, 0.01, 0.02
    want, buffer = x.copy(), 0.0
    state = opt.setup(C(opt.TrustRatio(trust, decay, 1e-8), opt.Momentum(lr, 0.9)), x)
    clipped, bound = x.copy(), 1e-3
    larc = opt.setup(C(opt.TrustRatio(trust, decay, 1e-8, largest=bound), opt.Descent(1.0)), clipped)
    for t in range(8):
        g = sized((40,), "float64", 10 + t)
        sizes = np.linalg.norm(want), np.linalg.norm(g)
        buffer = 0.9 * buffer + lr * trust * sizes[0] / (sizes[1] + decay * sizes[0] + 1e-8) * (g + decay * want)
        want = want - buffer
        before = clipped.copy()
        opt.update_(state, x, g)
        opt.update_(larc, clipped, g)
        assert np.allclose(x, want, rtol=1e-13)
        assert np.allclose(before - clipped, bound * (g + decay * before), rtol=1e-9)


def test_no_step_of_cautious_goes_against_the_gradient():
    x = sized((999,), "float32", 1)
    state = opt.setup(C(opt.Momentum(0.1, 0.9), opt.Cautious()), x)
    for t in range(6):
        g, before = sized((999,), "float32", 10 + t), wide(x)
        opt.update_(state, x, g)
        assert ((before - wide(x)) * g >= 0).all()
        assert 0 < np.count_nonzero(before - wide(x)) < 999 or t == 0


def test_mars_keeps_a_copy_of_the_gradient():
    x, twin = sized((5,), "float32", 1), sized((5,), "float32", 1)
    states, g = (opt.setup(opt.MARS(), x), opt.setup(opt.MARS(), twin)), sized((5,), "float32", 2)
    for seed in range(3):
        g[...] = sized((5,), "float32", seed)
        opt.update_(states[0], x, g)
        opt.update_(states[1], twin, g.copy())
        g[...] = 0
    assert bits(x) == bits(twin)


def test_a_part_of_a_sharded_array_is_no_whole_one():
    assert all(looks_at_whole(build((name, needed(name)))) == name for name in SUMS)
    assert looks_at_whole(C(opt.Adam(), opt.ClipRMS(scope="global"))) == "ClipRMS"
    assert looks_at_whole(C(opt.Adam(), opt.ClipNorm(scope="global"))) is None
