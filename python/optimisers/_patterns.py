"""Rules by part: finding, for each leaf, the entry of a tree or dict of rules that covers it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from types import EllipsisType
from typing import Any, NamedTuple

from . import _core
from ._core import InvalidTypeError, InvalidValueError
from ._markers import Marker
from ._names import foreign_rule
from ._paths import KeyPath, key_text
from ._rule import Rule, check_rule

SHOWN_PATHS = 12


class Part(NamedTuple):
    """A leaf that still looks for its rule."""

    leaf: int
    keys: tuple[Any, ...]  # what is left of its path

    @property
    def text(self) -> str:
        return ".".join(map(key_text, self.keys))


def choose(
    tree: Any,
    paths: list[KeyPath],
    marked: dict[Marker, set[int]],
    only: Collection[int] | None = None,
    again: bool = False,
) -> list[Rule | None]:
    """The rule of each leaf from a tree of rules, a dict from patterns or markers, or any mixture.

    Of `only` some leaves where that is given. Again: an entry may catch nothing any more.
    """
    rules: list[Any] = [_UNSET] * len(paths)
    wanted = range(len(paths)) if only is None else sorted(only)
    open_: list[Any] = [(tree, [Part(i, tuple(paths[i])) for i in wanted], KeyPath())]
    entered: set[int] = set()  # the dicts and lists on the way to the entry at hand
    while open_:
        node, parts, at = open_.pop()
        if node is _LEAVE:
            entered.discard(parts)
        elif node is None or isinstance(node, Rule):
            for part in parts:
                rules[part.leaf] = node
        elif id(node) in entered:
            raise InvalidValueError(f'setup: the tree of rules contains itself at "{at or "its root"}"')
        else:
            entered.add(id(node))
            open_.append((_LEAVE, id(node), at))
            entries = _dict_entries if isinstance(node, Mapping) else _tree_entries
            found = entries(node, parts, at, paths, marked, again)
            open_.extend((child, rest, KeyPath(*at, key)) for key, child, rest in found)
    missing = [paths[i] for i in wanted if rules[i] is _UNSET]
    if missing:
        raise InvalidValueError(
            f'setup: no rule for "{missing[0] or "the model"}"; the tree of rules has nothing for {listed(missing)}; '
            "give these a rule, or None to leave them alone, or add a default under the key ..."
        )
    return rules


_UNSET: Any = object()
_LEAVE: Any = object()
_Entries = Iterator[tuple[Any, Any, list[Part]]]


def listed(paths: list[KeyPath]) -> str:
    text = ", ".join(str(path) or "the model" for path in islice(paths, SHOWN_PATHS))
    return text + (f" and {len(paths) - SHOWN_PATHS} more" if len(paths) > SHOWN_PATHS else "")


def _tree_entries(
    node: Any, parts: list[Part], at: KeyPath, paths: list[KeyPath], marked: dict[Marker, set[int]], again: bool
) -> _Entries:
    """A list, tuple or object of rules: entry by entry as the model has children."""
    children = _core.children(node)
    meant_as_chain = isinstance(node, list | tuple) and node and all(isinstance(child, Rule) for child in node)
    by_index = all(part.keys and isinstance(part.keys[0], int) for part in parts)
    if children is None or foreign_rule(node) or (meant_as_chain and not by_index and not hasattr(node, "_fields")):
        check_rule(node, f'setup: entry "{at}" of the tree of rules' if at else "setup")
    by_key = {key: child for key, child, _ in children or ()}
    for key, rest in _grouped(parts).items():
        if key is _END:
            raise InvalidTypeError(
                f'setup: expected a rule at "{at or "the root"}" of the tree of rules, where the model has an array, '
                f"got {type(node).__name__}"
            )
        if key in by_key:
            yield key, by_key[key], [Part(part.leaf, part.keys[1:]) for part in rest]


_END: Any = object()


def _grouped(parts: list[Part]) -> dict[Any, list[Part]]:
    """By the first key that is left."""
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.keys[0] if part.keys else _END, []).append(part)
    return groups


def _dict_entries(
    node: Mapping[Any, Any],
    parts: list[Part],
    at: KeyPath,
    paths: list[KeyPath],
    marked: dict[Marker, set[int]],
    again: bool,
) -> _Entries:
    """A dict: keys of the model, patterns and markers, in order, then the default."""
    groups = _grouped(parts)
    taken: set[int] = set()
    for key, child in node.items():
        if key is ...:
            continue
        caught = _caught(key, parts, groups, marked)
        left = [part for part in caught if part.leaf not in taken]
        if not left and again:
            continue
        if not left:
            raise InvalidValueError(_catches_nothing(key, at, caught, [paths[part.leaf] for part in parts]))
        taken.update(part.leaf for part in left)
        yield key, child, left
    rest = [part for part in parts if part.leaf not in taken]
    if ... in node and rest:
        yield "...", node[...], rest


def _catches_nothing(key: Any, at: KeyPath, caught: list[Part], paths: list[KeyPath]) -> str:
    what = f"marker {key!r}" if isinstance(key, Marker) else f"{key!r}"
    where = f' under "{at}"' if at else ""
    if caught:
        return f"setup: {what}{where} catches nothing that an entry before it did not catch; put it first, or remove it"
    if isinstance(key, Marker):
        return f"setup: {what}{where} catches nothing: none of the arrays {listed(paths)} is marked by it"
    return f"setup: {what}{where} catches nothing; the paths are {listed(paths)}"


def _caught(key: Any, parts: list[Part], groups: dict[Any, list[Part]], marked: dict[Marker, set[int]]) -> list[Part]:
    if isinstance(key, Marker):
        return [part for part in parts if part.leaf in marked[key]]
    own = [Part(part.leaf, part.keys[1:]) for part in groups.get(key, ())]
    if not isinstance(key, str):
        if isinstance(key, (EllipsisType, Rule, type(None))):
            raise InvalidTypeError(f"setup: {key!r} cannot be a key of a dict of rules")
        return own
    matched = list(_matches(key, parts, groups))
    if own and len(own) != len(matched):
        more = next(part for part in parts if part.leaf in {p.leaf for p in matched} - {p.leaf for p in own})
        raise InvalidValueError(
            f"setup: {key!r} is a key of the model's own, and as a pattern catches other leaves as well "
            f'(such as "{more.text}"); choose these rules with a function (path, leaf) -> rule'
        )
    return own or matched


def _matches(pattern: str, parts: list[Part], groups: dict[Any, list[Part]]) -> Iterator[Part]:
    """The parts whose remaining path begins with the pattern, without that beginning."""
    if not pattern or "" in pattern.split("."):
        raise InvalidValueError(f"setup: the pattern {pattern!r} has an empty component")
    if "*" not in pattern and "." not in pattern:  # only the first key counts
        begins = pattern + "."
        for key, group in groups.items():
            if key is not _END and (key_text(key) == pattern or key_text(key).startswith(begins)):
                yield from (Part(p.leaf, _after(p.keys, 1)) for p in group)
        return
    find = _compiled(pattern).match
    for part in parts:
        if found := find(part.text):
            end = found.end()
            components = part.text.count(".", 0, end) + 1 if end else 0
            yield Part(part.leaf, _after(part.keys, components))


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    components = pattern.split(".")
    text = ""
    for i, component in enumerate(components):
        last = i == len(components) - 1
        if component == "**":
            text += "" if last else r"(?:[^.]*\.)*?"
        else:
            text += (r"[^.]+" if component == "*" else re.escape(component)) + ("" if last else r"\.")
    if components[-1] == "**" and len(components) > 1:  # the dot before it goes with what it stands for
        text = text.removesuffix(r"\.")
    return re.compile(text + ("" if components == ["**"] else r"(?=\.|$)"))


def _after(keys: tuple[Any, ...], components: int) -> tuple[Any, ...]:
    """What is left of a path behind that many of its dotted components; a key may have dots of its own."""
    for i, key in enumerate(keys):
        if components == 0:
            return keys[i:]
        own = key_text(key).split(".")
        if len(own) > components:
            return (".".join(own[components:]), *keys[i + 1 :])
        components -= len(own)
    return ()
