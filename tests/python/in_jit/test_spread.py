"""Steps of arrays that are spread over several devices: each device its part, the same bits, and no norm of parts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="JAX is not installed; optimisers.jax is not tested")

BEGIN = """
import functools, threading
import jax, jax.numpy as jnp, numpy as np, optimisers as opt
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from optimisers.jax import transform

params = {"b": jnp.arange(4.0), "w": jnp.cos(jnp.arange(64.0)).reshape(16, 4)}
grads = jax.tree.map(lambda x: jnp.sin(3 * x), params)
tx = transform(opt.OptimiserChain(opt.WeightDecay(0.1), opt.Adam(0.1)))
state = tx.init(params)
want, kept = params, state
for _ in range(2):
    want, kept = tx.apply(want, grads, kept)
mesh = functools.partial(jax.make_mesh, (4,), ("x",))
specs = {"b": P(), "w": P("x")}
of_state = jax.tree.map(lambda a: P("x") if a.shape == (16, 4) else P(), state)

def put(tree, specs, mesh):
    return jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), tree, specs)

def same(tree, other=want):
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes()
               for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))
"""


def run(script: str) -> None:
    flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], env=flags, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_steps_each_part_on_its_device(check_vma: bool) -> None:
    run(f"""
auto = mesh(axis_types=(AxisType.Auto,))
both = (specs, specs, of_state)
step = jax.jit(jax.shard_map(tx.apply, mesh=auto, in_specs=both, out_specs=both[::2], check_vma={check_vma}))
p, g, s = put(params, specs, auto), put(grads, specs, auto), put(state, of_state, auto)
for _ in range(2):
    p, s = step(p, g, s)
assert same(p) and same(s, kept) and p["w"].sharding.spec == P("x")
assert "all-gather" not in step.lower(p, g, s).compile().as_text()
""")


def test_explicit_meshes_need_no_shard_map() -> None:
    run("""
explicit = mesh(axis_types=(AxisType.Explicit,))
with jax.set_mesh(explicit):
    p, g, s = put(params, specs, explicit), put(grads, specs, explicit), put(state, of_state, explicit)
    p, s = jax.tree.map(jnp.copy, (p, s))  # for donation
    assert jax.typeof(tx.init(p).slots[1]["m"]["w"]) == jax.typeof(p["w"])
    step = jax.jit(tx.apply, donate_argnums=(0, 2))
    assert "all-gather" not in step.lower(p, g, s).compile().as_text()
    for _ in range(2):
        p, s = step(p, g, s)
    assert same(p) and same(s, kept) and jax.typeof(p["w"]).sharding.spec == P("x", None)
    norms = transform(opt.OptimiserChain(opt.ClipNorm(0.1), opt.Adam(0.1)))  # of whole arrays, which are gathered
    p = put(params, specs, explicit)
    new, _ = jax.jit(norms.apply)(p, g, norms.init(p))
    assert same(new, norms.apply(params, grads, norms.init(params))[0])
""")


def test_automatic_meshes_give_the_same_bits() -> None:
    run("""
auto = mesh(axis_types=(AxisType.Auto,))
p, g, s = put(params, specs, auto), put(grads, specs, auto), put(state, of_state, auto)
for _ in range(2):
    p, s = jax.jit(tx.apply)(p, g, s)
assert same(p) and same(s, kept)
""")


def test_norms_of_parts_are_refused() -> None:
    run("""
clipped = transform(opt.OptimiserChain(opt.ClipNorm(0.1), opt.Descent(0.1)))
auto = mesh(axis_types=(AxisType.Auto,))
p, g, s = put(params, specs, auto), put(grads, specs, auto), clipped.init(params)
whole = {"b": P(), "w": P()}
for inner, check, words in ((specs, True, "there are parts of them"), (specs, False, "check_vma=False hides it")):
    try:
        jax.shard_map(clipped.apply, mesh=auto, in_specs=(inner, inner, P()), out_specs=(inner, P()),
                      check_vma=check)(p, g, s)
    except ValueError as error:
        assert words in str(error), error
    else:
        raise AssertionError
step = jax.jit(jax.shard_map(clipped.apply, mesh=auto, in_specs=(whole, whole, P()), out_specs=(whole, P())))
assert same(step(put(params, whole, auto), put(grads, whole, auto), s)[0], clipped.apply(params, grads, s)[0])
""")


def test_devices_step_at_once() -> None:
    run("""
step = jax.jit(tx.apply)
wrong = []

def train(device):
    p, g, s = jax.device_put((params, grads, state), device)
    for _ in range(200):
        new, t = step(p, g, s)
        new, t = step(new, g, t)
        if not same(new):
            wrong.append(device)

threads = [threading.Thread(target=train, args=(device,)) for device in jax.devices() for _ in range(2)]
[t.start() for t in threads], [t.join() for t in threads]
assert not wrong, wrong
pmapped = jax.pmap(tx.apply)
many = jax.tree.map(lambda x: jnp.stack([x] * 4), (params, grads, state))
new, _ = pmapped(*many)
assert same(jax.tree.map(lambda x: x[3], new), tx.apply(params, grads, state)[0])
""")
