"""What `optimizer.state` holds: views of the native state under torch's names, and writing through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakMethod

import numpy as np
import torch

from .. import _core
from .._core import InvalidValueError
from .._rule import BuiltinRule, Rule
from ._local import as_given
from ._rules import slot_entries

STEP, MASTER, CLOCK, PYTHON = "step", "master", "clock", "rule_state"


class Entries(dict[str, Any]):
    """The state of one parameter. What is assigned to an entry is copied into its view, so that it is used."""

    def __setitem__(self, key: str, value: Any) -> None:
        view = self.get(key)
        if view is None:
            super().__setitem__(key, value)
        elif view is not value:
            check_shape(view, value, f"state[{key!r}]")
            put(view, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class States(defaultdict[Any, Any]):
    """The states of all parameters. An assigned dict fills a parameter's views; what it lacks starts anew.

    The optimiser is held weakly: it ends with its last name, and its memory with it, as torch's does.
    """

    def __init__(self, fill: Callable[[Any, Mapping[str, Any]], None]) -> None:
        super().__init__(dict)
        self._fill = WeakMethod(fill)

    def fill(self, parameter: Any, given: Mapping[str, Any]) -> None:
        fill = self._fill()
        if fill is None:
            raise InvalidValueError("state: the optimiser is gone whose state this was")
        fill(parameter, given)

    def __setitem__(self, parameter: Any, given: Any) -> None:
        if isinstance(given, Entries) or not isinstance(self.get(parameter), Entries):
            super().__setitem__(parameter, given)
        else:
            self.fill(parameter, given)

    def __delitem__(self, parameter: Any) -> None:
        self.fill(parameter, {})

    def pop(self, parameter: Any, *default: Any) -> Any:
        gone = {k: v.clone() for k, v in self[parameter].items()} if parameter in self else None
        if gone is None:
            return super().pop(parameter, *default)
        self.fill(parameter, {})
        return gone

    def clear(self) -> None:
        for parameter in self:
            self.fill(parameter, {})


class StepCounts:
    """The steps of all leaves as one float32 tensor, so that counting a step is one native loop."""

    def __init__(self, leaves: int) -> None:
        self.tensor = torch.zeros(leaves, dtype=torch.float32)
        self.array: np.ndarray[Any, Any] = self.tensor.numpy()
        self.taken()

    def taken(self) -> None:
        self._version = self.tensor._version

    @property
    def were_edited(self) -> bool:
        """Whether somebody wrote to one: counting, which goes past torch, changes no version."""
        return self.tensor._version != self._version


def put(view: torch.Tensor, value: Any) -> None:
    with torch.no_grad():
        if isinstance(value, torch.Tensor):
            view.copy_(value)
        else:
            view.fill_(0.0 if value is None else float(value))


def check_shape(view: torch.Tensor, value: Any, where: str) -> None:
    if value is None or (view.ndim == 0 and not isinstance(value, torch.Tensor)):
        return
    if not isinstance(value, torch.Tensor):
        raise InvalidValueError(f"{where} is a {type(value).__name__}, expected a tensor of shape {tuple(view.shape)}")
    if value.shape != view.shape and not (view.ndim == 0 and value.numel() == 1):
        raise InvalidValueError(
            f"{where} has shape {tuple(value.shape)}, the parameter's has {tuple(view.shape)}; it belongs to another "
            "parameter: are all in the order they were saved in?"
        )


def entries_of(
    core: _core.State, leaf: int, rule: Rule, parameter: torch.Tensor, count: torch.Tensor | None, is_whole: bool
) -> Entries:
    """Views of a leaf's state as torch names them, in the parameter's own form."""
    entries = Entries()
    if count is not None:
        dict.__setitem__(entries, STEP, count)
    native = iter(core.slots(leaf))
    for stage, names in zip(rule._stages(), slot_entries(rule), strict=True):
        if not isinstance(stage, BuiltinRule):
            continue
        arrays = dict(next(native))
        for slot, name, negated in names:
            if slot in arrays:
                view = torch.from_numpy(arrays[slot])
                dict.__setitem__(
                    entries, name, as_given(torch._neg_view(view) if negated else view, parameter, is_whole)
                )
    master = core.master(leaf)
    if master is not None:
        dict.__setitem__(entries, MASTER, as_given(torch.from_numpy(master), parameter, is_whole))
    return entries


def check_given(entries: Mapping[str, Any], given: Mapping[str, Any], where: str, may_lack: bool = False) -> None:
    """Whether these values may be put into the views; names what is missing or has another shape."""
    missing = [key for key in entries if key not in given and not may_lack]
    if given and missing:
        raise InvalidValueError(
            f"{where}: the state has no {', '.join(map(repr, missing))}; it has {', '.join(map(repr, given))}. It was "
            "saved by another optimiser, or with other options"
        )
    for key, view in entries.items():
        if key in given:
            check_shape(view, given[key], f"{where}: state[{key!r}]")


def clocks_of(core: _core.State, leaf: int) -> list[float]:
    return [value for stage in core.clocks(leaf) for _, value in stage]
