"""Models of the libraries built on JAX, each trained in both ways: eagerly by update, and inside jit by transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import bits

import optimisers as opt

jax = pytest.importorskip("jax", reason="JAX is not installed; models of its libraries are not tested")
from optimisers.jax import optax as ours  # noqa: E402
from optimisers.jax import transform  # noqa: E402

jnp = jax.numpy
X = jnp.cos(jnp.arange(12.0)).reshape(6, 2)
Y = X @ jnp.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])


def mean_square(y: Any) -> Any:
    return ((y - Y) ** 2).mean()


def flax_nnx() -> tuple[Any, Callable[[Any], Any]]:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed; its models are not tested")
    graph, params, rest = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param, ...)
    return params, lambda p: mean_square(nnx.merge(graph, p, rest)(X))


def flax_linen() -> tuple[Any, Callable[[Any], Any]]:
    flax = pytest.importorskip("flax", reason="flax is not installed; its models are not tested")
    linen = pytest.importorskip("flax.linen")
    dense = linen.Dense(3)
    params = flax.core.freeze(dense.init(jax.random.key(0), X))
    return params, lambda p: mean_square(dense.apply(p, X))


def haiku() -> tuple[Any, Callable[[Any], Any]]:
    hk = pytest.importorskip("haiku", reason="haiku is not installed; its models are not tested")
    net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(3)(x)))
    return net.init(jax.random.key(0), X), lambda p: mean_square(net.apply(p, X))


def equinox() -> tuple[Any, Callable[[Any], Any]]:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed; its models are not tested")
    params, static = eqx.partition(eqx.nn.Linear(2, 3, key=jax.random.key(0)), eqx.is_inexact_array)
    return params, lambda p: mean_square(jax.vmap(eqx.combine(p, static))(X))


@pytest.mark.parametrize("library", [flax_nnx, flax_linen, haiku, equinox], ids=lambda f: f.__name__)
def test_both_ways_train_a_model_alike(library: Any) -> None:
    params, loss = library()
    rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.AdamW(0.1))
    tx = transform(rule)
    grad = jax.jit(jax.grad(loss))
    step = jax.jit(tx.apply)
    state, eager, first = tx.init(params), opt.setup(rule, params), params
    by_update = params
    for _ in range(20):
        params, state = step(params, grad(params), state)
        eager, by_update = opt.update(eager, by_update, grad(by_update))
    assert type(params) is type(by_update) is type(first) and loss(params) < 0.5 * loss(first)
    assert bits(*map(np.asarray, jax.tree.leaves(params))) == bits(*map(np.asarray, jax.tree.leaves(by_update)))
    assert len(opt.trainables(first)) == len(jax.tree.leaves(first)) == 2


def test_a_train_state_of_flax_takes_it_as_optax() -> None:
    train_state = pytest.importorskip("flax.training.train_state", reason="flax is not installed")
    params, loss = flax_linen()
    state = train_state.TrainState.create(apply_fn=None, params=params, tx=ours(opt.Adam(0.1)))
    step = jax.jit(lambda s: s.apply_gradients(grads=jax.grad(loss)(s.params)))
    for _ in range(20):
        state = step(state)
    assert loss(state.params) < 0.5 * loss(params)
