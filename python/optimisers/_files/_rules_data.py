"""Rules as JSON: what a state is set up with again, and what stands in rules written in Python."""

from __future__ import annotations

from typing import Any

from .. import _rules
from .._chains import MixedPrecision, OptimiserChain
from .._core import InvalidTypeError, InvalidValueError
from .._rule import BuiltinRule, Rule
from ._plain import Packer, Unpacker, field_names


def pack_rule(rule: Rule, packer: Packer, place: str) -> dict[str, Any]:
    """A rule with its hyperparameters; the arrays in those go to the packer."""
    if isinstance(rule, MixedPrecision):
        return {"mixed": pack_rule(rule.rule, packer, place), "dtype": rule.dtype}
    if isinstance(rule, OptimiserChain):
        return {"chain": [pack_rule(part, packer, f"{place}/{i}") for i, part in enumerate(rule.rules)]}
    if isinstance(rule, BuiltinRule):
        values = {f.name: getattr(rule, f.name) for f in rule.fields}
        return {"rule": type(rule).__name__, "fields": {name: _exact(value) for name, value in values.items()}}
    return {"user": type(rule).__qualname__, "fields": _pack_fields(rule, packer, place)}


def _exact(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_exact(part) for part in value]
    if isinstance(value, float):
        return value.hex()  # "inf", "-inf" and "nan" as they are
    return value


def _pack_fields(rule: Rule, packer: Packer, place: str) -> dict[str, Any]:
    """Hyperparameters of a rule of one's own. What is no plain data is the program's, not the file's: functions."""
    fields: dict[str, Any] = {}
    for name in field_names(rule) or ():
        value = getattr(rule, name)
        where = f"{place}/{name}"
        if isinstance(value, Rule):
            fields[name] = {"$rule": pack_rule(value, packer, where)}
        elif callable(value) and not hasattr(value, "state_dict"):
            fields[name] = {"$code": type(value).__qualname__}
        else:
            fields[name] = packer.pack(value, where)
    return fields


def rule_from(data: dict[str, Any], what: str) -> Rule:
    """A rule of the library's own. Never a class that the file names: those are refused."""
    if "mixed" in data:
        return MixedPrecision(rule_from(data["mixed"], what), data["dtype"])
    if "chain" in data:
        return OptimiserChain(*[rule_from(part, what) for part in data["chain"]])
    cls = {cls.__name__: cls for cls in _rules.RULES}.get(data.get("rule", ""))
    if cls is None:
        name = data.get("user") or data.get("rule")
        raise InvalidTypeError(
            f"{what}the file has the rule {name}, which is not of this library, and no code is loaded from files; set "
            "up a state with it, and load into that"
        )
    try:
        return cls(**{name: _number(value) for name, value in data["fields"].items()})
    except TypeError as error:
        raise InvalidValueError(f"{what}{error}") from error


def _number(value: Any) -> Any:
    """What `_exact` made of a value: numbers are written with 0x, or are not finite; other texts are words."""
    if isinstance(value, list):
        return tuple(_number(part) for part in value)
    if isinstance(value, str) and (value in ("inf", "-inf", "nan") or value.lstrip("-").startswith("0x")):
        return float.fromhex(value)
    return value


def user_rule_from(rule: Rule, data: dict[str, Any], unpacker: Unpacker, path: str) -> Rule:
    """A rule as it is here with the hyperparameters that its stages written in Python had. Builtin ones stay."""
    if isinstance(rule, MixedPrecision):
        return MixedPrecision(
            user_rule_from(rule.rule, _part(data, "mixed", rule, unpacker, path), unpacker, path), rule.dtype
        )
    if isinstance(rule, OptimiserChain):
        parts = _part(data, "chain", rule, unpacker, path)
        if len(parts) != len(rule.rules):
            _refuse(data, rule, unpacker, path)
        return OptimiserChain(*[user_rule_from(r, d, unpacker, path) for r, d in zip(rule.rules, parts, strict=True)])
    if isinstance(rule, BuiltinRule):
        return rule
    if _part(data, "user", rule, unpacker, path) != type(rule).__qualname__:
        _refuse(data, rule, unpacker, path)
    return _with_fields(rule, data["fields"], unpacker, path)


def _with_fields(rule: Rule, fields: dict[str, Any], unpacker: Unpacker, path: str) -> Rule:
    here = field_names(rule)
    if here is None:
        return rule
    if here != list(fields):
        raise InvalidValueError(
            f'{unpacker.what}{type(rule).__name__} at "{path}" has the hyperparameters {", ".join(fields) or "none"} '
            f"in the file, {', '.join(here) or 'none'} here"
        )
    values = {}
    for name, value in fields.items():
        now = getattr(rule, name)
        if isinstance(value, dict) and "$code" in value:
            continue
        if isinstance(value, dict) and "$rule" in value:
            values[name] = _inner_rule(now, value["$rule"], unpacker, path)
        else:
            values[name] = unpacker.unpack(value, now)
    from dataclasses import fields as fields_of
    from dataclasses import replace

    init = {field.name for field in fields_of(rule) if field.init}  # type: ignore[arg-type]
    return replace(rule, **{name: value for name, value in values.items() if name in init})  # type: ignore[type-var]


def _inner_rule(now: Any, data: dict[str, Any], unpacker: Unpacker, path: str) -> Rule:
    if isinstance(now, BuiltinRule):
        rule = rule_from(data, unpacker.what)
        if type(rule) is not type(now):
            _refuse(data, now, unpacker, path)
        return rule
    return user_rule_from(now, data, unpacker, path)


def user_names(data: dict[str, Any]) -> list[str]:
    """Of the stages written in Python, in order."""
    if "mixed" in data:
        return user_names(data["mixed"])
    if "chain" in data:
        return [name for part in data["chain"] for name in user_names(part)]
    return [data["user"]] if "user" in data else []


def _part(data: dict[str, Any], key: str, rule: Rule, unpacker: Unpacker, path: str) -> Any:
    if key not in data:
        _refuse(data, rule, unpacker, path)
    return data[key]


def _refuse(data: dict[str, Any], rule: Rule, unpacker: Unpacker, path: str) -> None:
    raise InvalidValueError(f'{unpacker.what}"{path}" has the rule {text_of(data)} in the file, {rule!r} here')


def text_of(data: dict[str, Any]) -> str:
    """A rule as it prints."""
    if "mixed" in data:
        return f"MixedPrecision({text_of(data['mixed'])}, dtype={data['dtype']!r})"
    if "chain" in data:
        return f"OptimiserChain({', '.join(map(text_of, data['chain']))})"
    if "rule" in data:
        return f"{data['rule']}({', '.join(f'{k}={_number(v)!r}' for k, v in data['fields'].items())})"
    return f"{data['user']}({', '.join(f'{k}={v!r}' for k, v in data['fields'].items())})"
