"""The rule classes, made from the descriptions in the C++ registry; `_rules.pyi` is their stub."""

from __future__ import annotations

from typing import Any, Literal

from . import _core
from ._fields import python_name
from ._rule import BuiltinRule, Field, Slot, quoted, type_of


def _field_line(field: Field) -> str:
    default = "required" if field.default is None else f"default {field.default!r}"
    bounds = f" in {field.bounds}" if field.bounds.startswith(("[", "(")) else ""
    bounds = bounds or (f", {field.bounds}" if field.bounds else "")
    *others, last = map(quoted, field.words or ("",))
    kind = (f"{', '.join(others)} or {last}") if field.words else type_of(field)
    return f"    {field.name}: {field.doc}; {kind}{bounds}, {default}."


def _docstring(d: dict[str, Any], fields: tuple[Field, ...]) -> str:
    name, required = d["name"], [f for f in fields if f.default is None]
    call = f"opt.{name}({', '.join(f'{f.name}=2' for f in required)})"
    slots = ", ".join(f"`{s}`" + (" (real for complex leaves)" if real else "") for s, real in d["slots"])
    refuses = f"\n    ValueError at setup, complex leaves: {d['refuses_complex']}." if d["refuses_complex"] else ""
    sums = (
        f"\n    ValueError at setup, leaves on a device: its sums ({', '.join(d['sums'])}) are made on the host only."
        "\n    FloatingPointError: a sum is not finite; nothing is written."
        if d["sums"]
        else ""
    )
    update = "\n".join("    " + line for line in d["update"].split("\n"))
    return f"""{d["summary"]}

{update}

Args:
{chr(10).join(map(_field_line, fields))}

State:
    {slots or "none"}{"; same shape as the leaf, float32 for 16-bit leaves" if slots else ""}.

Raises:
    ValueError: a hyperparameter is out of range; at setup, it is more than the type holds a leaf is computed in.
    TypeError: a hyperparameter is of the wrong kind.{refuses}{sums}

Notes:
    {d["notes"]}{_vanishing(fields)}

Reference:
    {d["reference"]}

Example:
    >>> import numpy as np, optimisers as opt
    >>> x = np.array({"[[1.0, -2.0]]" if d["matrix"] else "[1.0, -2.0]"})
    >>> state = opt.setup({call}, x)
    >>> state, x = opt.update_(state, x, np.array({"[[0.5, 0.25]]" if d["matrix"] else "[0.5, 0.25]"}))
    >>> state.state._fields
    {_fields_text(d, fields)}
"""


def _vanishing(fields: tuple[Field, ...]) -> str:
    least = "\n    An epsilon too small for the type a leaf is computed in counts as one that keeps 0/0 at 0."
    return least if any(f.name == "epsilon" for f in fields) else ""


def _fields_text(d: dict[str, Any], fields: tuple[Field, ...]) -> str:
    values = {f.name: 2 if f.default is None else f.default for f in fields}
    names = {f.name: name for f, name in zip(fields, (f[0] for f in d["fields"]), strict=True)}
    count = _core.RuleValue(d["name"], {names[k]: v for k, v in values.items()}).slot_count
    return repr(tuple(name for name, _ in d["slots"][:count]))


def _init_source(d: dict[str, Any], fields: tuple[Field, ...]) -> str:
    """Source of `__init__`, so that its signature is a plain one that needs no help to be shown."""
    arguments = [f"{f.name}: {type_of(f)}" + ("" if f.default is None else f" = {f.default!r}") for f in fields]
    body = f"    self._set({''.join(f.name + ', ' for f in fields)})\n"
    if any(f.name == "centred" for f in fields):
        arguments += ["*", "centered: bool | None = None"]
        body = "    centred = centred if centered is None else centered\n" + body
    return f"def {d['name']}(self, {', '.join(arguments)}) -> None:\n{body}"


def _describe_fields(d: dict[str, Any]) -> tuple[Field, ...]:
    return tuple(Field(python_name(n), *rest) for n, *rest in d["fields"])


def _make_classes() -> tuple[type[BuiltinRule], ...]:
    descriptions = _core.rule_descriptions()
    fields = [_describe_fields(d) for d in descriptions]
    functions: dict[str, Any] = {"Literal": Literal}
    source = "\n".join(map(_init_source, descriptions, fields))
    exec(compile(source, "<rules>", "exec", dont_inherit=True), functions)  # annotations as types, not as text
    return tuple(_make_class(d, f, functions[d["name"]]) for d, f in zip(descriptions, fields, strict=True))


def _make_class(d: dict[str, Any], fields: tuple[Field, ...], init: Any) -> type[BuiltinRule]:
    init.__name__, init.__qualname__, init.__module__ = "__init__", f"{d['name']}.__init__", "optimisers"
    body = {
        "__slots__": tuple(f.name for f in fields),
        "__init__": init,
        "__doc__": _docstring(d, fields),
        "__module__": "optimisers",
        "__match_args__": tuple(f.name for f in fields),
        "_core_names": tuple(f[0] for f in d["fields"]),
        "_sums": d["sums"],
        "_matrix": d["matrix"],
        "fields": fields,
        "slots": tuple(Slot(*slot) for slot in d["slots"]),
        **{key: d[key] for key in ("summary", "update", "notes", "reference")},
    }
    return type(d["name"], (BuiltinRule,), body)


RULES = _make_classes()
globals().update({cls.__name__: cls for cls in RULES})
__all__ = ["RULES", *(cls.__name__ for cls in RULES)]
