"""Changing what a state's rules are, and which parts rest: adjust, freeze, thaw."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar, overload

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._fields import (
    UNSET,
    Change,
    adjusted_rule,
    changed_rule,
    changes_of,
    check_changes,
    check_structure,
    fields_of,
    reached,
)
from ._rule import BuiltinRule, Rule
from ._state import State, check_state, handle

S = TypeVar("S", bound=State)
R = TypeVar("R", bound=Rule)


def adjust_(state: S, eta: Any = UNSET, /, *, scale: Any = UNSET, **fields: Any) -> S:
    """Change hyperparameters of a state tree or a part of it, without touching slots or clocks.

    All of it happens, or nothing. Where learning rates differ, one `eta` for all of them warns: `scale` keeps
    their ratios.

    Args:
        state: a state tree, a part of one, or a leaf.
        eta: the learning rate; short for `eta=`. Or a rule of the structure the leaves have: its hyperparameters
            replace theirs. Or a dict from classes of rules to fields, for these stages only.
        scale: factor for every learning rate, each its own; >= 0.
        **fields: hyperparameters by name. Every stage that has the field gets the value.

    Returns:
        The same state.

    Raises:
        ValueError: no rule there has such a field, the value is out of range or more than the type of a leaf holds,
            the field decides which slots exist, or the rule has another structure.
        TypeError: the value is of the wrong kind.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> state = opt.setup(opt.OptimiserChain(opt.ClipNorm(), opt.Momentum(0.1)), np.zeros(2))
        >>> opt.adjust_(state, 0.01, rho=0.8).rule[1]
        Momentum(eta=0.01, rho=0.8)
        >>> opt.adjust_(state, scale=0.5).rule[1].eta
        0.005
        >>> opt.adjust_(state, {opt.ClipNorm: {"omega": 1.0}}).rule[0].omega
        1.0
        >>> opt.adjust_(state, opt.OptimiserChain(opt.ClipNorm(2), opt.Momentum(0.2))).rule[1]
        Momentum(eta=0.2, rho=0.9)
    """
    if isinstance(state, Rule):
        raise InvalidTypeError("adjust_: rules are immutable; use adjust, which returns a changed one")
    if isinstance(eta, Rule):
        _refuse_more("adjust_", scale, fields)
        check_state(state, "adjust_")
        _take_rule(state._core, state._node, eta, "adjust_")
        return state
    changes = changes_of("adjust_", eta, scale, fields)
    check_state(state, "adjust_")
    _adjust(state._core, state._node, changes)
    return state


@overload
def adjust(target: R, eta: Any = ..., /, *, scale: Any = ..., **fields: Any) -> R: ...
@overload
def adjust(target: S, eta: Any = ..., /, *, scale: Any = ..., **fields: Any) -> S: ...
def adjust(target: Any, eta: Any = UNSET, /, *, scale: Any = UNSET, **fields: Any) -> Any:
    """Return a rule or a whole state tree with other hyperparameters; the old one stays as it is.

    Args:
        target: a rule, or a state tree as `setup` returned it. For a part use `adjust_`.
        eta, scale, **fields: as in `adjust_`.

    Returns:
        A new rule, or a new state tree with copied slots.

    Raises:
        ValueError, TypeError: as `adjust_`; `target` is a part of a state tree.

    Example:
        >>> import optimisers as opt
        >>> opt.adjust(opt.Adam(), 0.01)
        Adam(eta=0.01, beta=(0.9, 0.999), epsilon=1e-08)
        >>> opt.adjust(opt.Descent(0.5), scale=0.5)
        Descent(eta=0.25)
    """
    if isinstance(eta, Rule):
        _refuse_more("adjust", scale, fields)
        if isinstance(target, Rule):
            check_structure(target, eta, "adjust: the rule", "")
            return eta
        core = _copied_whole(target, "adjust")
        _take_rule(core, 0, eta, "adjust")
        return handle(core, 0)
    changes = changes_of("adjust", eta, scale, fields)
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


def _refuse_more(call: str, scale: Any, fields: dict[str, Any]) -> None:
    if scale is not UNSET or fields:
        raise InvalidTypeError(f"{call}: got a whole rule and fields as well; put them into the rule")


def _take_rule(core: _core.State, node: int, rule: Rule, call: str) -> None:
    """Give every leaf this rule's hyperparameters."""
    leaves, rules = core.leaves(node), core.rules
    fits: set[int] = set()
    for leaf in leaves:
        if id(rules[leaf]) not in fits:
            path = core.path_text(core.leaf_node(leaf))
            check_structure(rules[leaf], rule, f"{call}: the rule", f' at "{path}"')
            fits.add(id(rules[leaf]))
    core.replace_rules(leaves, [rule] * len(leaves))


def _adjust(core: _core.State, node: int, changes: list[Change]) -> None:
    if all(change.of is None or issubclass(change.of, BuiltinRule) for change in changes):
        native = [(None if c.of is None else c.of.__name__, c.name, c.value, c.scales) for c in changes]
        try:
            rates = core.adjust(node, native, False)
        except (InvalidTypeError, InvalidValueError):  # a value that does not fit a name that nobody here has
            check_changes(_reached_below(core, node), changes, _where(core, node))
            raise
        if rates:
            _warn_of_levelling(core, node, rates, stacklevel=4)
            rates = core.adjust(node, native, True)
        if rates is not None:
            return
    check_changes(_reached_below(core, node), changes, _where(core, node))
    _adjust_rules(core, node, changes)


def _adjust_rules(core: _core.State, node: int, changes: list[Change]) -> None:
    """The same by making new rules, where some of them are written in Python: their own checks may refuse a value."""
    leaves, rules = core.leaves(node), core.rules
    old = [rules[leaf]._with_values(iter(core.rule_values(leaf))) for leaf in leaves]
    new = [changed_rule(rule, changes) for rule in old]
    if any(change.name == "eta" and change.of is None and not change.scales for change in changes):
        before = [float(stage.eta) for rule in old for stage in reached(rule) if _has_rate(stage)]  # type: ignore[attr-defined]
        if before and min(before) < max(before):
            _warn_of_levelling(core, node, (min(before), max(before)), stacklevel=5)
    core.replace_rules(leaves, new)


def _has_rate(stage: Rule) -> bool:
    return any(field.name == "eta" for field in fields_of(stage)) and isinstance(
        getattr(stage, "eta", None), float | int
    )


def _reached_below(core: _core.State, node: int) -> list[Rule]:
    rules = core.rules
    return [s for rule in {id(rules[i]): rules[i] for i in core.leaves(node)}.values() for s in reached(rule)]


def _where(core: _core.State, node: int) -> str:
    return f' under "{core.path_text(node)}"' if core.path(node) else ""


def _warn_of_levelling(core: _core.State, node: int, rates: tuple[float, ...], stacklevel: int) -> None:
    warnings.warn(
        f"adjust: the learning rates{_where(core, node)} differ, from {rates[0]:g} to {rates[1]:g}, and all become the "
        "same; scale= multiplies each of them instead. Meant so, write {opt.Adam: {'eta': ...}} with the rule's class",
        stacklevel=stacklevel,
    )


def _copied_whole(state: Any, call: str) -> _core.State:
    check_state(state, call)
    if len(state._core.path(state._node)) != 0:
        path = state._core.path_text(state._node)
        raise InvalidValueError(
            f'{call}: "{path}" is a part of a state tree, and a changed copy of it would be used by nothing; '
            f"use {call}_ on the part, or {call} on the whole tree"
        )
    return state._core.copy()  # type: ignore[no-any-return]
