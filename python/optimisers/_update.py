"""Changing states: update, adjust, freeze, thaw, and the one-array functions."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from . import _arrays, _core
from ._core import Duplicated, InvalidTypeError, InvalidValueError
from ._fields import (
    adjusted_rule,
    check_fields,
    core_name,
    fields_of,
    python_name,
    reached,
    rules_inside,
    with_fields,
)
from ._rule import BuiltinRule, Rule, check_rule
from ._state import Leaf, State, handle, leaf_rule
from ._user_rules import initialise

S = TypeVar("S", bound=State)
R = TypeVar("R", bound=Rule)
M = TypeVar("M")
_UNSET: Any = object()


def update(state: S, model: M, grads: Any = _UNSET, *higher: Any) -> tuple[S, M]:
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
    _check_state(state, "update")
    if isinstance(model, Duplicated):
        if grads is not _UNSET:
            raise InvalidTypeError("update: got Duplicated(model, grads) and gradients as well; pass one of them")
        core, new = state._core.update_copy(state._node, model.model, (model.grads,), True)
        return handle(core, state._node), Duplicated(new, model.grads)  # type: ignore[return-value]
    given = () if grads is _UNSET else (grads, *higher)
    core, new_model = state._core.update_copy(state._node, model, given, grads is _UNSET)
    return handle(core, state._node), new_model


def adjust_(state: S, eta: Any = _UNSET, /, **fields: Any) -> S:
    """Change hyperparameters of a state tree or a part of it, without touching slots or clocks.

    Args:
        state: a state tree, a part of one, or a leaf.
        eta: the learning rate; short for `eta=`.
        **fields: hyperparameters by name. Every stage that has the field gets the value.

    Returns:
        The same state.

    Raises:
        ValueError: no rule there has such a field, the value is out of range, or the field decides
            which slots exist.
        TypeError: the value is of the wrong kind.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Momentum(0.1), np.zeros(2))
        >>> opt.adjust_(state, 0.01, rho=0.8).rule
        Momentum(eta=0.01, rho=0.8)
    """
    changes = _changes(eta, fields)
    if isinstance(state, Rule):
        raise InvalidTypeError("adjust_: rules are immutable; use adjust, which returns a changed one")
    _check_state(state, "adjust_")
    _adjust(state._core, state._node, changes)
    return state


@overload
def adjust(target: R, eta: Any = ..., /, **fields: Any) -> R: ...
@overload
def adjust(target: S, eta: Any = ..., /, **fields: Any) -> S: ...
def adjust(target: Any, eta: Any = _UNSET, /, **fields: Any) -> Any:
    """Return a rule or a whole state tree with other hyperparameters; the old one stays as it is.

    Args:
        target: a rule, or a state tree as `setup` returned it. For a part use `adjust_`.
        eta: the learning rate; short for `eta=`.
        **fields: hyperparameters by name.

    Returns:
        A new rule, or a new state tree with copied slots.

    Raises:
        ValueError: as `adjust_`, or `target` is a part of a state tree.

    Example:
        >>> import optimisers as opt
        >>> opt.adjust(opt.Adam(), 0.01)
        Adam(eta=0.01, beta=(0.9, 0.999), epsilon=1e-08)
    """
    changes = _changes(eta, fields)
    if isinstance(target, Rule):
        return adjusted_rule(target, changes)
    core = _copied_whole(target, "adjust")
    _adjust(core, 0, changes)
    return handle(core, 0)


def freeze_(state: S) -> S:
    """Freeze a state tree or a part of it: updates leave parameters, slots and clocks there alone.

    Args:
        state: a state tree, a part of one, or a leaf.

    Returns:
        The same state.

    Raises:
        ValueError: given a model instead of a state.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Adam(), {"enc": np.zeros(2), "dec": np.zeros(3)})
        >>> opt.freeze_(state["enc"]).frozen
        True
    """
    _check_state(state, "freeze_")
    state._core.set_frozen(state._node, True)
    return state


def thaw_(state: S) -> S:
    """Undo `freeze_`, on the same part or another.

    Args:
        state: a state tree, a part of one, or a leaf.

    Returns:
        The same state.

    Raises:
        ValueError: given a model instead of a state.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.freeze_(opt.setup(opt.Adam(), np.zeros(2)))
        >>> opt.thaw_(state).frozen
        False
    """
    _check_state(state, "thaw_")
    state._core.set_frozen(state._node, False)
    return state


def freeze(state: S) -> S:
    """Return a copy of a whole state tree in which everything is frozen; see `freeze_`.

    Args:
        state: a state tree as `setup` returned it. For a part use `freeze_`.

    Returns:
        A new state tree with copied slots.

    Raises:
        ValueError: `state` is a part of a state tree, or a model.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.Adam(), np.zeros(2))
        >>> opt.freeze(state).frozen, state.frozen
        (True, False)
    """
    core = _copied_whole(state, "freeze")
    core.set_frozen(0, True)
    return handle(core, 0)  # type: ignore[no-any-return]


def thaw(state: S) -> S:
    """Return a copy of a whole state tree in which nothing is frozen; see `thaw_`.

    Args:
        state: a state tree as `setup` returned it. For a part use `thaw_`.

    Returns:
        A new state tree with copied slots.

    Raises:
        ValueError: `state` is a part of a state tree, or a model.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.freeze(opt.setup(opt.Adam(), np.zeros(2)))
        >>> opt.thaw(state).frozen
        False
    """
    core = _copied_whole(state, "thaw")
    core.set_frozen(0, False)
    return handle(core, 0)  # type: ignore[no-any-return]


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
    _check_state(state, "apply_")
    if not isinstance(state, Leaf) or len(state._core.path(state._node)) != 0:
        raise InvalidValueError("apply_: expected the state of one array, as init returns it")
    before = leaf_rule(state._core, 0)
    shape, name, library, device = state._core.leaf_info(0)
    out = _arrays.empty(shape, name, library, device)
    _take_rule(state, rule)
    try:
        something = state._core.apply(x, dx, out, higher)
    except BaseException:
        _take_rule(state, before)
        raise
    if not something:
        return state, None
    return state, _arrays.jax_from(out, x) if library == "jax" else out


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
    _check_state(state, "wait")
    state._core.wait()
    return state


def _take_rule(state: Leaf, rule: Rule) -> None:
    """Give the state the hyperparameters of this rule."""
    now = leaf_rule(state._core, 0)
    if now == rule:
        return
    if _structure(now) != _structure(rule):
        raise InvalidValueError(f"apply_: the state was made for {now!r}, got the rule {rule!r}")
    state._core.set_rules(0, rule._values())
    state._core.set_rule_object(0, rule)


def _structure(rule: Rule) -> Any:
    """What must agree for two rules to share a state."""
    stages = []
    for stage in rule._stages():
        deciding = [getattr(stage, field.name) for field in fields_of(stage) if field.structural]
        stages.append((type(stage), deciding, [_structure(inner) for inner in rules_inside(stage)]))
    return rule._master(), stages


def _changes(eta: Any, fields: dict[str, Any]) -> dict[str, Any]:
    if eta is _UNSET:
        if not fields:
            raise InvalidTypeError("adjust: nothing to change; give eta or fields by name")
        return fields
    if "eta" in fields:
        raise InvalidTypeError("adjust: eta was given twice")
    return {"eta": eta, **fields}


def _adjust(core: _core.State, node: int, changes: dict[str, Any]) -> None:
    where = f' under "{core.path_text(node)}"' if core.path(node) else ""
    leaves = core.leaves(node)
    rules = {id(rule): rule for rule in map(core.rules.__getitem__, leaves)}
    check_fields((s for rule in rules.values() for s in reached(rule)), list(changes), where)
    wanted = {core_name(name): value for name, value in changes.items()}
    # User-defined rules first: their own checks may refuse a value.
    adjusted = {key: with_fields(rule, wanted) for key, rule in rules.items() if rule._user_stages()}
    stages = [s for rule in rules.values() for s in rule._stages() if isinstance(s, BuiltinRule)]
    native = {field.name for stage in stages for field in fields_of(stage)}
    fields = {name: value for name, value in wanted.items() if python_name(name) in native}
    if fields:
        core.adjust(node, fields)
    all_rules = core.rules
    for leaf in leaves:
        if id(all_rules[leaf]) in adjusted:
            core.set_rule_object(leaf, adjusted[id(all_rules[leaf])])


def _check_state(state: object, call: str) -> None:
    if not isinstance(state, State):
        raise InvalidValueError(
            f"{call}: expected the state that setup returned, or a part of it, got {type(state).__name__}"
        )


def _copied_whole(state: Any, call: str) -> _core.State:
    _check_state(state, call)
    if len(state._core.path(state._node)) != 0:
        path = state._core.path_text(state._node)
        raise InvalidValueError(
            f'{call}: "{path}" is a part of a state tree, and a changed copy of it would be used by nothing; '
            f"use {call}_ on the part, or {call} on the whole tree"
        )
    return state._core.copy()  # type: ignore[no-any-return]
