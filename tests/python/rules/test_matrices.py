"""Rules that work on whole matrices: what a leaf is as a matrix, how orthogonal it becomes, what is refused."""

import warnings

import numpy as np
import pytest
from support import bits, build, fingerprint, sized, slots, to_numpy, to_torch, wide

import optimisers as opt
import reference

C = opt.OptimiserChain
VARIANTS = [
    {},
    {"nesterov": False, "lambda_": 0.1, "rho": 0.7},
    {"scaling": "match_rms", "coefficients": "polar_express"},
    {"scaling": "spectral", "layout": "in_out", "steps": 3},
    {"scaling": "match_rms", "steps": 7, "coefficients": "polar_express", "layout": "in_out"},
]
SHAPES = [(1, 1), (5, 3), (3, 5), (40, 17), (13, 64), (8, 3, 3, 3), (70, 70), (0, 4)]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_trajectory_is_the_references(fields, shape):
    spec, x = ("Muon", fields), sized(shape, "float64", 1, 0.5, 2.0)
    grads = [sized(shape, "float64", 10 + i) for i in range(4)]
    state = opt.setup(build(spec), x)
    for want, g in zip(reference.run(spec, x.copy(), grads), grads, strict=True):
        opt.update_(state, x, g)
        assert np.allclose(x, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_a_batch_is_so_many_matrices(layout):
    rule = opt.Muon(batched=True, layout=layout, scaling="spectral")
    x = sized((4, 6, 3), "float32", 1)
    single = [a.copy() for a in x]
    states = opt.setup(rule, x), opt.setup(opt.Muon(layout=layout, scaling="spectral"), single)
    for seed in range(3):
        g = sized((4, 6, 3), "float32", 10 + seed)
        opt.update_(states[0], x, g)
        opt.update_(states[1], single, [a.copy() for a in g])
    assert bits(x) == bits(np.stack(single))


@pytest.mark.parametrize("dtype, most", [("float64", 1e-13), ("float32", 3e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("coefficients", ["keller", "polar_express"])
def test_rounding_errors_stay_small_beside_a_float64_decomposition(dtype, most, coefficients):
    """Of the step, relative to the orthogonal matrix's entries: x starts at 0."""
    shape = (97, 200)
    x, g = np.zeros(shape, sized((1,), dtype, 1).dtype), sized(shape, dtype, 2)
    opt.update_(opt.setup(opt.Muon(1.0, 0.0, coefficients=coefficients), x), x, g)
    want = reference.orthogonalised(wide(g), 5, coefficients == "polar_express")
    assert np.abs(wide(x) + want).max() <= most * np.sqrt((want**2).mean()) * 5


@pytest.mark.parametrize("coefficients, low, high", [("keller", 0.6, 1.25), ("polar_express", 0.85, 1.15)])
def test_singular_values_come_close_to_one(coefficients, low, high):
    rng = np.random.default_rng(1)
    x, g = np.zeros((64, 256), np.float32), rng.normal(size=(64, 256)).astype(np.float32)
    opt.update_(opt.setup(opt.Muon(1.0, coefficients=coefficients), x), x, g)
    sizes = np.linalg.svd(x, compute_uv=False)
    assert low < sizes.min() and sizes.max() < high


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(dtype, threads):
    results = set()
    for count in (1, 2, 3, 7):
        opt.set_num_threads(count)
        model = [sized(shape, dtype, 1) for shape in ((410, 700), (700, 130), (9, 5))]
        state = opt.setup(C(opt.ClipNorm(1.0, scope="global"), opt.Muon()), model)
        for seed in range(2):
            opt.update_(state, model, [sized(x.shape, dtype, 10 + seed) for x in model])
        results.add(bits(model, [slots(state[i]) for i in range(3)]))
    assert len(results) == 1


@pytest.fixture
def threads():
    before = opt.get_num_threads()
    yield
    opt.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "chain",
    [
        [("ClipNorm", {"omega": 0.5}), ("Muon", {})],
        [("AccumGrad", {"n": 2}), ("Muon", {"lambda_": 0.1})],
        [("WeightDecay", {"lambda_": 0.1}), ("Momentum", {}), ("Muon", {"rho": 0.0}), ("Descent", {"eta": 0.5})],
    ],
    ids=["clipped", "collected", "between"],
)
def test_stages_before_and_behind_run_once(chain, dtype):
    x, grads = sized((12, 7), dtype, 1, 0.5, 2.0), [sized((12, 7), dtype, 10 + i) for i in range(6)]
    leaf, state = reference.Leaf(chain, x, x.dtype), opt.setup(build(chain), x)
    for g in grads:
        leaf.x = wide(x)
        reference.update([leaf], [wide(g)])
        opt.update_(state, x, g)
        assert np.allclose(wide(x), leaf.x, atol={"float16": 4e-3, "float32": 2e-5, "float64": 1e-10}[dtype])


def test_any_layout_of_memory_and_a_master_copy_give_the_bits_of_a_plain_leaf():
    rule, shape = opt.Muon(lambda_=0.1), (30, 20)
    x = sized(shape, "float32", 1)
    turned, half = np.asfortranarray(x), x.astype(np.float16)
    start = half.astype(np.float32)
    states = [opt.setup(rule, a) for a in (x, turned, start)]
    mixed = opt.setup(opt.MixedPrecision(rule), half)
    for seed in range(3):
        g = sized(shape, "float16", 10 + seed)
        for state, a in zip(states, (x, turned, start), strict=True):
            opt.update_(state, a, g.astype(np.float32))
        opt.update_(mixed, half, g)
    assert bits(x) == bits(np.ascontiguousarray(turned))
    assert bits(mixed.state[0]) == bits(start)


def test_no_gradient_is_ever_written():
    x, g = to_torch(sized((8, 4), "float32", 1)), to_torch(sized((8, 4), "float32", 2))
    before = bits(to_numpy(g))
    opt.update_(opt.setup(opt.Muon(), x), x, g)
    assert bits(to_numpy(g)) == before


def test_a_convolution_is_scaled_by_its_matrix():
    """(out, in, 3, 3) is [out, 9 in]: the kernel's sides are no scale."""
    x, flat = np.zeros((64, 2, 3, 3)), np.zeros((64, 18))
    g = sized((64, 18), "float64", 1)
    opt.update_(opt.setup(opt.Muon(), x), x, g.reshape(x.shape))
    opt.update_(opt.setup(opt.Muon(), flat), flat, g)
    assert bits(x.reshape(64, 18)) == bits(flat)
    assert np.isclose(np.sqrt(64 / 18), np.abs(x).max() / np.abs(_unscaled(g)).max())


def _unscaled(g):
    return 0.02 * reference.orthogonalised(g, 5, False)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("shape, text", [((), r"\(\)"), ((3,), r"\(3,\)")])
def test_a_leaf_that_is_no_matrix_is_refused_by_its_path(shape, text):
    with pytest.raises(
        ValueError, match=rf'Muon at "layers\.0\.bias" works on matrices, and its shape is {text}; give'
    ):
        opt.setup(opt.Muon(), {"layers": [{"weight": np.ones((2, 2)), "bias": np.ones(shape)}]})
    with pytest.raises(ValueError, match=r"arrays of matrices, three axes or more, and its shape is \(2, 3\)"):
        opt.setup(opt.Muon(batched=True), np.ones((2, 3)))


def test_complex_matrices_and_measurements_behind_are_refused():
    with pytest.raises((TypeError, ValueError), match="its matrices are real"):
        opt.setup(opt.Muon(), np.ones((2, 2), np.complex64))
    with pytest.raises(ValueError, match=r"ClipNorm .* measures what Muon made of whole matrices; put it before"):
        opt.setup(C(opt.Muon(), opt.ClipNorm()), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r'scaling must be "original", "match_rms" or "spectral"'):
        opt.Muon(scaling="moonlight")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_an_error_and_nothing_is_written(bad):
    model = {"a": np.ones((2, 2)), "b": np.ones((2, 3))}
    state = opt.setup(opt.Muon(), model)
    before = fingerprint(model, state)
    with pytest.raises(FloatingPointError, match=r'Muon expects finite numbers.* "b"'):
        opt.update_(state, model, {"a": np.ones((2, 2)), "b": np.full((2, 3), bad)})
    assert fingerprint(model, state) == before


# ------------------------------------------------------------------------------------------ one state for all


def hybrid():
    model = {
        "embed": sized((6, 4), "float32", 1),
        "hidden": {"weight": sized((4, 4), "float32", 2), "bias": np.zeros(4)},
    }
    rules = {"embed": opt.AdamW(1e-3), "**.weight": opt.Muon(0.02), ...: opt.AdamW(1e-3)}
    return model, opt.setup(rules, model)


def test_muon_and_adamw_are_one_state_one_schedule_and_one_file(tmp_path):
    model, state = hybrid()
    grads = {"embed": np.ones((6, 4)), "hidden": {"weight": sized((4, 4), "float32", 3), "bias": np.ones(4)}}
    opt.update_(state, model, grads)
    opt.adjust_(state, scale=0.5)
    assert (state["hidden"]["weight"].rule.eta, state["embed"].rule.eta) == (0.01, 5e-4)
    opt.save(tmp_path / "hybrid.safetensors", state, model)
    other, again = hybrid()
    opt.load(tmp_path / "hybrid.safetensors", again, other)
    for s, m in ((state, model), (again, other)):
        opt.update_(s, m, grads)
    assert fingerprint(model, state) == fingerprint(other, again)


@pytest.mark.parametrize("name", ["embed", "wte", "lm_head", "tok_embeddings"])
def test_setup_warns_of_names_that_are_no_hidden_matrices(name):
    with pytest.warns(UserWarning, match=f'Muon at "{name}.weight" looks like an embedding or a head'):
        opt.setup(opt.Muon(), {name: {"weight": np.ones((3, 2))}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.setup(opt.Muon(), {"attention": {"heads": np.ones((3, 2)), "weight": np.ones((3, 2))}})
        opt.setup(opt.Adam(), {name: np.ones((3, 2))})


def test_torchs_optimizer_has_it():
    from optimisers.torch import Muon

    x = to_torch(sized((5, 3), "float32", 1)).requires_grad_()
    twin = sized((5, 3), "float32", 1)
    optimizer, state = Muon([x], lr=0.1, weight_decay=0.2), opt.setup(opt.Muon(0.1, lambda_=0.2), twin)
    for seed in range(3):
        g = sized((5, 3), "float32", 10 + seed)
        x.grad = to_torch(g)
        optimizer.step()
        opt.update_(state, twin, g)
    assert bits(to_numpy(x.detach())) == bits(twin)


def test_the_one_array_functions_follow():
    x = sized((9, 4), "float32", 1)
    _, dx = opt.apply_(opt.Muon(), opt.init(opt.Muon(), x), x, sized((9, 4), "float32", 2))
    want = reference.run(("Muon", {}), wide(x), [wide(sized((9, 4), "float32", 2))])[0]
    assert np.allclose(x - dx, want, atol=1e-5)
