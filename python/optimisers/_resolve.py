"""Which rule each leaf gets."""

from __future__ import annotations

from typing import Any

from ._core import InvalidTypeError, InvalidValueError, Model
from ._paths import KeyPath
from ._rule import Rule, check_rule


def resolve(rule: Any, model: Model) -> list[Rule]:
    """One rule a leaf, in walk order."""
    if isinstance(rule, Rule):
        return [rule] * model.leaf_count()
    leaves = model.leaves()
    if isinstance(rule, (dict, list, tuple)) or hasattr(rule, "__dataclass_fields__"):
        return [_from_tree(rule, path) for path, _ in leaves]
    if callable(rule) and not isinstance(rule, type):
        return [_from_function(rule, path, leaf) for path, leaf in leaves]
    check_rule(rule, "setup")
    raise AssertionError


def _from_function(f: Any, path: tuple[Any, ...], leaf: Any) -> Rule:
    rule = f(KeyPath(path), leaf)
    check_rule(rule, f'setup: rule for "{KeyPath(path)}"')
    return rule  # type: ignore[no-any-return]


def _from_tree(tree: Any, path: tuple[Any, ...]) -> Rule:
    """The rule that covers the path: the first one on the way down."""
    node = tree
    for depth, key in enumerate(path):
        if isinstance(node, Rule):
            return node
        try:
            node = node[key] if isinstance(node, dict) or not isinstance(key, str) else getattr(node, key)
        except (LookupError, AttributeError, TypeError):
            raise InvalidValueError(
                f'setup: no rule for "{KeyPath(path)}"; the tree of rules has nothing at "{KeyPath(path[: depth + 1])}"'
            ) from None
    if not isinstance(node, Rule):
        raise InvalidTypeError(
            f'setup: expected a rule at "{KeyPath(path)}" of the tree of rules, got {type(node).__name__}'
        )
    return node
