"""extend_: a state for the leaves that a model has come to have, without losing the others'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._markers import Marker, marks_of
from ._paths import KeyPath
from ._resolve import resolve_new
from ._rule import Rule
from ._shown import leaf_rule
from ._state import Marked, State, check_state, move_handles
from ._user_rules import initialise

S = TypeVar("S", bound=State)
Path = tuple[Any, ...]


def extend_(state: S, model: Any, rule: Any = None) -> S:
    """Give a state to what has come to be trained since `setup`, and keep what is there, by path.

    For parameters that were registered, unfrozen (`requires_grad_(True)`) or made arrays after `setup`. Arrays at a
    path that has a state keep it: slots, clocks, hyperparameters as they are now, frozen or not. What is gone from the
    model is forgotten. An array that got `None` for a rule at `setup` is left alone as before.

    Args:
        state: a whole state tree as `setup` returned it; it is changed in place. Its parts that are held elsewhere
            (`enc = state["enc"]`) go on working, unless their path is gone: those raise when they are used. Views of
            slots taken before are of arrays that are not updated any more.
        model: the model as it is now.
        rule: for the new arrays, anything that `setup` takes; resolved over them alone. By default what `setup` was
            given is applied to them: a rule as it was then, whatever `adjust_` has changed since. A state that was
            pickled does not know functions any more, so that `rule` has to be given.

    Returns:
        The same state.

    Raises:
        ValueError: an array has another shape, dtype, device or order of axes than its state was made for; no rule
            is found for a new one; `state` is a part, or of a flat vector (whose state goes on in that of a longer
            one by `save` and `load(..., partial=True)`).
        TypeError: `rule` is no rule.
        A call that raises has changed nothing.

    Example:
        >>> import numpy as np, optimisers as opt
        >>> model = {"body": np.ones(2), "head": None}
        >>> state = opt.setup(opt.Momentum(0.1), model)
        >>> _ = opt.update_(state, model, {"body": np.ones(2)})
        >>> model["head"] = np.zeros(1)
        >>> opt.extend_(state, model)["head"].state.v, state["body"].state.v
        (array([0.]), array([0.1, 0.1]))
    """
    check_state(state, "extend_")
    old = state._core
    if isinstance(model, _core.Duplicated):
        model = model.model
    _check_whole(state)
    native = _core.Model(model, "extend_")
    kept, rules = _matched(old, native)
    new = {leaf for leaf, known in enumerate(rules) if known is _NEW}
    with _named():
        found = _rules_of_new(old, native, new, rule)
    for leaf in new:
        rules[leaf] = found[leaf]
    numbers = {leaf: i for i, leaf in enumerate(i for i, known in enumerate(rules) if known is not None)}
    pairs = [(numbers[leaf], before) for leaf, before in kept.items()]
    with _named():
        core = native.state(rules, _marks(old, native, rules, pairs))
        if core.kind(0) == "array" or old.kind(0) == "array":
            _check_root(old, core)
        core.setup_rule = old.setup_rule
        initialise(core, native, but={leaf for leaf, _ in pairs})
    move_handles(old, core, pairs, lambda known: _node_in(core, known))
    return state


_NEW: Any = object()


@contextmanager
def _named() -> Iterator[None]:
    """What setup's parts say of setup is said of this call."""
    try:
        yield
    except (InvalidValueError, InvalidTypeError) as error:
        text = str(error)
        if not text.startswith("setup"):
            raise
        raise type(error)("extend_" + text.removeprefix("setup")) from None


def _check_whole(state: State) -> None:
    core = state._core
    if core.path(state._node):
        raise InvalidValueError(
            f'extend_: "{core.path_text(state._node)}" is a part of a state tree; pass the whole tree and model'
        )
    if core.has_layout():
        raise InvalidValueError(
            "extend_: the state is of a flat vector, which has no room for more; save it, destructure the new model, "
            "set up the state of its vector with layout=, and load(path, state, partial=True) gives that what was saved"
        )


def _check_root(old: _core.State, new: _core.State) -> None:
    if old.kind(0) != new.kind(0):
        kinds = ["an array" if core.kind(0) == "array" else f"a {core.kind(0)}" for core in (new, old)]
        raise InvalidValueError(
            f"extend_: the model is {kinds[0]}, was {kinds[1]} at setup; call setup for another model"
        )


def _matched(old: _core.State, model: _core.Model) -> tuple[dict[int, int], list[Any]]:
    """Which leaf of the old state each leaf of the model is, by path; and the rules: known ones, None, or `_NEW`."""
    known: dict[Path, tuple[int, Path]] = {path: (leaf, axes) for path, leaf, axes in old.paths()}
    alone = set(old.left_alone())
    infos, old_rules = model.infos(), _rules_now(old)
    kept: dict[int, int] = {}
    rules: list[Any] = [_NEW] * len(infos)
    turned: dict[int, Path] = {}
    for leaf, path, _, axes in model.places():
        if leaf in kept:
            continue
        if path in alone:
            rules[leaf] = None
        if path not in known:
            continue
        before, old_axes = known[path]
        _check_same(path, infos[leaf], old.leaf_info(before), tuple(axes) == old_axes)
        if tuple(axes) != old_axes:
            turned[leaf] = path
            continue
        kept[leaf], rules[leaf] = before, old_rules[before]
    for leaf, path in turned.items():
        if leaf not in kept:
            raise InvalidValueError(
                f'extend_: the array at "{KeyPath(*path)}" has its axes in another order than its state, that of an '
                "array it was tied to; call setup for the new model"
            )
    return kept, rules


def _rules_now(core: _core.State) -> list[Rule]:
    """The rule of every leaf as it is now, equal ones as one object, where rules of one's own can be compared."""
    same: dict[Rule, Rule] = {}
    rules = []
    for leaf in range(len(core.rules)):
        rule = leaf_rule(core, leaf)
        with suppress(TypeError):
            rule = same.setdefault(rule, rule)
        rules.append(rule)
    return rules


def _check_same(path: Path, now: tuple[Any, ...], before: tuple[Any, ...], same_axes: bool) -> None:
    for i, what in ((0, "shape"), (1, "dtype"), (3, "device")):
        if now[i] != before[i] and (same_axes or i != 0):
            raise InvalidValueError(
                f'extend_: the array at "{KeyPath(*path) or "the model"}" has {what} {now[i]}, its state was made for '
                f"{before[i]}; remove it from the model and call extend_ to forget its state, or call setup for the "
                "new model"
            )


def _rules_of_new(old: _core.State, model: _core.Model, new: set[int], rule: Any) -> dict[int, Rule | None]:
    if not new and rule is None:
        return {}
    if rule is not None:
        return resolve_new(rule, model, new, again=False)
    if old.setup_rule is None:
        path = KeyPath(*model.leaves()[min(new)][0])
        raise InvalidValueError(
            f'extend_: no rule for "{path or "the model"}": the state does not know what setup was given (functions '
            "and classes are not pickled); pass rule="
        )
    try:
        return resolve_new(old.setup_rule, model, new, again=True)
    except InvalidValueError as error:
        if "no rule for" not in str(error):
            raise
        raise InvalidValueError(f"{error}; for the new arrays alone, pass rule=") from None


def _marks(
    old: _core.State, model: _core.Model, rules: list[Any], pairs: list[tuple[int, int]]
) -> list[tuple[Marker, list[int]]]:
    """What markers mark: of the new leaves as they stand, of the old ones what they marked at setup as well."""
    found = {id(marker): (marker, set(leaves)) for marker, leaves in marks_of(model, rules)}
    for marker, leaves in old.marks():
        marked = found.setdefault(id(marker), (marker, set()))[1]
        marked.update(leaf for leaf, before in pairs if before in leaves)
    return [(marker, sorted(leaves)) for marker, leaves in found.values() if leaves]


def _node_in(core: _core.State, known: State) -> int | None:
    """Where a handle of the old state belongs in the new one; None: nowhere."""
    path = known._core.path(known._node)
    if isinstance(known, Marked):
        marks = [marker for marker, _ in core.marks()]
        return next((core.node_count() + i for i, marker in enumerate(marks) if marker is path[0]), None)
    node = 0
    for key in path:
        node = core.child(node, key)
        if node == 0:
            return None
    if core.kind(node) == "value" or (core.kind(node) == "array") != (known._core.kind(known._node) == "array"):
        return 0 if not path else None
    return core.leaf_node(core.leaf(node)) if core.kind(node) == "array" else node
