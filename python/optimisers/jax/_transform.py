"""transform: a rule as a pair of pure functions, of which the second is one custom call."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._adjust import adjust as adjusted
from .._core import InvalidTypeError, InvalidValueError
from .._rule import Rule
from ._rule import Plan, Slot
from ._state import TransformState, bits_of
from ._step import run
from ._trees import Leaves, compute_dtype, real_dtype, ties_of

P = TypeVar("P")


def _is_number(value: Any) -> bool:
    """Whether a hyperparameter is plain, so that the rule takes it with all its bits."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_number, value))
    return isinstance(value, (int, float, np.floating, np.integer)) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    )


class Transform:
    """A rule as pure functions of pytrees; see `transform`."""

    def __init__(self, rule: Any, call: str, hyperparameters: dict[str, Any]) -> None:
        plan = Plan(rule, call)
        plan.check_names(hyperparameters, call)
        plain = {name: value for name, value in hyperparameters.items() if _is_number(value)}
        self._plan = Plan(adjusted(rule, **plain), call) if plain else plan
        self._given = {name: value for name, value in hyperparameters.items() if name not in plain}
        self._call = call
        if self._plan.master == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
            raise InvalidValueError(
                f"{call}: MixedPrecision(dtype='float64') needs JAX's doubles; call "
                "jax.config.update('jax_enable_x64', True)"
            )

    @property
    def rule(self) -> Rule:
        """The rule it was made of."""
        return self._plan.rule

    def init(self, params: Any) -> TransformState:
        """Return the state for these parameters.

        Args:
            params: a pytree of arrays; of `jax.ShapeDtypeStruct`s under `jax.eval_shape`. Integers, booleans and random
                keys in it are left alone. One array at several places, outside `jit`, is one parameter.

        Returns:
            A pytree whose slots have the parameters' structure, and their shardings.

        Raises:
            TypeError: something in it is no array.
            ValueError: a rule refuses complex parameters.
        """
        leaves = Leaves(params, "init")
        for i in leaves.trained:
            self._check_complex(leaves.arrays[i], leaves.paths[i])
        ties = ties_of(leaves.arrays, leaves.trained)
        kept = set(leaves.trained).difference(i for tie in ties for i in tie[1:])

        def tree(make: Any) -> Any:
            return leaves.structure.unflatten([make(x) if i in kept else None for i, x in enumerate(leaves.arrays)])

        plan = self._plan
        slots = tuple(
            {slot.name: tree(lambda x, slot=slot, rule=stage.rule: self._start(x, slot, rule)) for slot in stage.slots}
            for stage in plan.stages
        )
        master = tree(lambda x: _copy(x, compute_dtype(x.dtype, plan.master), True)) if plan.master else None
        count = jnp.zeros((), jnp.int32)
        return TransformState(count, bits_of(plan.clock(len(kept))), bits_of(plan.numbers()), slots, master, ties)

    def apply(self, params: P, grads: Any, state: TransformState, **hyperparameters: Any) -> tuple[P, TransformState]:
        """Return new parameters and state; where they are donated (`jax.jit(step, donate_argnums=...)`), in place.

        Args:
            params: the parameters, of the structure and the dtypes `init` was given.
            grads: their gradients, of the same structure; of other real types they are converted.
            state: what `init` or the last `apply` returned.
            **hyperparameters: for this step alone, such as `eta=schedule(step)`: numbers or arrays, traced ones too.

        Returns:
            `(params, state)`.

        Raises:
            ValueError: structures, shapes or dtypes do not fit, or a name is no hyperparameter of these rules. While a
                program runs, what a rule refuses (ClipNorm a norm that is not finite, any rule a hyperparameter out of
                its range) is a `jax.errors.JaxRuntimeError` that says so.
        """
        leaves = Leaves(params, "apply")
        new, state = run(
            self._plan, leaves, leaves.gradients(grads), self._checked(state), self._now(state, hyperparameters), True
        )
        return leaves.structure.unflatten(new), state

    def adjust(self, state: TransformState, eta: Any = None, /, **fields: Any) -> TransformState:
        """Return the state with other hyperparameters; no program is compiled again for them.

        Args:
            state: a state of this transformation.
            eta: the learning rate; short for `eta=`.
            **fields: hyperparameters by name, as numbers; every rule of the chain that has the field gets the value.

        Returns:
            A new state that shares its arrays.

        Raises:
            ValueError: no rule has the field, or the value is out of range.
        """
        if eta is not None:
            fields = {"eta": eta, **fields}
        self._plan.check_names(fields, "adjust")
        numbers = self._plan.numbers(adjusted(self._plan.rule, **fields))
        bits = self._checked(state).hyperparameters
        for name in fields:
            at, pair = self._plan.places[name]
            for place in at:
                end = place + 1 + pair
                bits = bits.at[place:end].set(bits_of(numbers[place:end]))
        return TransformState(state.count, state.clock, bits, state.slots, state.master, state.ties)

    def __repr__(self) -> str:
        return f"optimisers.jax.{self._call}({self._plan.rule!r})"

    def _now(self, state: TransformState, given: dict[str, Any]) -> dict[str, Any]:
        """The hyperparameters of a step that are not the state's own."""
        self._plan.check_names(given, "apply")
        own = {name: value(state.count) if callable(value) else value for name, value in self._given.items()}
        return own | given

    def _checked(self, state: Any) -> TransformState:
        if not isinstance(state, TransformState):
            raise InvalidTypeError(f"{self._call}: expected the state that init returned, got {type(state).__name__}")
        return state

    def _check_complex(self, x: Any, path: str) -> None:
        if not str(x.dtype).startswith("complex"):
            return
        for stage in self._plan.stages:
            if reason := stage.refuses_complex:
                raise InvalidValueError(
                    f'init: {type(stage.rule).__name__} at "{path}" cannot train {x.dtype}: {reason}'
                )

    def _start(self, x: Any, slot: Slot, rule: Rule) -> Any:
        """A slot of a parameter as it begins."""
        dtype = compute_dtype(x.dtype, self._plan.master)
        if slot.at_x:
            return _copy(x, dtype, False)
        if slot.real:
            dtype = real_dtype(dtype)
        if not slot.start or (slot.unless and getattr(rule, slot.unless)):
            return jnp.zeros_like(x, dtype=dtype)
        value = self._given.get(slot.start, getattr(rule, slot.start))
        return jnp.full_like(x, getattr(rule, slot.start) if callable(value) else value, dtype=dtype)


def _copy(x: Any, dtype: str, only_if_wider: bool) -> Any:
    """The parameter in another memory: both may be donated."""
    if only_if_wider and str(x.dtype) == dtype:
        return None
    return jnp.zeros_like(x, dtype=dtype) if isinstance(x, jax.ShapeDtypeStruct) else jnp.array(x, dtype, copy=True)


def transform(rule: Any, **hyperparameters: Any) -> Transform:
    """Return a rule as pure functions for JAX: `init(params)` and `apply(params, grads, state) -> (params, state)`.

    A step is one custom call for all leaves of the tree, by the same kernels as `update_`, with the same bits. In a
    program whose parameters and state are donated it writes in place; otherwise XLA copies them first. It works under
    `jax.jit`, `jax.lax.scan` and `cond`, in `jax.vmap` (each entry of the batch a problem of its own, with its own
    norms), and in `jax.shard_map`, there for rules that work element by element: a norm would be that of a shard. It
    runs on CPUs, and is not differentiated.

    Args:
        rule: a rule or chain; none of one's own, since XLA runs no Python.
        **hyperparameters: instead of the rule's: a number, an array, which may be traced, or a function of the count
            of steps made so far, such as one of `optax`'s schedules, which is then part of the program.

    Returns:
        A `Transform`.

    Raises:
        TypeError: `rule` is no rule, or one written in Python.
        ValueError: a hyperparameter that no rule has, or one that decides what is compiled (counts, switches).

    Example:
        >>> import jax, jax.numpy as jnp, optimisers as opt
        >>> from optimisers.jax import transform
        >>> tx = transform(opt.Momentum(0.5, 0.9))
        >>> @jax.jit
        ... def step(params, state):
        ...     grads = jax.grad(lambda p: (p["w"] ** 2).sum())(params)
        ...     return tx.apply(params, grads, state)
        >>> params = {"w": jnp.array([1.0, 2.0])}
        >>> params, state = step(params, tx.init(params))
        >>> params["w"].tolist(), state.slots[0]["v"]["w"].tolist()
        ([0.0, 0.0], [1.0, 2.0])
        >>> state = tx.adjust(state, 0.25)
    """
    return Transform(rule, "transform", hyperparameters)
