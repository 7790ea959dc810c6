"""Hyperparameters by name: which there are, and rules with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import _core
from ._core import InvalidValueError
from ._rule import BuiltinRule, Field, Rule

# How fields are called in Python where that differs: `lambda` is a keyword.
PYTHON_NAMES = {"lambda": "lambda_"}
CORE_NAMES = {python: core for core, python in PYTHON_NAMES.items()} | {"centered": "centred"}


def python_name(core_name: str) -> str:
    return PYTHON_NAMES.get(core_name, core_name)


def core_name(name: str) -> str:
    return CORE_NAMES.get(name, name)


def fields_of(rule: Rule) -> tuple[Field, ...]:
    """The hyperparameters of one stage."""
    if isinstance(rule, BuiltinRule) or not hasattr(rule, "__dataclass_fields__"):
        return rule.fields if isinstance(rule, BuiltinRule) else ()
    import dataclasses

    return tuple(
        Field(f.name, "any", None if f.default is dataclasses.MISSING else f.default, "", "", "", False)
        for f in dataclasses.fields(rule)  # type: ignore[arg-type]
        if f.init
    )


def rules_inside(stage: Rule) -> Iterator[Rule]:
    """The rules that are fields of a user-defined one."""
    if not isinstance(stage, BuiltinRule):
        values = (getattr(stage, field.name) for field in fields_of(stage))
        yield from (value for value in values if isinstance(value, Rule))


def reached(rule: Rule) -> Iterator[Rule]:
    """Every stage, with the rules inside user-defined ones."""
    for stage in rule._stages():
        yield stage
        for inner in rules_inside(stage):
            yield from reached(inner)


def check_fields(rules: Iterable[Rule], names: list[str], where: str) -> None:
    """Raise for a name that no rule has, listing those there are, and for a structural one."""
    known = {field.name: (rule, field) for rule in rules for field in fields_of(rule)}
    for name in names:
        rule, field = known.get(python_name(core_name(name)), (None, None))
        if field is None:
            listed = ", ".join(sorted(known)) or "none"
            raise InvalidValueError(f'adjust: no rule{where} has a field "{name}"; fields are {listed}')
        if field.structural:
            raise InvalidValueError(
                f"adjust: {field.name} of {type(rule).__name__} decides which slots exist, so it "
                "cannot be changed; use setup with a new rule"
            )


def adjusted_rule(rule: Rule, changes: dict[str, Any]) -> Rule:
    """The rule with these fields changed in every stage that has them."""
    check_fields(reached(rule), list(changes), f" in {type(rule).__name__}")
    return with_fields(rule, {core_name(name): value for name, value in changes.items()})


def with_fields(rule: Rule, wanted: dict[str, Any]) -> Rule:
    """The rule with these fields, by their names in C++, wherever it has them."""
    return rule._mapped(lambda stage: _adjusted_stage(stage, wanted))


def _adjusted_stage(stage: Rule, wanted: dict[str, Any]) -> Rule:
    if isinstance(stage, BuiltinRule):
        values = dict(zip(stage._core_names, stage._value.values(), strict=True))
        values.update({name: value for name, value in wanted.items() if name in values})
        return stage._with_values(iter([_core.RuleValue(type(stage).__name__, values)]))
    by_name = {python_name(name): value for name, value in wanted.items()}
    changes = {f.name: by_name[f.name] for f in fields_of(stage) if f.name in by_name}
    for field in fields_of(stage):
        inner = getattr(stage, field.name)
        if isinstance(inner, Rule) and field.name not in changes:
            changes[field.name] = with_fields(inner, wanted)
    if not changes:
        return stage
    import dataclasses

    return dataclasses.replace(stage, **changes)  # type: ignore[type-var]
