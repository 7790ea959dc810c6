"""States of other libraries' optimisers taken over, and given back: torch.optim's and optax's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ._core import InvalidTypeError, InvalidValueError
from ._rule import BuiltinRule, Rule
from ._setup import setup
from ._state import State, check_state


def from_torch(optimizer: Any, model: Any) -> State:
    """Return a state that goes on where a `torch.optim` optimiser stands: its moments, steps and hyperparameters.

    Args:
        optimizer: of a class that `optimisers.torch` has by the same name (SGD, Adam, AdamW, NAdam, RAdam, Adamax,
            Adagrad, Adadelta, RMSprop, Rprop), or its `state_dict()`.
        model: the Module, or a tree of the parameters. A `state_dict` counts parameters in the order of
            `model.parameters()`.

    Returns:
        The state. Parameters the optimiser has not get none.

    Raises:
        TypeError: another kind of optimiser.
        ValueError: the state does not fit the model, or has options no rule here has.

    Example:
        >>> import torch, optimisers as opt
        >>> model = torch.nn.Linear(2, 1)
        >>> theirs = torch.optim.AdamW(model.parameters(), lr=0.5)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> theirs.step()
        >>> state = opt.from_torch(theirs, model)
        >>> state.weight.clock.t, state.weight.rule.eta
        (1.0, 0.5)
    """
    from .torch._convert import state_from

    return state_from(optimizer, model)


def to_torch(state: State, model: Any, optimizer: Any) -> None:
    """Give a `torch.optim` optimiser of the same rule the moments and steps of a state; the way back of `from_torch`.

    Args:
        state: of a Module, or of a tree of its parameters.
        model: that Module or tree.
        optimizer: made with the same hyperparameters; its state is replaced. Of rules that do not count steps its
            `step` becomes 1, which changes no update.

    Raises:
        ValueError: the rules differ; nothing has changed.

    Example:
        >>> import torch, optimisers as opt
        >>> model = torch.nn.Linear(2, 1)
        >>> state = opt.setup(opt.AdamW(0.5, lambda_=0.01), model)
        >>> theirs = torch.optim.AdamW(model.parameters(), lr=0.5)
        >>> opt.to_torch(state, model, theirs)
        >>> float(theirs.state[model.bias]["step"])
        0.0
    """
    from .torch._convert import fill

    check_state(state, "to_torch")
    fill(state, model, optimizer)


# ---- optax, whose states have no hyperparameters

# Of each rule: the class of optax's state, and its field for each slot.
_OPTAX: dict[str, tuple[str, dict[str, str]]] = {
    "Adam": ("ScaleByAdamState", {"m": "mu", "v": "nu"}),
    "AdamW": ("ScaleByAdamState", {"m": "mu", "v": "nu"}),
    "RAdam": ("ScaleByAdamState", {"m": "mu", "v": "nu"}),
    "AdaMax": ("ScaleByAdamState", {"m": "mu", "u": "nu"}),
    "AdaBelief": ("ScaleByBeliefState", {"m": "mu", "s": "nu"}),
    "Lion": ("ScaleByLionState", {"m": "mu"}),
    "Momentum": ("TraceState", {"v": "trace"}),
    "AdaGrad": ("ScaleByRssState", {"a": "sum_of_squares"}),
    "AdaDelta": ("ScaleByAdaDeltaState", {"a": "e_g", "delta": "e_x"}),
    "RMSProp": ("ScaleByRmsState", {"q": "nu"}),
}
_CENTRED = ("ScaleByRStdDevState", {"l": "mu", "q": "nu"})


def from_optax(opt_state: Any, params: Any, rule: Rule) -> State:
    """Return a state that goes on where an optax optimiser stands: its moments and its count.

    Args:
        opt_state: what `init` or `update` of an optax transformation returned.
        params: the model it is for.
        rule: optax keeps no hyperparameters in its state, so the rule has them: one stage with state, of Adam, AdamW,
            RAdam, AdaMax, AdaBelief, Lion, Momentum, AdaGrad, AdaDelta, RMSProp, and any without.

    Raises:
        ValueError: optax's state is of another rule, or of another model.

    Example:
        >>> import jax.numpy as jnp, optax, optimisers as opt
        >>> params = {"w": jnp.ones(2)}
        >>> theirs = optax.adam(0.1)
        >>> _, opt_state = theirs.update({"w": jnp.ones(2)}, theirs.init(params), params)
        >>> opt.from_optax(opt_state, params, opt.Adam(0.1))["w"].clock.t
        1.0
    """
    state = setup(rule, params)
    found = _optax_part(opt_state, state, "from_optax")
    filled = []
    for leaf, slots, part in _pairs(state, found, params, "from_optax"):
        stage, values = part
        filled += [(slot, _scale(stage) * np.asarray(values[name])) for name, slot in slots.items()]
        count = getattr(found[1], "count", None)
        if count is not None:
            leaf.clock = {"t": int(count)} if "t" in _clock_names(leaf) else {}
    for slot, value in filled:
        _write(slot, value)
    return state


def to_optax(state: State, params: Any, opt_state: Any) -> Any:
    """Return optax's state with the moments and the count of a state; the way back of `from_optax`.

    Args:
        state: of one rule for all leaves.
        params: the model it is of.
        opt_state: what `init` of the optax transformation returned: says how it is made.

    Raises:
        ValueError: optax's state is of another rule, or the leaves' clocks differ, of which optax has one.
    """
    import jax

    check_state(state, "to_optax")
    found = _optax_part(opt_state, state, "to_optax")
    fields = found[2]
    pairs = list(_pairs(state, found, params, "to_optax"))
    counts = {dict(_clocks(leaf)).get("t", -1.0) for leaf, _, _ in pairs}
    if len(counts) > 1:
        raise InvalidValueError(f"to_optax: the leaves have taken {sorted(counts)} steps, and optax has one count")
    new: dict[str, Any] = {}
    for slot, field in fields.items():
        values = []
        for _, slots, (stage, _) in pairs:
            values.append(jax.numpy.asarray(np.asarray(slots[slot]) / _scale(stage)))
        old, tree = jax.tree_util.tree_flatten(getattr(found[1], field))
        new[field] = jax.tree_util.tree_unflatten(tree, [v.astype(o.dtype) for v, o in zip(values, old, strict=True)])
    count = counts.pop() if counts else -1.0
    if count >= 0 and hasattr(found[1], "count"):
        new["count"] = jax.numpy.asarray(int(count), found[1].count.dtype)
    return _replaced(opt_state, found[1], found[1]._replace(**new))


def _scale(stage: BuiltinRule) -> float:
    """What a slot is of optax's: Momentum's velocity has the learning rate in it."""
    return getattr(stage, "eta", 1.0) if type(stage).__name__ == "Momentum" else 1.0


def _replaced(node: Any, old: Any, new: Any) -> Any:
    if node is old:
        return new
    if isinstance(node, tuple):
        parts = [_replaced(part, old, new) for part in node]
        return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    return node


def _named_tuples(node: Any) -> Iterator[Any]:
    if isinstance(node, tuple):
        if hasattr(node, "_fields"):
            yield node
        for part in node:
            yield from _named_tuples(part)


def _stage_with_state(rule: Rule, call: str) -> tuple[int, BuiltinRule]:
    stages = list(enumerate(rule._stages()))
    found = [(i, s) for i, s in stages if isinstance(s, BuiltinRule) and s._value.slot_count > 0]
    if (
        len(found) != 1
        or type(found[0][1]).__name__ not in _OPTAX
        or any(not isinstance(s, BuiltinRule) for _, s in stages)
    ):
        raise InvalidTypeError(f"{call}: expected one stage with state, of {', '.join(_OPTAX)}; got {rule!r}")
    return found[0]


def _optax_part(opt_state: Any, state: State, call: str) -> tuple[int, Any, dict[str, str]]:
    """(stage, the part of optax's state for it, its fields by slot)."""
    rules = state._core.rules
    if not rules or any(rule != rules[0] for rule in rules):
        raise InvalidValueError(
            f"{call}: optax has one transformation; the leaves have several rules, or there are none"
        )
    index, stage = _stage_with_state(rules[0], call)
    name, fields = _OPTAX[type(stage).__name__]
    if getattr(stage, "centred", False):
        name, fields = _CENTRED
    parts = [part for part in _named_tuples(opt_state) if type(part).__name__ == name]
    if len(parts) != 1:
        kinds = sorted({type(part).__name__ for part in _named_tuples(opt_state)})
        raise InvalidValueError(f"{call}: {type(stage).__name__} needs one {name} in optax's state, which has {kinds}")
    return index, parts[0], fields


def _pairs(state: State, found: tuple[int, Any, dict[str, str]], params: Any, call: str) -> Iterator[Any]:
    """(leaf, its slots by name, (stage, optax's arrays by slot)) in the order of optax's trees."""
    import jax

    from ._state import handle

    index, part, fields = found
    core = state._core
    paths = {tuple(path): leaf for path, leaf, _ in core.paths()}
    columns = {slot: jax.tree_util.tree_flatten_with_path(getattr(part, field))[0] for slot, field in fields.items()}
    for row in zip(*columns.values(), strict=True):
        path = tuple(_key(key) for key in row[0][0])
        if path not in paths:
            raise InvalidValueError(
                f"{call}: optax's state has an array at {'.'.join(map(str, path))}, the model has none"
            )
        leaf = handle(core, core.leaf_node(paths[path]))
        values = {slot: array for slot, (_, array) in zip(columns, row, strict=True)}
        for slot, array in values.items():
            if tuple(array.shape) != tuple(leaf.shape):
                raise InvalidValueError(f"{call}: {slot} of {leaf.path} has shape {array.shape}, the leaf {leaf.shape}")
        rule = core.rule_object(paths[path])
        yield leaf, dict(core.slots(paths[path])[index]), (list(rule._stages())[index], values)
    if len(next(iter(columns.values()))) != len(core.rules):
        raise InvalidValueError(
            f"{call}: optax's state is of {len(next(iter(columns.values())))} arrays, not {len(core.rules)}"
        )


def _key(key: Any) -> Any:
    return next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name))


def _clocks(leaf: Any) -> list[tuple[str, float]]:
    return [pair for stage in leaf._core.clocks(leaf._index) for pair in stage]


def _clock_names(leaf: Any) -> list[str]:
    return [name for name, _ in _clocks(leaf)]


def _write(slot: Any, value: Any) -> None:
    np.copyto(slot, value)
