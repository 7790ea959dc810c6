"""optimisers.jax in jitted programs beside optax's: the update alone, and a training step of a small network.

    python bench/jax_steps.py [--seconds 3] [--only 1e6]

Parameters and state are donated, so that both may write in place. The candidates are visited in turn, a burst of steps
each, until a case has had its time; the fastest burst counts. Their ratios hold on a loaded machine too, the
microseconds do not. optax's update includes `apply_updates`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optimisers as opt
import optimisers.jax

BURST = 0.05  # seconds
OURS, OURS_OPTAX, OPTAX = "transform", "optimisers.jax.optax", "optax"

Tree = Any
Step = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]  # parameters, state, and what is not donated


def adam() -> tuple[opt.Rule, Any]:
    return opt.Adam(1e-3), optax.adam(1e-3)


def clipped() -> tuple[opt.Rule, Any]:
    rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.WeightDecay(1e-2), opt.Adam(1e-3))
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-2), optax.adam(1e-3))
    return rule, theirs


def arrays(count: int, size: int) -> Tree:
    return {f"w{i:04}": jnp.full((size,), 0.5, jnp.float32) for i in range(count)}


CASES: dict[str, tuple[Callable[[], tuple[opt.Rule, Any]], Callable[[], Tree]]] = {
    "Adam, 10": (adam, lambda: arrays(1, 10)),
    "Adam, 1e4": (adam, lambda: arrays(1, 10_000)),
    "Adam, 1e6": (adam, lambda: arrays(1, 1_000_000)),
    "Adam, 1e7": (adam, lambda: arrays(1, 10_000_000)),
    "Adam, 1,000 × 256": (adam, lambda: arrays(1000, 256)),
    "global clip, decay, Adam, 1e7": (clipped, lambda: arrays(1, 10_000_000)),
}


def network(key: Any) -> Tree:
    sizes = (64, 256, 256, 10)
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (m, n)) / m**0.5, "b": jnp.zeros(n)}
        for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def loss(params: Tree, x: Any, y: Any) -> Any:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    logits = x @ params[-1]["w"] + params[-1]["b"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def candidates(rule: opt.Rule, theirs: Any, gradient: Callable[[Tree, Tree], Tree]) -> dict[str, tuple[Any, Step]]:
    """Their init and step functions."""

    def by_transform(params: Tree, state: Tree, data: Tree) -> tuple[Tree, Tree]:
        return tx.apply(params, gradient(params, data), state)

    def by_optax(transformation: Any) -> Step:
        def step(params: Tree, state: Tree, data: Tree) -> tuple[Tree, Tree]:
            updates, state = transformation.update(gradient(params, data), state, params)
            return optax.apply_updates(params, updates), state

        return step

    tx, ours = optimisers.jax.transform(rule), optimisers.jax.optax(rule)
    return {
        OURS: (tx.init, jax.jit(by_transform, donate_argnums=(0, 1))),
        OURS_OPTAX: (ours.init, jax.jit(by_optax(ours), donate_argnums=(0, 1))),
        OPTAX: (theirs.init, jax.jit(by_optax(theirs), donate_argnums=(0, 1))),
    }


def measured(steps: dict[str, tuple[Any, Step]], params: Tree, data: Tree, seconds: float) -> dict[str, float]:
    """Seconds a step takes, of the fastest burst."""
    states, best = {}, dict.fromkeys(steps, float("inf"))
    for name, (init, step) in steps.items():
        own = jax.tree.map(jnp.copy, params)
        states[name] = jax.block_until_ready(step(own, init(own), data))
    end = time.perf_counter() + seconds * len(steps)
    while time.perf_counter() < end:
        for name, (_, step) in steps.items():
            count, begin, now = 0, time.perf_counter(), 0.0
            while now < BURST:
                states[name] = jax.block_until_ready(step(*states[name], data))
                count += 1
                now = time.perf_counter() - begin
            best[name] = min(best[name], now / count)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="for each candidate of a case")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    args = parser.parse_args()
    print("| case | " + " | ".join((OURS, OURS_OPTAX, OPTAX)) + " | transform of optax |\n|---|--:|--:|--:|--:|")

    def show(name: str, steps: dict[str, tuple[Any, Step]], params: Tree, data: Tree) -> None:
        if args.only not in name:
            return
        best = measured(steps, params, data, args.seconds)
        times = " | ".join(f"{best[n] * 1e6:,.0f} µs" for n in (OURS, OURS_OPTAX, OPTAX))
        print(f"| {name} | {times} | {best[OURS] / best[OPTAX]:.2f} × |", flush=True)

    for name, (rules, make) in CASES.items():
        params = make()
        grads = jax.tree.map(lambda x: x * 1e-3, params)
        show(name, candidates(*rules(), lambda _, grads: grads), params, grads)
    x, y = jax.random.normal(jax.random.key(1), (128, 64)), jnp.arange(128) % 10
    steps = candidates(*adam(), lambda p, data: jax.grad(loss)(p, *data))
    show("a network of 3 layers, batch 128, whole step", steps, network(jax.random.key(0)), (x, y))


if __name__ == "__main__":
    main()
