"""JAX: gradients for NumPy parameters, parameters that are never written, and differentiation through destructure."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support import bits

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; what is promised for its arrays is not tested")
jnp = jax.numpy


def model_of(array: Any) -> Any:
    return {
        "w": array(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "b": array(np.ones(2, np.float32)),
        "name": "layer",
    }


def loss(model: Any) -> Any:
    return (model["w"] ** 2).sum() + model["b"].sum()


def test_jax_gradients_for_numpy_parameters() -> None:
    model, same = model_of(np.asarray), model_of(np.array)
    model = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in model.items()}
    g = jax.grad(lambda m: loss({**m, "name": ""}))({k: model[k] for k in ("w", "b")})
    opt.update_(opt.setup(opt.Adam(), model), model, g)
    opt.update_(opt.setup(opt.Adam(), same), same, {k: np.asarray(v) for k, v in g.items()})
    assert bits(model) == bits(same)


def test_jax_gradient_for_a_flat_vector() -> None:
    flat, re = opt.destructure({"w": np.ones(3, np.float32)})
    opt.update_(opt.setup(opt.Descent(1.0), flat, layout=re), flat, jnp.ones(3))
    assert (flat == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_pure_update_returns_jax_arrays_and_writes_into_none(dtype: str) -> None:
    old = {"w": jnp.ones((2, 3), dtype), "n": 3}
    state = opt.setup(opt.Momentum(0.5), old)
    before = np.array(old["w"])
    g = {"w": jnp.full((2, 3), 1, dtype)}
    for _ in range(2):
        state, new = opt.update(state, old, g)
    assert isinstance(new["w"], jax.Array) and new["w"].dtype == dtype and new["n"] == 3
    np.testing.assert_array_equal(np.array(old["w"]), before)
    np.testing.assert_allclose(np.array(new["w"]).astype(complex).real, 1 - 0.5 * 1.9, rtol=1e-2)
    np.testing.assert_array_equal(np.array(g["w"]), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_apply_reads_a_jax_array_and_returns_one(dtype: str) -> None:
    rule, x, g = opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.1)), jnp.arange(3, dtype=dtype), jnp.ones(3, dtype)
    state, same = opt.init(rule, x), opt.init(rule, np.array(x))
    for _ in range(2):
        _, dx = opt.apply_(rule, state, x, g)
        _, want = opt.apply_(rule, same, np.array(x), np.array(g))
        assert isinstance(dx, jax.Array) and bits(np.array(dx)) == bits(want)


def test_trajectory_equals_numpy() -> None:
    ours, theirs = model_of(jnp.asarray), model_of(np.array)
    rule = opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.1, lambda_=0.1))
    state, other = opt.setup(rule, ours), opt.setup(rule, theirs)
    for step in range(3):
        g = {"w": np.full((2, 3), 0.5 + step, np.float32), "b": None}
        state, ours = opt.update(state, ours, {"w": jnp.asarray(g["w"])})
        opt.update_(other, theirs, g)
    assert bits(np.asarray(ours["w"]), np.asarray(ours["b"])) == bits(theirs["w"], theirs["b"])


def test_update_in_place_names_the_pure_form() -> None:
    model = model_of(jnp.asarray)
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(ValueError, match='"b" is a JAX array, which cannot be written; use update') as error:
        opt.update_(state["b"], model["b"], model["b"])
    assert str(error.value).startswith("update_:")


def test_arrays_that_share_memory_are_no_tie_but_one_object_is() -> None:
    host = np.ones(64, np.float32)
    model = {"a": jnp.asarray(host), "b": jnp.asarray(host)}
    assert len(opt.trainables(model)) == 2
    tied = {"a": model["a"], "b": model["a"]}
    assert len(opt.trainables(tied)) == 1
    _, new = opt.update(opt.setup(opt.Descent(1.0), tied), tied, {"a": jnp.ones(64), "b": jnp.ones(64)})
    assert new["a"] is new["b"] and (new["a"] == -1).all()


def test_user_defined_rules_see_numpy() -> None:
    seen = []

    class Look(opt.Rule):
        def init(self, x: Any) -> Any:
            seen.append(type(x))

        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            seen.append(type(x))
            return state, jnp.asarray(dx) * 2

    x = jnp.ones(2)
    _, new = opt.update(opt.setup(Look(), x), x, jnp.ones(2))
    assert seen == [np.ndarray, np.ndarray] and (new == -1).all()


@pytest.mark.parametrize("array", [np.array, jnp.asarray])
def test_grad_and_jit_go_through_re(array: Any) -> None:
    model = model_of(array)
    flat, re = opt.destructure(model)
    assert isinstance(flat, np.ndarray if array is np.array else jax.Array)
    g = jax.jit(jax.grad(lambda v: loss(re(v))))(flat)
    ends = [0, 2, 4, 6, 8, 10], [1, 1]
    np.testing.assert_allclose(np.asarray(g), np.concatenate(ends if array is np.array else ends[::-1]))
    rebuilt = re(jnp.asarray(flat))
    assert isinstance(rebuilt["w"], jax.Array) and rebuilt["name"] == "layer"


def test_grad_and_jit_go_through_destructure_flatten_and_trainables() -> None:
    model = {k: v for k, v in model_of(jnp.asarray).items() if k != "name"}
    _, re = opt.destructure(model)
    by = {
        "destructure": lambda m: (opt.destructure(m)[0] ** 2).sum(),
        "flatten": lambda m: (re.flatten(m) ** 2).sum(),
        "trainables": lambda m: sum((x**2).sum() for x in opt.trainables(m)),
    }
    for f in by.values():
        for g in (jax.grad(f)(model), jax.jit(jax.grad(f))(model)):
            np.testing.assert_allclose(np.asarray(g["w"]), 2 * np.asarray(model["w"]))
            np.testing.assert_allclose(np.asarray(g["b"]), [2, 2])


def test_flatten_sums_ties_and_fills_with_zeros_under_grad() -> None:
    w = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    _, re = opt.destructure({"a": w, "b": w.T, "c": np.ones(2, np.float32)})
    direct = re.flatten({"a": np.ones((2, 3)), "b": w.T})
    traced = jax.jit(lambda a: re.flatten({"a": a, "b": w.T}))(jnp.ones((2, 3)))
    np.testing.assert_array_equal(direct, np.asarray(traced))
    with pytest.raises(ValueError, match='flatten: array at "c" has shape'):
        jax.jit(lambda c: re.flatten({"c": c}))(jnp.ones(3))


def test_wrong_length_gives_both() -> None:
    _, re = opt.destructure(model_of(jnp.asarray))
    with pytest.raises(ValueError, match=r"\(3,\).*\(8,\)"):
        re(jnp.ones(3))


def test_frozen_and_missing_leaves_keep_their_values() -> None:
    model = model_of(jnp.asarray)
    state = opt.setup(opt.Descent(1.0), model)
    opt.freeze_(state["w"])
    _, new = opt.update(state, model, {"w": jnp.ones((2, 3))})
    assert bits(np.asarray(new["w"]), np.asarray(new["b"])) == bits(np.asarray(model["w"]), np.asarray(model["b"]))


def test_ties_of_jax_arrays_that_no_longer_hold_are_refused() -> None:
    w = jnp.ones((2, 2))
    state = opt.setup(opt.Descent(1.0), {"a": w, "b": w})
    with pytest.raises(ValueError, match='"a" and "b" were one at setup'):
        opt.update(state, {"a": w, "b": 5 * w}, {"a": w})


REAL = jnp.ones(3)
CALLS = {
    "setup": lambda x: opt.setup(opt.Adam(), {"w": x}) and x,
    "setup with a layout": lambda x: opt.setup(opt.Adam(), x, layout=opt.destructure({"w": np.ones(3)})[1]) and x,
    "update, gradient": lambda x: opt.update(opt.setup(opt.Adam(), [np.ones(3)]), [np.ones(3)], [x])[1][0],
    "update, parameter": lambda x: opt.update(opt.setup(opt.Adam(), [REAL]), [x], [np.ones(3)])[1][0],
    "update_": lambda x: opt.update_(opt.setup(opt.Adam(), [np.ones(3)]), [np.ones(3)], [x])[1][0],
    "init": lambda x: opt.init(opt.Adam(), x) and x,
    "apply_, parameter": lambda x: opt.apply_(opt.Adam(), opt.init(opt.Adam(), REAL), x, np.ones(3))[1],
    "apply_, gradient": lambda x: opt.apply_(opt.Adam(), opt.init(opt.Adam(), np.ones(3)), np.ones(3), x)[1],
    "norm": lambda x: opt.norm([x]) * x,
    "lerp_, target": lambda x: opt.lerp_([x], [np.ones(3)], 0.5)[0],
    "lerp_, source": lambda x: opt.lerp_([np.ones(3)], [x], 0.5)[0],
}


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, lambda f: jax.grad(lambda x: f(x).sum())])
@pytest.mark.parametrize("call", CALLS)
def test_what_reads_values_is_refused_while_jax_traces(call: str, transform: Any) -> None:
    with pytest.raises(TypeError, match="is traced by JAX") as error:
        transform(CALLS[call])(jnp.ones((3, 3) if transform is jax.vmap else 3))
    assert str(error.value).startswith(call.split(",")[0].split()[0].rstrip("_"))


def test_random_keys_in_a_model_are_not_trained() -> None:
    model = {"rng": jax.random.key(0), "w": jnp.ones(2)}
    assert not opt.isnumeric(model["rng"])
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, {"w": jnp.ones(2), "rng": None})
    assert new["rng"] is model["rng"] and (new["w"] == 0).all()


def test_isnumeric_knows_jax_arrays() -> None:
    assert opt.isnumeric(jnp.ones(2)) and not opt.isnumeric(jnp.arange(2)) and not opt.maywrite(jnp.ones(2))
    assert jax.jit(lambda x: opt.isnumeric(x) * x)(jnp.ones(2)).tolist() == [1, 1]


def test_a_jax_vector_is_updated_by_its_layout() -> None:
    model, host = model_of(jnp.asarray), model_of(np.array)
    flat, re = opt.destructure(model)
    rule = opt.OptimiserChain(opt.ClipNorm(1.0), opt.Adam(0.1))
    state, other = opt.setup(rule, flat, layout=re), opt.setup(rule, host)
    for _ in range(2):
        state, flat = opt.update(state, flat, jnp.arange(8.0))
        opt.update_(other, host, {"w": np.arange(2.0, 8.0).reshape(2, 3), "b": np.arange(2.0)})
    assert isinstance(flat, jax.Array) and bits(np.asarray(flat)) == bits(np.append(host["b"], host["w"].ravel()))
    with pytest.raises(
        ValueError, match="update_: the flat vector is a JAX array, which cannot be written; use update"
    ):
        opt.update_(state, flat, flat)


def test_arrays_stay_where_they_were_put() -> None:
    script = """
import jax, jax.numpy as jnp, optimisers as opt
second = jax.devices()[1]
x = jax.device_put(jnp.ones(4), second)
rule = opt.Descent(1.0)
state, new = opt.update(opt.setup(rule, x), x, jnp.ones(4))
assert new.committed and new.devices() == {second} and new.tolist() == [0, 0, 0, 0]
assert opt.apply_(rule, opt.init(rule, x), x, x)[1].devices() == {second}
free = jnp.ones(4)
assert not opt.update(opt.setup(rule, free), free, free)[1].committed
"""
    flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=flags, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tracers_are_sent_to_optimisers_jax_and_donated_arrays_are_named() -> None:
    with pytest.raises(TypeError, match=r"or step inside it with optimisers\.jax"):
        jax.jit(lambda x: opt.setup(opt.Adam(), {"w": x}))(jnp.ones(2))
    gone, here = jnp.ones(3), [jnp.ones(3)]
    state = opt.setup(opt.Adam(), here)
    jax.jit(lambda x: x + 1, donate_argnums=0)(gone)
    words = '"(a.w|0)" was deleted: it was donated to an earlier call of a JAX function; use what that one returned'
    for call in (
        lambda: opt.setup(opt.Adam(), {"a": {"w": gone}}),
        lambda: opt.destructure({"a": {"w": gone}}),
        lambda: opt.trainables({"a": {"w": gone}}),
        lambda: opt.norm({"a": {"w": gone}}),
        lambda: opt.update(state, [gone], here),
        lambda: opt.update(state, here, [gone]),
    ):
        with pytest.raises(opt.OptimisersError, match=words):
            call()
