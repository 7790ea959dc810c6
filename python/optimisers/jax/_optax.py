"""optax: a rule as an optax transformation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core import InvalidValueError
from ._state import TransformState
from ._step import run
from ._transform import Transform
from ._trees import Leaves


class GradientTransformation(NamedTuple):
    """What stands for optax's class of the same use where optax is not installed."""

    init: Any
    update: Any


def optax(rule: Any, **hyperparameters: Any) -> Any:
    """Return a rule as an optax transformation: `init(params)` and `update(grads, state, params) -> (updates, state)`.

    For what expects one: `optax.chain`, `optax.masked`, `optax.multi_transform`, `optax.inject_hyperparams`, Flax's
    `TrainState`. `optax.apply_updates` then adds the updates, which is one more pass over the parameters than
    `transform(rule).apply` needs; of 16-bit parameters they are rounded once more.

    Args:
        rule: a rule or chain, but no `MixedPrecision`, whose master copies are the parameters.
        **hyperparameters: as for `transform`; arrays may be traced, so that
            `optax.inject_hyperparams(lambda eta: optimisers.jax.optax(opt.Adam(), eta=eta))` works.

    Returns:
        An `optax.GradientTransformationExtraArgs` that takes and ignores what it does not know; without optax a named
        tuple of the two functions. Updates have the gradients' dtype; slots are as `transform` has them.

    Raises:
        TypeError, ValueError: as `transform`; `update` without `params` for a rule that looks at them.

    Example:
        >>> import jax.numpy as jnp, optimisers as opt, optimisers.jax
        >>> tx = opt.jax.optax(opt.Descent(0.5))
        >>> params = {"w": jnp.ones(2)}
        >>> updates, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
        >>> updates["w"].tolist()
        [-0.5, -0.5]
    """
    transform = Transform(rule, "optax", hyperparameters)
    plan = transform._plan
    if plan.master is not None:
        raise InvalidValueError(
            "optax: MixedPrecision writes its parameters itself, and an update cannot say what they become; use "
            "transform(rule).apply"
        )

    def init(params: Any) -> TransformState:
        return replace(transform.init(params), hyperparameters=None)

    def update(
        updates: Any, state: TransformState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, TransformState]:
        del extra_args
        if params is None:
            if plan.looks_at_parameters():
                raise InvalidValueError(
                    f"update: {plan.rule!r} looks at the parameters; call update(grads, state, params)"
                )
            params = updates
        leaves = Leaves(params, "update")
        grads = leaves.gradients(updates)
        new, state = run(plan, leaves, grads, transform._checked(state), transform._now(state, {}), False)
        for i in leaves.trained:
            new[i] = jnp.negative(new[i]).astype(grads[i].dtype)
        structure: Any = jax.tree.structure(updates)
        return structure.unflatten(new), state

    try:
        from optax import GradientTransformationExtraArgs as Extended  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return GradientTransformation(init, update)
    return Extended(init, update)
