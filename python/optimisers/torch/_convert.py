"""States of torch.optim's optimisers as states of this library, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .. import _core
from .._core import InvalidTypeError, InvalidValueError
from .._setup import setup
from .._state import State
from . import _classes
from ._entries import clocks_of
from ._rules import TORCH

_SPECS = {spec.name: spec for spec in TORCH}


def state_from(optimizer: Any, model: Any) -> State:
    bound = _bound_of(optimizer, model, "from_torch")
    rules = {id(p): rule for rule, params in zip(bound._rules, bound._bound, strict=True) for p in params}
    missing = [p for p in bound._leaves if id(p) not in {id(array) for _, array in _leaves(model, "from_torch")}]
    if missing:
        raise InvalidValueError(f"from_torch: {len(missing)} parameters of the optimizer are not in the model")
    state = setup(lambda path, leaf: rules.get(id(leaf)), model)
    _copy(bound, state, model, "from_torch", back=False)
    return state


def fill(state: State, model: Any, optimizer: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidTypeError(f"to_torch: expected a torch optimizer, got {type(optimizer).__name__}")
    bound = _bound_of(optimizer, model, "to_torch")
    _copy(bound, state, model, "to_torch", back=True)
    optimizer.load_state_dict(bound.state_dict())


def _leaves(model: Any, call: str) -> list[tuple[tuple[Any, ...], Any]]:
    return _core.Model(model, call).leaves()


def _bound_of(optimizer: Any, model: Any, call: str) -> Any:
    """This library's optimizer of the same class with the same groups and state."""
    if isinstance(optimizer, torch.optim.Optimizer):
        name, packed = type(optimizer).__name__, optimizer.state_dict()
        lists = [group["params"] for group in optimizer.param_groups]
    elif isinstance(optimizer, Mapping) and {"state", "param_groups"} <= set(optimizer):
        packed = dict(optimizer)
        name = _class_of(packed, call)
        lists = _parameters_by_number(packed, model, call)
    else:
        raise InvalidTypeError(
            f"{call}: expected a torch optimizer or its state_dict(), got {type(optimizer).__name__}"
        )
    if name not in _SPECS:
        raise InvalidTypeError(f"{call}: no rules are known for torch.optim.{name}; there are {', '.join(_SPECS)}")
    cls = getattr(_classes, name)
    known = (*_SPECS[name].entries, *_SPECS[name].keywords, "maximize")
    groups = [
        {"params": params} | {key: group[key] for key in known if key in group}
        for params, group in zip(lists, packed["param_groups"], strict=True)
    ]
    if any(group.get("maximize") for group in groups):
        raise InvalidValueError(f"{call}: maximize=True has no rule: give update_ the gradients' negatives")
    bound = cls(groups)
    bound.load_state_dict(packed)
    return bound


def _class_of(packed: Mapping[str, Any], call: str) -> str:
    """The class whose groups have these entries."""
    keys = set(packed["param_groups"][0])
    fits = [spec for spec in TORCH if {*spec.entries, *spec.keywords} <= keys]
    most = max((len(spec.entries) + len(spec.keywords) for spec in fits), default=0)
    best = [spec.name for spec in fits if len(spec.entries) + len(spec.keywords) == most]
    if not best:
        raise InvalidTypeError(
            f"{call}: no rules are known for an optimizer with the entries {', '.join(sorted(keys))}"
        )
    return best[0]  # Adam's and AdamW's are one class with a switch among the entries


def _parameters_by_number(packed: Mapping[str, Any], model: Any, call: str) -> list[list[Any]]:
    parameters = (
        list(model.parameters()) if isinstance(model, torch.nn.Module) else [a for _, a in _leaves(model, call)]
    )
    numbers = [number for group in packed["param_groups"] for number in group["params"]]
    if sorted(numbers) != list(range(len(parameters))):
        raise InvalidValueError(f"{call}: the state is of {len(numbers)} parameters, the model has {len(parameters)}")
    return [[parameters[number] for number in group["params"]] for group in packed["param_groups"]]


def _copy(bound: Any, state: State, model: Any, call: str, back: bool) -> None:
    """Slots, master copies and clocks between the optimizer's native state and a state of the model."""
    ours, theirs = state._core, bound._native._core
    arrays = {tuple(path): array for path, array in _leaves(model, call)}
    pairs = []
    for path, leaf, axes in ours.paths():
        other = bound._leaves.get(arrays.get(tuple(path)))
        if other is None or axes:
            continue
        here, there = (
            core.rule_object(i)._with_values(iter(core.rule_values(i))) for core, i in ((ours, leaf), (theirs, other))
        )
        if here != there:
            raise InvalidValueError(
                f"{call}: {ours.path_text(ours.leaf_node(leaf))} has {here!r}, the optimizer means {there!r}"
            )
        pairs.append((leaf, other))
    if back and len(pairs) != len(bound._leaves):
        raise InvalidValueError(f"{call}: the optimizer has {len(bound._leaves)} parameters, {len(pairs)} have a state")
    for leaf, other in pairs:
        (source, i), (target, j) = ((ours, leaf), (theirs, other)) if back else ((theirs, other), (ours, leaf))
        for from_, to in zip(_memory(source, i), _memory(target, j), strict=True):
            np.copyto(to, from_.reshape(to.shape))
        target.set_clocks(j, clocks_of(source, i))
        if back:
            clocks = [pair for stage in source.clocks(i) for pair in stage]
            begun = any(array.any() for array in _memory(source, i))  # of a rule that does not count
            bound._counts.array[j] = next((value for name, value in clocks if name == "t"), float(begun))


def _memory(core: _core.State, leaf: int) -> list[Any]:
    master = core.master(leaf)
    return [array for stage in core.slots(leaf) for _, array in stage] + ([] if master is None else [master])
