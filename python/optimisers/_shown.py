"""How states show themselves: a line a leaf, and named tuples of slots and of scalars."""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache
from typing import Any

from . import _arrays, _core
from ._rule import Rule

SHOWN_LEAVES = 20  # longer trees are abridged


def leaf_rule(core: _core.State, leaf: int) -> Rule:
    rule: Rule = core.rule_object(leaf)
    return rule._with_values(iter(core.rule_values(leaf)))


class Legend:
    """What rules are called in a text about many leaves: short ones by themselves, long ones by a number."""

    LONG = 64  # characters

    def __init__(self, always: bool = False) -> None:
        self.always = always  # by a number, whatever its length
        self.numbers: dict[str, int] = {}
        self.rules: list[Rule] = []

    def name(self, rule: Rule) -> str:
        text = repr(rule)
        if len(text) <= self.LONG and not self.always:
            return text
        if text not in self.numbers:
            self.rules.append(rule)
            self.numbers[text] = len(self.rules)
        return f"rule {self.numbers[text]}"

    def lines(self) -> list[str]:
        """A line for each long rule; of a chain, one for each of its rules."""
        return [line for i, rule in enumerate(self.rules) for line in _rule_lines(f"rule {i + 1} = ", rule, "")]


def _rule_lines(begin: str, rule: Rule, end: str) -> list[str]:
    """Written as Python, in lines that are short where that can be."""
    inner = getattr(rule, "rules", None) if len(repr(rule)) > Legend.LONG else None
    if not inner or not isinstance(inner, tuple):
        return [f"{begin}{rule!r}{end}"]
    parts = [line for part in inner for line in _rule_lines("  ", part, ",")]
    indent = " " * (len(begin) - len(begin.lstrip()))
    return [f"{begin}{type(rule).__name__}(", *(indent + part for part in parts), f"{indent}){end}"]


def tree_text(core: _core.State, leaves: list[int]) -> str:
    """A line a leaf; long trees abridged, and long rules written once, behind the leaves."""
    lines = [f"StateTree with {count_text(len(leaves))}, {size_text(core, leaves)} of state"]
    shown = leaves if len(leaves) <= SHOWN_LEAVES else leaves[: SHOWN_LEAVES - 5]
    last = [] if len(shown) == len(leaves) else leaves[-5:]
    legend = Legend()
    rows = [row_of(core, leaf, legend) for leaf in (*shown, *last)]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    text = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), *row[4:]]) for row in rows]
    if last:
        text.insert(len(shown), f"... {len(leaves) - len(shown) - len(last)} more ...")
    return "\n  ".join(lines + text + legend.lines())


def count_text(leaves: int) -> str:
    return f"{leaves} {'leaf' if leaves == 1 else 'leaves'}"


def size_text(core: _core.State, leaves: list[int]) -> str:
    return _bytes(sum(map(core.state_size, leaves)))


def _bytes(n: int) -> str:
    size, unit = float(n), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"


def row_of(core: _core.State, leaf: int, legend: Legend | None = None) -> list[str]:
    """Path, shape, dtype, size and rule, and whether it is frozen."""
    shape, dtype, _, device = core.leaf_info(leaf)
    if device >= 0:
        dtype += f" cuda:{device}"
    rule = leaf_rule(core, leaf)
    named = repr(rule) if legend is None else legend.name(rule)
    row = [core.path_text(core.leaf_node(leaf)), str(shape), dtype, _bytes(core.state_size(leaf)), named]
    return [*row, "frozen"] if core.is_frozen(leaf) else row


@lru_cache
def _slots_class(name: str, slots: tuple[str, ...]) -> Any:
    return namedtuple(f"{name}Slots", slots, rename=True)


def slots_tuple(rule: Rule, slots: list[tuple[str, Any]], library: str) -> Any:
    cls = _slots_class(type(rule).__name__, tuple(name for name, _ in slots))
    return cls(*[_arrays.shown(array, library) for _, array in slots])


class _Named:
    """What makes `dict()` of a named tuple of scalars work."""

    __slots__ = ()

    def keys(self) -> tuple[str, ...]:
        return self._fields  # type: ignore[attr-defined, no-any-return]

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else super().__getitem__(key)  # type: ignore[misc]


@lru_cache
def _clock_class(name: str, scalars: tuple[str, ...]) -> Any:
    return type(f"{name}Clock", (_Named, namedtuple(f"{name}Clock", scalars)), {"__slots__": ()})


def clock_tuple(rule: Rule, scalars: list[tuple[str, float]]) -> Any:
    cls = _clock_class(type(rule).__name__, tuple(name for name, _ in scalars))
    return cls(*[value for _, value in scalars])


class Clocks(tuple[Any, ...]):
    """The clocks of a chain's stages."""

    __slots__ = ()

    def keys(self) -> range:
        return range(len(self))
