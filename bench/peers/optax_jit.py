"""optax under jax.jit, parameters and state donated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cases import Case
from specs import hyperparameters, reference

from peers import Setting
from peers.face import NotOfferedError, Step, nested

# name -> (the transformation from our hyperparameters, whether its formula is the reference's)
STAGES: dict[str, tuple[Any, bool]] = {
    "ClipGrad": (lambda h: optax.clip(h.delta), True),
    "WeightDecay": (lambda h: optax.add_decayed_weights(h.lambda_), True),
    "ClipNorm": (lambda h: optax.clip_by_global_norm(h.omega), True),
}
RULES: dict[str, tuple[Any, bool]] = {
    "Descent": (lambda h: optax.sgd(h.eta), True),
    "Momentum": (lambda h: optax.sgd(h.eta, momentum=h.rho), True),
    "Nesterov": (lambda h: optax.sgd(h.eta, momentum=h.rho, nesterov=True), False),
    "Rprop": (lambda h: optax.rprop(h.eta), False),
    "RMSProp": (lambda h: optax.rmsprop(h.eta, decay=h.rho, eps=h.epsilon), False),
    "Adam": (lambda h: optax.adam(h.eta, *h.beta, eps=h.epsilon), True),
    "AdamW": (lambda h: optax.adamw(h.eta, *h.beta, eps=h.epsilon, weight_decay=h.lambda_), True),
    "RAdam": (lambda h: optax.radam(h.eta, *h.beta, eps=h.epsilon), False),
    "NAdam": (lambda h: optax.nadam(h.eta, *h.beta, eps=h.epsilon), False),
    "AdaMax": (lambda h: optax.adamax(h.eta, *h.beta, eps=h.epsilon), False),
    "AMSGrad": (lambda h: optax.amsgrad(h.eta, *h.beta, eps=h.epsilon), False),
    "OAdam": (lambda h: optax.optimistic_adam(h.eta, b1=h.beta[0], b2=h.beta[1], eps=h.epsilon), False),
    "AdaBelief": (lambda h: optax.adabelief(h.eta, *h.beta, eps=h.epsilon), False),
    "AdaGrad": (lambda h: optax.adagrad(h.eta, eps=h.epsilon), False),
    "AdaDelta": (lambda h: optax.adadelta(1.0, rho=h.rho, eps=h.epsilon), False),
    "Lion": (lambda h: optax.lion(h.eta, b1=h.beta[0], b2=h.beta[1], weight_decay=0.0), True),
}


def transformation(spec: Any) -> tuple[Any, bool]:
    """The chain, and whether it does exactly what the reference does."""
    made, exact = [], True
    for name, given in reference.flatten([spec]):
        factory, same = (RULES | STAGES).get(name, (None, False))
        if factory is None:
            raise NotOfferedError(f"optax has no {name}")
        made.append(factory(hyperparameters(name, given)))
        exact &= same
    if reference.flatten([spec])[-1][0] not in RULES:  # what is left is to be subtracted
        made.append(optax.scale(-1.0))
    return made[0] if len(made) == 1 else optax.chain(*made), exact


class Optax:
    def __init__(self, setting: Setting) -> None:
        pass  # XLA takes its threads from the processors it may run on

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        if case.op != "update" or case.dtype != "float32":
            raise NotOfferedError(f"not written in optax: {case.title}")
        tx, exact = transformation(case.rule)
        # Convolutions in the layout jax itself uses; under XLA the other one is two to three times slower.
        p, g = (nested([jnp.array(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a) for a in b]) for b in (x, dx))
        s = jax.jit(tx.init)(p)

        def update(p: Any, s: Any, g: Any) -> Any:
            u, s = tx.update(g, s, p)
            return optax.apply_updates(p, u), s

        compiled = jax.jit(update, donate_argnums=(0, 1))
        now = [p, s]
        del p, s

        def step() -> None:
            now[:] = compiled(now[0], now[1], g)
            jax.block_until_ready(now)

        def values() -> list[np.ndarray]:
            leaves = map(np.asarray, nested_leaves(now[0]))
            return [a.transpose(3, 2, 0, 1) if a.ndim == 4 else a for a in leaves]

        return Step(step, values, exact)


def nested_leaves(tree: Any) -> list[Any]:
    """In the order of `nested`; jax sorts the keys of dicts."""
    if not isinstance(tree, dict):
        return [tree]
    return [a for block in sorted(tree, key=lambda k: int(k[5:])) for a in tree[block].values()]
