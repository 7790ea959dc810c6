"""Which rule each leaf gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _core
from ._core import Model
from ._markers import Marker, marks_of
from ._names import foreign_rule
from ._paths import KeyPath
from ._patterns import choose
from ._rule import Rule, check_rule

Marks = list[tuple[Marker, list[int]]]


def resolve(rule: Any, model: Model) -> tuple[list[Rule | None], Marks]:
    """One rule a leaf, in walk order, None where it is left alone; and what markers mark of the others."""
    rules = _rules(rule, model)
    return rules, marks_of(model, rules)


def resolve_new(rule: Any, model: Model, new: set[int], again: bool) -> dict[int, Rule | None]:
    """The rules of leaves that have come to be trained. Again: from a rule that was resolved before, for others too."""
    if isinstance(rule, Rule):
        return dict.fromkeys(new, rule)
    if rule is not None and _core.children(rule) is not None:
        paths = [KeyPath(*path) for path, _ in model.leaves()]
        chosen = choose(rule, paths, _marked(model, rule), only=new, again=again)
        return {leaf: chosen[leaf] for leaf in new}
    if callable(rule) and not isinstance(rule, type):
        leaves = model.leaves()
        return {leaf: _from_function(rule, KeyPath(*leaves[leaf][0]), leaves[leaf][1]) for leaf in new}
    check_rule(rule, "extend_")
    raise AssertionError


def _rules(rule: Any, model: Model) -> list[Rule | None]:
    if isinstance(rule, Rule):
        return [rule] * model.leaf_count()
    if foreign_rule(rule):
        check_rule(rule, "setup")
    if rule is not None and _core.children(rule) is not None:
        paths = [KeyPath(*path) for path, _ in model.leaves()]
        return choose(rule, paths, _marked(model, rule))
    if callable(rule) and not isinstance(rule, type):
        return [_from_function(rule, KeyPath(*path), leaf) for path, leaf in model.leaves()]
    check_rule(rule, "setup")
    raise AssertionError


def _marked(model: Model, rules: Any) -> dict[Marker, set[int]]:
    """The leaves of every marker that is a key somewhere in the rules."""
    markers: dict[Marker, set[int]] = {}
    open_, seen = [rules], set()  # a tree that contains itself is refused later, with its path
    while open_:
        node = open_.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            markers.update((key, set()) for key in node if isinstance(key, Marker))
        if not isinstance(node, Rule):
            open_.extend(child for _, child, _ in _core.children(node) or ())
    if markers:
        for leaf, _, array, _ in model.places():
            for marker, leaves in markers.items():
                if array in marker:
                    leaves.add(leaf)
    return markers


def _from_function(f: Any, path: KeyPath, leaf: Any) -> Rule | None:
    rule = f(path, leaf)
    if rule is not None:
        check_rule(rule, f'setup: rule for "{path or "the model"}"')
    return rule  # type: ignore[no-any-return]
