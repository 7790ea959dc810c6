"""Changing what a state's rules are, and which parts rest: adjust, freeze, thaw."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._fields import adjusted_rule, check_fields, core_name, fields_of, python_name, reached, with_fields
from ._rule import BuiltinRule, Rule
from ._state import State, check_state, handle

S = TypeVar("S", bound=State)
R = TypeVar("R", bound=Rule)
_UNSET: Any = object()


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
    check_state(state, "adjust_")
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
    check_state(state, "freeze_")
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
    check_state(state, "thaw_")
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


def _copied_whole(state: Any, call: str) -> _core.State:
    check_state(state, call)
    if len(state._core.path(state._node)) != 0:
        path = state._core.path_text(state._node)
        raise InvalidValueError(
            f'{call}: "{path}" is a part of a state tree, and a changed copy of it would be used by nothing; '
            f"use {call}_ on the part, or {call} on the whole tree"
        )
    return state._core.copy()  # type: ignore[no-any-return]
