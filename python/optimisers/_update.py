"""Steps: update, the one-array functions, and wait."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from . import _arrays, _core
from ._core import Duplicated, InvalidTypeError, InvalidValueError
from ._fields import check_structure
from ._rule import Rule, check_rule
from ._shown import leaf_rule
from ._state import Leaf, State, check_state, handle
from ._user_rules import initialise

S = TypeVar("S", bound=State)
M = TypeVar("M")
_UNSET: Any = object()
NonFinite = Literal["propagate", "raise", "skip"]


def update(state: S, model: M, grads: Any = _UNSET, *higher: Any, non_finite: NonFinite = "propagate") -> tuple[S, M]:
    """Apply one optimisation step to copies: the old state and model stay as they are, bit for bit.

    Works for read-only arrays and frozen dataclasses. Every trained array and every slot is
    copied, frozen ones too; what is not trained is shared, but Modules are copied deeply. JAX
    arrays are read where they are and come back as JAX arrays.

    Args:
        state: what `setup` returned, or a part of it.
        model: the model `setup` was given, or the part of it that belongs to `state`; or
            `Duplicated(model, grads)`.
        grads: gradients, a tree of the model's shape; see `update_`, also for leaving it out.
        *higher: gradients of higher order, for user-defined rules.
        non_finite: `"propagate"`, `"raise"` or `"skip"`, as for `update_`; a skipped step is counted in
            the new state.

    Returns:
        The new state and the new model.

    Raises:
        ValueError, TypeError, FloatingPointError: as `update_`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> old = {"w": np.ones(2)}
        >>> state = opt.setup(opt.Descent(0.5), old)
        >>> state, new = opt.update(state, old, {"w": np.array([1.0, 2.0])})
        >>> old["w"], new["w"]
        (array([1., 1.]), array([0.5, 0. ]))
    """
    check_state(state, "update")
    if isinstance(model, Duplicated):
        if grads is not _UNSET:
            raise InvalidTypeError("update: got Duplicated(model, grads) and gradients as well; pass one of them")
        core, new = state._core.update_copy(state._node, model.model, (model.grads,), True, non_finite)
        return handle(core, state._node), Duplicated(new, model.grads)  # type: ignore[return-value]
    given = () if grads is _UNSET else (grads, *higher)
    core, new_model = state._core.update_copy(state._node, model, given, grads is _UNSET, non_finite)
    return handle(core, state._node), new_model


def init(rule: Rule, x: Any) -> Leaf:
    """Return the state of a rule for one array, for those who keep their own; see `apply_`.

    Args:
        rule: any rule or chain.
        x: the array.

    Returns:
        A leaf of its own.

    Raises:
        TypeError: `x` is no array of real or complex floating point, or `rule` is no rule.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> opt.init(opt.Momentum(), np.zeros(2)).state
        MomentumSlots(v=array([0., 0.]))
    """
    check_rule(rule, "init")
    model = _core.Model(x, "init")
    if [path for path, _ in model.leaves()] != [()]:
        raise InvalidTypeError(f"init: expected one array of real or complex floating point, got {type(x).__name__}")
    core = model.state([rule])
    initialise(core, model)
    return handle(core, 0)  # type: ignore[no-any-return]


def apply_(rule: Rule, state: Leaf, x: Any, dx: Any, *higher: Any) -> tuple[Leaf, Any]:
    """Apply a rule to one gradient and return what is to be subtracted from `x`.

    Args:
        rule: the rule `state` was made for; its hyperparameters may have changed.
        state: what `init` returned; it is changed in place.
        x: the array, which is only read.
        dx: its gradient.
        *higher: gradients of higher order, for user-defined rules.

    Returns:
        `(state, dx)`: the same state, and a new array of x's dtype, or `None` while `AccumGrad` is
        collecting or where a user-defined rule stopped.

    Raises:
        ValueError: shapes do not fit, or the rule has another structure than the state.
        FloatingPointError: as `update_`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> rule, x = opt.Descent(0.1), np.ones(2)
        >>> state, dx = opt.apply_(rule, opt.init(rule, x), x, np.array([1.0, 2.0]))
        >>> dx
        array([0.1, 0.2])
    """
    check_rule(rule, "apply_")
    check_state(state, "apply_")
    if not isinstance(state, Leaf) or len(state._core.path(state._node)) != 0:
        raise InvalidValueError("apply_: expected the state of one array, as init returns it")
    now = leaf_rule(state._core, 0)
    if now != rule:
        check_structure(now, rule, "apply_: the rule of the state", "")
    shape, name, library, device = state._core.leaf_info(0)
    out = _arrays.empty(shape, name, library, device)
    something = state._core.apply(x, dx, out, higher, None if now == rule else rule)
    if not something:
        return state, None
    return state, _arrays.jax_from(out, x) if library == "jax" else out


def flush_(state: S, model: M) -> tuple[S, M]:
    """Apply in place what `AccumGrad` has gathered in a window that is not full, as the mean over its calls.

    For the end of an epoch: every window that holds a gradient counts as full, and the rest of its chain runs
    once, other accumulations behind it included. A missing gradient counts as zero, as in a full window. Leaves
    whose windows hold nothing, are frozen or have no `AccumGrad` stay as they are.

    Args:
        state: what `setup` returned, or a part of it.
        model: the model `setup` was given, or the part of it that belongs to `state`; or `Duplicated`.

    Returns:
        `(state, model)`, the same objects.

    Raises:
        ValueError, FloatingPointError: as `update_`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"w": np.zeros(2)}
        >>> state = opt.setup(opt.OptimiserChain(opt.AccumGrad(4), opt.Descent(1.0)), model)
        >>> for _ in range(3):
        ...     _ = opt.update_(state, model, {"w": np.array([1.0, 2.0])})
        >>> opt.flush_(state, model)[1]
        {'w': array([-1., -2.])}
    """
    check_state(state, "flush_")
    state._core.flush(state._node, model.model if isinstance(model, Duplicated) else model)
    return state, model


def flush(state: S, model: M) -> tuple[S, M]:
    """Return copies of state and model after `flush_`; the old ones stay as they are.

    Args:
        state: what `setup` returned, or a part of it.
        model: as for `flush_`; JAX arrays and read-only ones too.

    Returns:
        The new state and the new model.

    Raises:
        ValueError, FloatingPointError: as `update`.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> x = np.zeros(2)
        >>> state = opt.setup(opt.AccumGrad(2), x)
        >>> state, x = opt.update(state, x, np.ones(2))
        >>> opt.flush(state, x)[1], x
        (array([-1., -1.]), array([0., 0.]))
    """
    check_state(state, "flush")
    if isinstance(model, Duplicated):
        core, new = state._core.flush_copy(state._node, model.model)
        return handle(core, state._node), Duplicated(new, model.grads)  # type: ignore[return-value]
    core, new_model = state._core.flush_copy(state._node, model)
    return handle(core, state._node), new_model


def wait(state: S) -> S:
    """Wait for the work a state has enqueued on CUDA devices, and raise what it found out.

    An `update_` on a device returns before its step has run, and what can only be known by then is raised by the next
    call on the state or by this one. Without arrays on devices there is nothing to wait for.

    Args:
        state: a state tree, a part of one, or a leaf; the whole is waited for.

    Returns:
        The same state.

    Raises:
        FloatingPointError: a norm that must be finite was not (`ClipNorm(throw=True)`); that step has written nothing.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.ClipNorm(), np.zeros(2))
        >>> opt.wait(state) is state
        True
    """
    check_state(state, "wait")
    state._core.wait()
    return state
