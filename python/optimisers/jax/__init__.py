"""This library inside `jax.jit`: the rules as pure functions of pytrees, one custom call a step.

`transform(rule)` has `init(params)` and `apply(params, grads, state) -> (params, state)`, in place where the arguments
are donated; `optax(rule)` is the same rule as an optax transformation, for what expects one. Importing this imports
JAX; `optimisers` itself does not.
"""

from ._optax import optax
from ._state import TransformState
from ._transform import Transform, transform

__all__ = ["Transform", "TransformState", "optax", "transform"]
