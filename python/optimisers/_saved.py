"""States as pickles: the native part's plain data, a number for their format, and a checksum."""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern
from typing import Any

import numpy as np

from . import _arrays, _core
from ._chains import MixedPrecision, OptimiserChain
from ._core import InvalidTypeError, InvalidValueError
from ._markers import Marker
from ._rule import BuiltinRule, Rule

FORMAT = 5  # of what `plain_data` returns; others are refused
PARTS = 8  # that the native state is made of; behind them what setup was given
DEEPEST = 16  # how far down what a rule of one's own keeps is looked at


def plain_data(core: _core.State) -> tuple[Any, ...]:
    """A state as data: tree, leaves, rules as they are now, layout, states of user's rules, memory, clocks, steps."""
    spec, leaves, (rules, numbers), *rest = core.pickled()
    return spec, leaves, ([rule._with_values(iter(values)) for rule, values in rules], numbers), *rest


def reduced(core: _core.State) -> tuple[Any, ...]:
    """What pickle asks for."""
    data = plain_data(core)
    data = *data, lasting(core.setup_rule, data[2][0])
    return restored, (FORMAT, checksum(data), *data)


def restored(version: Any = None, given: Any = None, *data: Any) -> _core.State:
    """The state that `reduced` took apart."""
    if type(version) is not int or version != FORMAT:
        kind = repr(version) if type(version) is int else "another format"
        raise InvalidValueError(
            f"unpickling a state: it was written in format {kind}, this version of optimisers reads format {FORMAT}; "
            "load it with the version that wrote it"
        )
    found = checksum(data)
    if given != found:
        raise InvalidValueError(
            f"unpickling a state: its checksum is {found:#010x}, and was {given!r} when it was written: the data were "
            "damaged or changed on their way"
        )
    _check_rules(data)
    core = _core.unpickled_state(data[:PARTS])
    core.setup_rule = data[PARTS] if len(data) > PARTS else None
    return core


def lasting(rule: Any, now: Iterable[Rule], depth: int = 0) -> Any:
    """What setup was given, if it can be pickled wherever the state can: no functions, no classes of the model's.

    None where it cannot. Rules that leaves have `now` and keys of the model stand in it as the same objects.
    """
    if isinstance(rule, BuiltinRule):
        return next((known for known in now if type(known) is type(rule) and known == rule), rule)
    if rule is None or isinstance(rule, Rule):
        return rule
    if depth > DEEPEST or type(rule) not in (dict, list, tuple):
        return None
    if type(rule) is dict:
        if not all(key is ... or type(key) in (str, int) or isinstance(key, Marker) for key in rule):
            return None
        parts = {intern(k) if type(k) is str else k: lasting(part, now, depth + 1) for k, part in rule.items()}
        lost = any(part is None and rule[key] is not None for key, part in parts.items())
    else:
        parts = type(rule)(lasting(part, now, depth + 1) for part in rule)
        lost = any(part is None and given is not None for part, given in zip(parts, rule, strict=True))
    return None if lost else parts


def crc32(data: bytes) -> int:
    """Of Python's own checksums the one that costs the least beside the copies a pickle makes anyway."""
    from binascii import crc32  # where it is needed: most processes never pickle a state

    return crc32(data)


def part_checksum(core: _core.State, node: int) -> int:
    """Of a handle: which node of which tree."""
    return crc32(f"{node} of {core.node_count()}".encode())


def checksum(data: Any) -> int:
    """Of plain data, of rules, and of what these keep as far as it is plain or arrays."""
    return crc32(ascii(_outline(data, {}, 0)).encode())


def _check_rules(data: tuple[Any, ...]) -> None:
    for rule in data[2][0]:
        if not isinstance(rule, Rule):
            raise InvalidTypeError(f"unpickling a state: expected a rule, got {type(rule).__name__}")
    for marker, _ in data[0][4]:
        if not isinstance(marker, Marker):
            raise InvalidTypeError(f"unpickling a state: expected a marker, got {type(marker).__name__}")


_PLAIN = (int, str, float, bool, complex, type(None))


def _outline(x: Any, seen: dict[int, tuple[int, Any]], depth: int) -> Any:
    """Numbers, texts and sums of bytes that tell x from others. Of objects of other classes nothing is known here."""
    cls = type(x)
    if cls in _PLAIN:
        return x
    if cls is bytes:
        return "bytes", len(x), crc32(x)
    if depth > DEEPEST:
        return "deep"
    if id(x) in seen and not isinstance(x, BuiltinRule):  # pickles keep what is one object
        return "seen", seen[id(x)][0]
    seen[id(x)] = len(seen), x  # which keeps it, and so its id
    inside = _inside(x)
    if inside is None:
        return "other"
    if all(type(item) is str for item in inside):
        return inside
    return [_outline(item, seen, depth + 1) for item in inside]


def _inside(x: Any) -> list[Any] | None:
    """The parts of an object that its values are in; None: not known."""
    cls = type(x)
    if cls in (tuple, list):
        return list(x)
    if cls is dict:
        return [part for item in x.items() for part in item]
    if isinstance(x, BuiltinRule):
        return [cls.__name__, *x._value.values()]
    if cls is OptimiserChain:
        return ["chain", *x.rules]
    if cls is MixedPrecision:
        return [x.dtype, x.rule]
    if isinstance(x, Marker):
        return [x.name, x._token]
    if isinstance(x, Rule):
        return _fields_of(x)
    if (cls is np.ndarray or isinstance(x, np.generic)) and x.dtype.kind in "biufc":
        return [x.dtype.str, *x.shape, x.tobytes()]
    if _arrays.is_tensor(x):
        return _arrays.tensor_parts(x)
    return None


def _fields_of(rule: Rule) -> list[Any] | None:
    """Of a rule of one's own, unless its class has its own way to be pickled."""
    own_way = any(
        getattr(type(rule), name, None) is not getattr(object, name, None)
        for name in (
            "__reduce__",
            "__reduce_ex__",
            "__getstate__",
            "__setstate__",
            "__getnewargs__",
            "__getnewargs_ex__",
        )
    )
    fields = getattr(type(rule), "__dataclass_fields__", None)
    return None if own_way or fields is None else [getattr(rule, name, None) for name in fields]
