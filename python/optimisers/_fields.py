"""Hyperparameters by name: which there are, and rules with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._names import argument_hint
from ._rule import BuiltinRule, Field, Rule

# How fields are called in Python where that differs: `lambda` is a keyword.
PYTHON_NAMES = {"lambda": "lambda_"}
CORE_NAMES = {python: core for core, python in PYTHON_NAMES.items()} | {"centered": "centred"}
UNSET: Any = object()


def python_name(core_name: str) -> str:
    return PYTHON_NAMES.get(core_name, core_name)


def core_name(name: str) -> str:
    return CORE_NAMES.get(name, name)


class Change(NamedTuple):
    """A field in every stage that has it, or in the stages of one class."""

    of: type[Rule] | None
    name: str  # as in C++
    value: Any
    scales: bool = False  # the value is a factor

    def concerns(self, stage: Rule, field: Field) -> bool:
        return field.name == python_name(self.name) and (self.of is None or isinstance(stage, self.of))


def changes_of(call: str, first: Any, scale: Any, fields: Mapping[str, Any]) -> list[Change]:
    """What the arguments of `adjust` and `adjust_` ask for, where they are no rule."""
    changes = [Change(None, core_name(name), value) for name, value in fields.items()]
    if isinstance(first, Mapping):
        for cls, part in first.items():
            changes += _changes_of_class(call, cls, part)
    elif first is not UNSET:
        if isinstance(first, type) and issubclass(first, Rule):
            raise InvalidTypeError(f"{call}: got the class {first.__name__}; write {first.__name__}(...)")
        if "eta" in fields:
            raise InvalidTypeError(f"{call}: eta was given twice")
        changes.append(Change(None, "eta", first))
    if scale is not UNSET:
        if any(change.name == "eta" for change in changes):
            raise InvalidTypeError(f"{call}: eta and scale= both say what the learning rate becomes; give one of them")
        changes.append(Change(None, "eta", scale, scales=True))
    if not changes:
        raise InvalidTypeError(f"{call}: nothing to change; give eta, scale= or fields by name")
    return changes


def _changes_of_class(call: str, cls: Any, part: Any) -> list[Change]:
    if not (isinstance(cls, type) and issubclass(cls, Rule)):
        raise InvalidTypeError(
            f"{call}: the keys of a dict are classes of rules, {{opt.ClipNorm: {{'omega': 1.0}}}}, got {cls!r}; "
            f"fields of all rules are keyword arguments, and a part of the model is state[...]"
        )
    if not isinstance(part, Mapping):
        raise InvalidTypeError(
            f"{call}: expected a dict from fields to values for {cls.__name__}, got {type(part).__name__}"
        )
    return [Change(cls, core_name(name), value) for name, value in part.items()]


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


def structure(rule: Rule) -> Any:
    """What must agree for two rules to share a state."""
    stages = []
    for stage in rule._stages():
        deciding = [getattr(stage, field.name) for field in fields_of(stage) if field.structural]
        stages.append((type(stage), deciding, [structure(inner) for inner in rules_inside(stage)]))
    return rule._master(), stages


def check_structure(now: Rule, rule: Rule, what: str, where: str) -> None:
    """Raise unless a state made for one of the rules fits the other."""
    if structure(now) != structure(rule):
        raise InvalidValueError(
            f"{what}{where} is {now!r}, got {rule!r}: the same classes in the same order are needed, with the fields "
            "that decide which slots exist as they are; for others call setup"
        )


def check_changes(rules: Iterable[Rule], changes: list[Change], where: str) -> None:
    """Raise for a name that no rule has, listing those there are, and for a structural one."""
    pairs = [(stage, field) for stage in rules for field in fields_of(stage)]
    for change in changes:
        found = [(stage, field) for stage, field in pairs if change.concerns(stage, field)]
        if not found:
            raise InvalidValueError(_no_such_field(change, pairs, where))
        for stage, field in found:
            if field.structural:
                raise InvalidValueError(
                    f"adjust: {field.name} of {type(stage).__name__} decides which slots exist, so it "
                    "cannot be changed; use setup with a new rule"
                )
        if change.scales and any(field.name == "scale" for _, field in pairs):
            owner = next(type(stage).__name__ for stage, field in pairs if field.name == "scale")
            raise InvalidValueError(
                f"adjust: {owner} has a field of its own called scale; write {{{owner}: {{'scale': ...}}}} to set it, "
                "and set eta by its value"
            )


def _no_such_field(change: Change, pairs: list[tuple[Rule, Field]], where: str) -> str:
    name = python_name(change.name)
    if change.of is not None:
        classes = sorted({type(stage).__name__ for stage, _ in pairs})
        own = sorted({field.name for stage, field in pairs if isinstance(stage, change.of)})
        if own:
            return f'adjust: {change.of.__name__} has no field "{name}"; fields are {", ".join(own)}'
        return f"adjust: no rule{where} is a {change.of.__name__}; rules are {', '.join(classes) or 'none'}"
    listed = ", ".join(sorted({field.name for _, field in pairs})) or "none"
    asked = "scale= multiplies eta, and " if change.scales else ""
    hint = argument_hint(name)
    return f'adjust: {asked}no rule{where} has a field "{name}"; fields are {listed}' + (f"; {hint}" if hint else "")


def adjusted_rule(rule: Rule, changes: list[Change]) -> Rule:
    """The rule with these changes in every stage they concern."""
    check_changes(reached(rule), changes, f" in {type(rule).__name__}")
    return changed_rule(rule, changes)


def changed_rule(rule: Rule, changes: list[Change]) -> Rule:
    return rule._mapped(lambda stage: _changed_stage(stage, changes))


def _changed_stage(stage: Rule, changes: list[Change]) -> Rule:
    new: dict[str, Any] = {}
    for field in fields_of(stage):
        for change in changes:
            if change.concerns(stage, field):
                new[field.name] = _scaled(stage, field, change) if change.scales else change.value
        inner = getattr(stage, field.name)
        if isinstance(inner, Rule) and field.name not in new:
            new[field.name] = changed_rule(inner, changes)
    if not new:
        return stage
    if isinstance(stage, BuiltinRule):
        values = dict(zip(stage._core_names, stage._value.values(), strict=True))
        values.update({core_name(name): value for name, value in new.items()})
        return stage._with_values(iter([_core.RuleValue(type(stage).__name__, values)]))
    import dataclasses

    return dataclasses.replace(stage, **new)  # type: ignore[type-var]


def _scaled(stage: Rule, field: Field, change: Change) -> Any:
    try:
        return getattr(stage, field.name) * float(change.value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"adjust: scale must be a number, got {change.value!r}") from None
