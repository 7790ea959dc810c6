"""optimisers.jax.transform: one custom call with the bits of update_, in place under donation, in any program."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from support import REFUSES_COMPLEX, bits

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; optimisers.jax is not tested")
from optimisers.jax import TransformState, transform  # noqa: E402
from optimisers.jax import optax as ours  # noqa: E402

jnp = jax.numpy
RULES = [getattr(opt, d["name"]) for d in opt._core.rule_descriptions() if not d["matrix"]]
CHAINS = [
    opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.WeightDecay(0.01), opt.Adam(0.1)),
    opt.OptimiserChain(opt.AccumGrad(2), opt.ClipNorm(0.5), opt.Momentum(0.1)),
    opt.OptimiserChain(opt.ScheduleFree(), opt.AdamW(0.1)),
    opt.OptimiserChain(),
]


def made(rule: Any) -> Any:
    return rule(2) if rule is opt.AccumGrad else rule() if isinstance(rule, type) else rule


def refuses_complex(rule: Any) -> bool:
    return any(type(stage).__name__ in REFUSES_COMPLEX for stage in made(rule)._stages())


def tree(dtype: str, seed: int = 0) -> dict[str, Any]:
    """Sizes around blocks, in JAX's order, since norms are summed in it."""
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> Any:
        x = rng.normal(size=shape)
        return np.asarray(x + 1j * rng.normal(size=shape) if "complex" in dtype else x).astype(jnp.dtype(dtype))

    return {"a": array(3, 171), "b": {"w": array(1), "x": array()}, "c": [array(0, 2), array(512), array(5000)]}


def host(tree: Any) -> list[Any]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def leaves_of(state: Any) -> list[Any]:
    return [state["a"], state["b"]["w"], state["b"]["x"], *state["c"]]


def clock_of(leaf: Any) -> list[float]:
    stages = leaf.clock if any(isinstance(stage, tuple) for stage in leaf.clock) else (leaf.clock,)
    return [float(x) for stage in stages for x in stage]


def same_as_numpy(rule: Any, dtype: str, steps: int = 5) -> None:
    ours = tree(dtype)
    params = jax.tree.map(jnp.asarray, ours)
    tx, state = transform(rule), opt.setup(rule, ours)
    step, kept = jax.jit(tx.apply), tx.init(params)
    for i in range(steps):
        grads = tree(dtype, 1 + i)
        opt.update_(state, ours, grads)
        params, kept = step(params, grads, kept)
    assert bits(*host(params)) == bits(*host(ours))
    assert kept.clock_values() in (clock_of(state["a"]), [x for leaf in leaves_of(state) for x in clock_of(leaf)])


@pytest.mark.parametrize("rule", [*RULES, *CHAINS], ids=str)
def test_same_bits_as_update(rule: Any) -> None:
    same_as_numpy(made(rule), "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
@pytest.mark.parametrize(
    "rule", [opt.Adam(0.1), opt.ScheduleFree(), CHAINS[0], CHAINS[1], opt.AdaGrad(), opt.Rprop()], ids=str
)
def test_same_bits_in_other_types(rule: Any, dtype: str) -> None:
    if dtype == "complex64" and refuses_complex(rule):
        with pytest.raises(ValueError, match="cannot train complex64"):
            transform(rule).init(tree(dtype))
        return
    same_as_numpy(rule, dtype)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_same_bits_in_double_precision(dtype: str) -> None:
    with jax.enable_x64(True):
        same_as_numpy(CHAINS[0], dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_master_copies_have_their_own_tree(dtype: str) -> None:
    rule = opt.MixedPrecision(opt.OptimiserChain(opt.ClipNorm(), opt.Adam(0.1)))
    same_as_numpy(rule, dtype)
    masters = jax.tree.leaves(transform(rule).init(tree(dtype)).master)
    assert [str(m.dtype) for m in masters] == (["float32"] * 6 if "16" in dtype else [])
    if dtype == "bfloat16":
        with jax.enable_x64(True):
            same_as_numpy(opt.MixedPrecision(opt.Adam(0.1), "float64"), dtype)
        with pytest.raises(ValueError, match="needs JAX's doubles"):
            transform(opt.MixedPrecision(opt.Adam(0.1), "float64"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int32"])
def test_gradients_of_another_type_are_converted(dtype: str) -> None:
    params = {"w": jnp.arange(4.0)}
    g = np.arange(4).astype(jnp.dtype(dtype))
    tx = transform(opt.Adam(0.1))
    new, _ = tx.apply(params, {"w": g}, tx.init(params))
    want = {"w": np.arange(4, dtype=np.float32)}
    opt.update_(opt.setup(opt.Adam(0.1), want), want, {"w": g})
    assert bits(np.asarray(new["w"])) == bits(want["w"])


def pointers(tree: Any) -> list[int]:
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(tree) if x.size]


def test_donated_parameters_and_state_are_written_in_place() -> None:
    rule = opt.OptimiserChain(opt.ClipNorm(), opt.AdamW(0.1))
    tx = transform(rule)
    params = jax.tree.map(jnp.asarray, tree("float32"))
    state = tx.init(params)
    step = jax.jit(tx.apply, donate_argnums=(0, 2))
    before = pointers([params, state.slots])
    old = params
    params, state = step(params, tree("float32", 1), state)
    assert pointers([params, state.slots]) == before
    with pytest.raises(ValueError, match=r'apply: the array at "a" was deleted: it was donated to an earlier call'):
        tx.apply(old, old, state)


def test_without_donation_what_came_in_is_unchanged() -> None:
    tx = transform(opt.Adam(0.1))
    params = jax.tree.map(jnp.asarray, tree("float32"))
    state = tx.init(params)
    before = bits(*host([params, state]))
    for f in (tx.apply, jax.jit(tx.apply)):
        f(params, params, state)
        assert bits(*host([params, state])) == before


def test_a_parameter_may_be_its_own_gradient_under_donation() -> None:
    tx = transform(opt.Momentum(0.5))
    step = jax.jit(lambda p, s: tx.apply(p, p, s), donate_argnums=(0, 1))
    want = {"w": np.arange(4000, dtype=np.float32)}
    params = {"w": jnp.arange(4000.0)}
    state, other = tx.init(params), opt.setup(opt.Momentum(0.5), want)
    for _ in range(3):
        params, state = step(params, state)
        opt.update_(other, want, {"w": want["w"].copy()})
    assert bits(np.asarray(params["w"])) == bits(want["w"])


def test_a_scan_of_30000_steps() -> None:
    rule = opt.Adam(1e-3)
    tx, x = transform(rule), np.ones(3, np.float32)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        return tx.apply(params, params - 3, state), None  # XLA itself flushes the smallest numbers to zero

    params = jnp.ones(3)
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=30_000))((params, tx.init(params)))
    other = opt.setup(rule, x)
    for _ in range(30_000):
        opt.update_(other, x, x - 3)
    assert bits(np.asarray(params)) == bits(x) and int(state.count) == 30_000
    assert state.clock_values() == [*other.clock]


def test_other_hyperparameters_compile_nothing() -> None:
    tx = transform(opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.1)))
    params = {"w": jnp.arange(4.0)}
    step, state = jax.jit(tx.apply), tx.init(params)
    want = {"w": np.arange(4, dtype=np.float32)}
    other = opt.setup(tx.rule, want)
    for change in ({}, {"eta": 0.01}, {"beta": (0.5, 0.99)}, {"lambda_": 0.1, "omega": 0.5}, {"eta": 1 / 3}):
        if change:
            state = tx.adjust(state, **change)
            opt.adjust_(other, **change)
        params, state = step(params, {"w": np.full(4, 2.0, np.float32)}, state)
        opt.update_(other, want, {"w": np.full(4, 2.0, np.float32)})
    assert bits(np.asarray(params["w"])) == bits(want["w"]) and step._cache_size() == 1
    assert transform(opt.Adam(0.5))._plan.text == transform(opt.Adam(0.25, beta=(0.5, 0.9)))._plan.text


def test_hyperparameters_are_given_by_step_and_by_schedule() -> None:
    schedule = lambda count: 0.5 / (1 + count)  # noqa: E731
    by_step = transform(opt.Momentum(0.9))
    by_schedule = transform(opt.Momentum(0.9), eta=schedule)
    params = {"w": jnp.arange(4.0)}
    want = {"w": np.arange(4, dtype=np.float32)}
    other = opt.setup(opt.Momentum(0.9), want)
    step = jax.jit(lambda p, s, eta: by_step.apply(p, p, s, eta=eta))
    scheduled = jax.jit(lambda p, s: by_schedule.apply(p, p, s))
    first, second = (params, by_step.init(params)), (params, by_schedule.init(params))
    for i in range(4):
        eta = np.float32(0.5) / np.float32(1 + i)
        first, second = step(*first, eta), scheduled(*second)
        opt.update_(opt.adjust_(other, float(eta)), want, {"w": want["w"].copy()})
    assert bits(np.asarray(first[0]["w"])) == bits(np.asarray(second[0]["w"])) == bits(want["w"])
    assert step._cache_size() == 1


@pytest.mark.parametrize("rule", [opt.Adam(0.1), CHAINS[0], CHAINS[1]], ids=str)
def test_vmap_is_problems_of_their_own(rule: Any) -> None:
    tx, n = transform(rule), 5
    params = {"a": jnp.arange(3.0 * n).reshape(n, 3), "b": jnp.ones((2, n, 4))}
    axes = {"a": 0, "b": 1}
    state = jax.vmap(tx.init, in_axes=(axes,))(params)
    step = jax.jit(jax.vmap(tx.apply, in_axes=(axes, axes, 0), out_axes=(axes, 0)))
    alone = [{"a": params["a"][i], "b": params["b"][:, i]} for i in range(n)]
    states = [tx.init(p) for p in alone]
    for i in range(3):
        g = {"a": jnp.cos(params["a"] + i), "b": jnp.arange(8.0 * n).reshape(2, n, 4)}
        own = [{"a": g["a"][k], "b": g["b"][:, k]} for k in range(n)]
        params, state = step(params, g, state)
        alone, states = zip(*[tx.apply(*each) for each in zip(alone, own, states, strict=True)], strict=True)
        for k in range(n):
            assert bits(np.asarray(params["a"][k]), np.asarray(params["b"][:, k])) == bits(*host(alone[k]))


def test_vmap_over_learning_rates() -> None:
    tx, etas = transform(opt.Momentum()), jnp.array([0.1, 0.2, 0.3])
    params = {"w": jnp.ones(4)}
    new, _ = jax.vmap(lambda eta: tx.apply(params, params, tx.init(params), eta=eta))(etas)
    for i, eta in enumerate(etas):
        want, _ = tx.apply(params, params, tx.init(params), eta=eta)
        assert bits(np.asarray(new["w"][i])) == bits(np.asarray(want["w"]))
    grid = jax.vmap(lambda a: jax.vmap(lambda b: tx.apply(params, params, tx.init(params), eta=a, rho=b)[0])(etas))(
        etas
    )
    want, _ = tx.apply(params, params, tx.init(params), eta=etas[1], rho=etas[2])
    assert bits(np.asarray(grid["w"][1, 2])) == bits(np.asarray(want["w"]))


def test_ties_are_one_parameter() -> None:
    w = np.arange(4, dtype=np.float32)
    tx = transform(opt.Adam(0.1))
    shared = jnp.asarray(w)
    params = {"a": shared, "b": {"c": shared}, "d": jnp.ones(2)}
    state = tx.init(params)
    assert state.ties == ((0, 1),) and state.slots[0]["m"]["b"] == {"c": None}
    want = {"a": w, "b": {"c": w}, "d": np.ones(2, np.float32)}
    other = opt.setup(opt.Adam(0.1), want)
    grads = {"a": np.ones(4, np.float32), "b": {"c": np.full(4, 0.3, np.float32)}, "d": np.ones(2, np.float32)}
    for _ in range(3):
        params, state = jax.jit(tx.apply)(params, grads, state)
        opt.update_(other, want, grads)
    assert bits(*host(params)) == bits(want["a"], want["a"], want["d"])


def test_what_is_no_parameter_is_left_alone() -> None:
    params = {"w": jnp.ones(2), "n": jnp.arange(3), "none": None, "key": jax.random.key(0)}
    tx = transform(opt.Adam(0.1))
    grads = jax.grad(lambda p: p["w"].sum(), allow_int=True)({k: params[k] for k in ("w", "n", "none")})
    float0 = np.zeros((), jax.dtypes.float0)
    new, state = tx.apply(params, {**grads, "key": float0}, tx.init(params))
    assert new["n"] is params["n"] and new["key"] is params["key"] and new["none"] is None
    assert state.slots[0]["m"]["n"] is None and (new["w"] < 1).all()
    with pytest.raises(TypeError, match='there is a gradient for "n", which is int32'):
        tx.apply(params, {**grads, "n": jnp.ones(3), "key": float0}, state)


def test_the_state_is_a_pytree_like_any_other() -> None:
    tx = transform(opt.AdamW(0.1))
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = tx.init(params)
    assert jax.tree.structure(state.slots[0]["m"]) == jax.tree.structure(params)
    shapes = jax.eval_shape(tx.init, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    leaves, structure = jax.tree.flatten(state)
    assert isinstance(jax.tree.unflatten(structure, leaves), TransformState)
    new, _ = jax.eval_shape(tx.apply, params, params, state)
    assert new["w"].shape == (2, 3)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    assert ".slots[0]['m']['w']" in paths


def test_sizes_and_rules_one_after_the_other_are_kept_apart() -> None:
    for _ in range(2):
        for n in (1, 2, 700, 100):
            for rule in (opt.Adam(0.1), opt.Descent(0.1), opt.Lion(0.1)):
                tx, x = transform(rule), np.ones(n, np.float32)
                new, _ = tx.apply(jnp.ones(n), jnp.ones(n), tx.init(jnp.ones(n)))
                opt.update_(opt.setup(rule, x), x, np.ones(n, np.float32))
                assert bits(np.asarray(new)) == bits(x)


def test_trees_of_many_leaves_go_in_several_calls_unless_they_share_a_norm() -> None:
    for rule, calls in ((opt.Adam(0.1), 4), (CHAINS[0], 1), (opt.NovoGrad(), 1)):
        tx = transform(rule)
        ours = {f"w{i:03}": np.full(1 + i % 5, i, np.float32) for i in range(200)}
        params = jax.tree.map(jnp.asarray, ours)
        state, kept = opt.setup(rule, ours), tx.init(params)
        assert str(jax.make_jaxpr(tx.apply)(params, params, kept)).count("ffi_call[") == calls
        for _ in range(2):
            grads = {k: x / 7 for k, x in ours.items()}
            params, kept = jax.jit(tx.apply)(params, grads, kept)
            opt.update_(state, ours, grads)
        assert bits(*host(params)) == bits(*host(ours))
    huge = {f"w{i:03}": jnp.ones(1) for i in range(600)}
    step = jax.jit(lambda p, s: transform(CHAINS[0]).apply(p, p, s)[0])
    assert bits(*host(step(huge, transform(CHAINS[0]).init(huge)))[:1]) == bits(
        *host(opt.update(opt.setup(CHAINS[0], huge), huge, huge)[1])[:1]
    )


def test_no_leaf_at_all() -> None:
    tx = transform(opt.Adam())
    params, state = jax.jit(tx.apply)({}, {}, tx.init({}))
    assert params == {} and int(state.count) == 1


@pytest.mark.parametrize("thing", [transform, ours], ids=lambda f: f.__name__)
def test_examples_in_docstrings_run(thing: Any) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, module=False, globs={})
    assert len(example.examples) > 4
    doctest.DocTestRunner().run(example, out=lambda text: pytest.fail(text))


def test_a_rule_of_whole_matrices_is_refused():
    tx, params = transform(opt.Muon()), {"w": np.ones((2, 2), np.float32)}
    with pytest.raises(jax.errors.JaxRuntimeError, match="Muon works on whole matrices, and inside jit"):
        jax.jit(tx.apply)(params, params, tx.init(params))
