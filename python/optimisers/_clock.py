"""Clocks set by name: how many steps a leaf is to have taken, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import _core
from ._core import InvalidTypeError, InvalidValueError

MOST_STEPS = 1 << 32


def set_clock(core: _core.State, leaf: int, given: Any) -> None:
    """Set scalars of a leaf's clocks. All or nothing."""
    stages = [dict(stage) for stage in core.clocks(leaf)]
    values = core.rule_values(leaf)
    for stage, mapping in _by_stage(given, stages):
        _set_stage(stages[stage], values[stage], mapping)
    core.set_clocks(leaf, [value for stage in stages for value in stage.values()])


def _by_stage(given: Any, stages: list[dict[str, float]]) -> list[tuple[int, dict[str, Any]]]:
    """(stage, scalars by name): names alone go to every stage that has them."""
    if not hasattr(given, "keys"):
        raise InvalidTypeError(
            f'clock: expected scalars by name, such as {{"t": 100}} or leaf.clock, got {type(given).__name__}'
        )
    if isinstance(given, tuple) and not hasattr(given, "_fields"):  # of a chain, as `leaf.clock` gives it
        parts = list(_flat(given))
        if len(parts) != len(stages):
            raise InvalidValueError(f"clock: expected the clocks of {len(stages)} stages, got {len(parts)}")
        return list(enumerate(dict(part) for part in parts))
    mapping: Mapping[str, Any] = dict(given)
    known = dict.fromkeys(name for stage in stages for name in stage)
    unknown = [name for name in mapping if name not in known]
    if unknown:
        raise InvalidValueError(f"clock: there is no {unknown[0]!r}; the scalars here are {', '.join(known) or 'none'}")
    found = [(i, {n: v for n, v in mapping.items() if n in stage}) for i, stage in enumerate(stages)]
    return [(i, part) for i, part in found if part]


def _flat(clocks: Sequence[Any]) -> Any:
    for part in clocks:
        if isinstance(part, tuple) and not hasattr(part, "_fields"):
            yield from _flat(part)
        else:
            yield part


def _set_stage(stage: dict[str, float], rule: _core.RuleValue, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidValueError(f"clock: {name} must be a finite number, got {value!r}")
        if name == "t" and (value != int(value) or not 0 <= value <= MOST_STEPS):
            raise InvalidValueError(f"clock: t must be a number of steps, 0 to {MOST_STEPS}, got {value!r}")
    if set(given) == {"t"}:
        stage.update(zip(stage, rule.clock_after(int(given["t"])), strict=True))
    stage.update({name: float(value) for name, value in given.items()})
