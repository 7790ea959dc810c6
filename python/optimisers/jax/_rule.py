"""A rule as the custom call knows it: what is compiled, and what comes with each call."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import optimisers as opt

from .. import _core
from .._core import InvalidTypeError, InvalidValueError, NonFiniteError
from .._paths import listed
from .._rule import BuiltinRule, Rule, check_rule


class Slot(NamedTuple):
    """A slot of a stage, and what it starts at."""

    name: str
    real: bool
    at_x: bool
    start: str  # the field it starts at; "": zero
    unless: str  # and the field with which it starts at zero all the same


@dataclass(frozen=True)
class Stage:
    """A rule of the chain."""

    rule: BuiltinRule
    fields: tuple[str, ...]  # those that come with each call, by their names in Python
    slots: tuple[Slot, ...]
    clock: tuple[float, ...]
    measures: bool  # a norm of whole leaves
    own_clock: bool  # of each leaf
    refuses_complex: str | None  # why

    def numbers(self, rule: Rule) -> list[float]:
        """The values of its fields in a rule of this class, pairs as two."""
        return [float(x) for name in self.fields for x in np.ravel(getattr(rule, name))]


class Places(NamedTuple):
    """Where the hyperparameters of one name stand among all."""

    at: list[int]
    pair: bool


class Plan:
    """A rule, taken apart."""

    def __init__(self, rule: Any, call: str) -> None:
        check_rule(rule, call)
        self.rule: Rule = rule
        self.master = rule._master()
        self.stages = [self._stage(stage, call) for stage in rule._stages()]
        # A norm of all leaves, and clocks that stand one behind the other, are of one call.
        self.together = any(
            s.own_clock or (s.measures and getattr(s.rule, "scope", "leaf") == "global") for s in self.stages
        )
        self.text = repr(rule._mapped(_compiled))
        self.places: dict[str, Places] = {}
        at = 0
        for stage in self.stages:
            for name in stage.fields:
                size = np.size(getattr(stage.rule, name))
                self.places.setdefault(name, Places([], size == 2)).at.append(at)
                at += size

    @staticmethod
    def _stage(stage: Rule, call: str) -> Stage:
        if not isinstance(stage, BuiltinRule):
            raise InvalidTypeError(
                f"{call}: {type(stage).__name__} is a rule written in Python, which a compiled program cannot run; use "
                "setup and update, or write it as a transformation of optax beside this one"
            )
        fields, slots, clock, measures, own_clock = _core.lent_stage(stage._value)
        names = dict(zip(stage._core_names, (f.name for f in stage.fields), strict=True))
        own = tuple(Slot(n, real, at_x, names.get(start, ""), names.get(un, "")) for n, real, at_x, start, un in slots)
        return Stage(
            stage, tuple(names[n] for n in fields), own, clock, measures, own_clock, _refusals()[type(stage).__name__]
        )

    def numbers(self, rule: Rule | None = None) -> list[float]:
        """All hyperparameters that come with each call, of this rule or another one of its structure."""
        rules = [stage.rule for stage in self.stages] if rule is None else list(rule._stages())
        return [x for stage, own in zip(self.stages, rules, strict=True) for x in stage.numbers(own)]

    def clock(self, leaves: int) -> list[float]:
        """What the clock starts at, or those of so many leaves, one after the other."""
        own = any(stage.own_clock for stage in self.stages)
        return [x for stage in self.stages for x in stage.clock] * (leaves if own else 1)

    def check_names(self, names: Iterator[str] | dict[str, Any], call: str) -> None:
        for name in names:
            if name not in self.places:
                fixed = any(name == f.name for stage in self.stages for f in stage.rule.fields)
                reason = (
                    "decides what is compiled: make another transformation" if fixed else "is no field of these rules"
                )
                raise InvalidValueError(f"{call}: {name} {reason}; fields that change are {listed(list(self.places))}")

    def looks_at_parameters(self) -> bool:
        """Whether what comes out depends on the parameters."""
        return self.master is not None or any(_looks(_compiled(s.rule)) for s in self.stages)


@functools.cache
def _refusals() -> dict[str, str | None]:
    return {rule["name"]: rule["refuses_complex"] for rule in _core.rule_descriptions()}


def _compiled(stage: Rule) -> Rule:
    """The rule with defaults for what comes with each call: one program serves all values."""
    assert isinstance(stage, BuiltinRule)
    fields, *_ = _core.lent_stage(stage._value)
    fixed = {
        f.name: getattr(stage, f.name)
        for core, f in zip(stage._core_names, stage.fields, strict=True)
        if core not in fields
    }
    return type(stage)(**fixed)


@functools.cache
def _looks(rule: Rule) -> bool:
    """Found by trying: with parameters of either sign, far away, or none, a rule that looks gives other bits."""
    assert isinstance(rule, BuiltinRule)
    values = {f.name: 1 if f.kind == "int" else getattr(rule, f.name) for f in rule.fields}  # what it does in n steps
    rule = type(rule)(**values)
    seen = set()
    for x in (1.0, -1.0, 1e6, -1e6, np.nan):
        state = opt.init(rule, np.ones(4))
        outcome = b""
        for g in (0.5, -0.25, 0.125):
            try:
                state, dx = opt.apply_(rule, state, np.full(4, x), np.array([g, -g, 2 * g, 0]))
            except NonFiniteError:  # it says itself what it has seen
                return True
            outcome += b"" if dx is None else np.asarray(dx).tobytes()
        seen.add(outcome + b"".join(np.asarray(a).tobytes() for a in _arrays(state)))
    return len(seen) > 1


def _arrays(state: Any) -> Iterator[Any]:
    for part in state.state if hasattr(state, "state") else state if isinstance(state, tuple) else ():
        if hasattr(part, "tobytes"):
            yield part
        elif isinstance(part, tuple):
            yield from _arrays(part)
