"""State trees and their leaves: handles into a native state."""

from __future__ import annotations

import copyreg
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

from . import _arrays, _core
from ._chains import MixedPrecision, OptimiserChain
from ._clock import set_clock
from ._core import InvalidValueError
from ._markers import Marker
from ._names import on_a_state
from ._paths import KeyPath, listed
from ._rule import BuiltinRule, Rule
from ._saved import part_checksum, reduced
from ._shown import Clocks, clock_tuple, count_text, leaf_rule, row_of, slots_tuple, tree_text


class State(_core.Handle):
    """What `setup` returns: a `StateTree`, or for a bare array a `Leaf`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return handle, (self._core, self._node, part_checksum(self._core, self._node))

    def marked(self, marker: Marker | str) -> Marked:
        """The leaves that `marker` marked when the state was set up; also by its name."""
        if self._core.path(self._node):
            raise InvalidValueError("marked: this is a part of a state tree; call it on the whole")
        marks = self._core.marks()
        found = [i for i, (known, _) in enumerate(marks) if known is marker or known.name == marker]
        if len(found) != 1:
            known = ", ".join(repr(mark) for mark, _ in marks) or "none"
            what = "names several markers" if found else "marked no array that has a state"
            raise InvalidValueError(f"marked: {marker!r} {what}; the markers of this state are {known}")
        return marked_handle(self._core, self._core.node_count() + found[0])

    @property
    def skipped(self) -> int:
        """How many steps `non_finite="skip"` has left out since `setup`; also of a part, those of the whole."""
        return self._core.skipped()

    @property
    def norm(self) -> float | None:
        """The norm that leaves last shared in a step (`ClipNorm(scope="global")`), before clipping; None before one.

        Of several such stages that of the first one of the first leaf that has one. Of leaves on a CUDA device it is
        fetched, which waits for the step, and may be one that was refused. Also of a part, that of the whole; a child
        of this name is reached by `state["norm"]`.
        """
        return self._core.norm()

    def __getitem__(self, key: Any) -> Any:
        raise InvalidValueError(f"{type(self).__name__} has no children")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{on_a_state(name)}")


class MissingKeyError(KeyError):
    """A KeyError that shows its message as it is."""

    __str__ = Exception.__str__


class StateTree(State):
    """The state of a model: the model's shape, with a `Leaf` where the model has a trained array.

    Children are reached by the model's own keys or attributes, `state["layers"][0].weight`; where
    a name means something else on this class, by `[]`. Children that are not trained are `None`.
    A Module's children are reached by attribute, a Sequential's also by integer. `keys()`, `values()` and `items()`
    list them. In a notebook it shows as a tree to be folded.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        child = self._core.child(self._node, key)
        if child == 0 and self._core.kind(self._node) == "named tuple" and isinstance(key, int):
            child = self._nodes()[key]
        if child == 0 and self._core.kind(self._node) == "Module" and isinstance(key, int):
            child = self._core.child(self._node, str(key + len(self) if key < 0 else key))  # of a Sequential
        if child == 0:
            by_position = self._core.kind(self._node) in ("list", "tuple", "Sequence")
            raise (IndexError if by_position else MissingKeyError)(self._has_no(key))
        return handle(self._core, child)

    def __getattr__(self, name: str) -> Any:
        child = self._core.child(self._node, name)
        if child == 0:
            raise AttributeError(self._has_no(name) + on_a_state(name))
        return handle(self._core, child)

    def _nodes(self) -> range:
        return range(*self._core.children(self._node))

    def _has_no(self, key: Any) -> str:
        place = f'at "{self._core.path_text(self._node)}"' if self._core.path(self._node) else "at its root"
        return f"the model has no {key!r} {place}; there are {listed(children_of(self._core, self._node))}"

    def __len__(self) -> int:
        return len(self._nodes())

    def __iter__(self) -> Iterator[Any]:
        if self._core.kind(self._node) in ("dict", "dataclass", "Module", "registered object", "Mapping"):
            return (self._core.key(node) for node in self._nodes())
        return (handle(self._core, node) for node in self._nodes())

    def __contains__(self, key: object) -> bool:
        if self._core.kind(self._node) in ("list", "tuple", "Sequence"):
            return any(item is key for item in self)
        return self._core.child(self._node, key) != 0

    def keys(self) -> list[Any]:
        """The model's own keys at this place, or names, or positions, those of what is not trained too."""
        if self._core.kind(self._node) in ("list", "tuple", "Sequence"):
            return list(range(len(self)))
        return [self._core.key(node) for node in self._nodes()]

    def values(self) -> list[Any]:
        """The children: state trees, leaves, and `None` for what is not trained."""
        return [handle(self._core, node) for node in self._nodes()]

    def items(self) -> list[tuple[Any, Any]]:
        """Keys and children."""
        return list(zip(self.keys(), self.values(), strict=True))

    def _ipython_key_completions_(self) -> list[Any]:
        return self.keys()

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(key for key in self.keys() if isinstance(key, str))]

    def __repr__(self) -> str:
        return tree_text(self._core, self._core.leaves(self._node))

    def _repr_html_(self) -> str:
        from ._html import tree_html

        return tree_html(self._core, self._node)


class Marked(State):
    """The leaves that carry a marker, for `adjust_`, `freeze_` and `thaw_`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _marked, (self._core, self._node, part_checksum(self._core, self._node))

    def __len__(self) -> int:
        return len(self._core.leaves(self._node))

    def __iter__(self) -> Iterator[Leaf]:
        return (handle(self._core, self._core.leaf_node(leaf)) for leaf in self._core.leaves(self._node))

    def __repr__(self) -> str:
        marker = self._core.path(self._node)[0]
        return f"Marked({marker.name!r}, {count_text(len(self))})"

    def _repr_html_(self) -> str:
        from ._html import leaves_html

        marker = self._core.path(self._node)[0]
        return leaves_html(self._core, self._core.leaves(self._node), f"Marked({marker.name!r})")


class Leaf(State):
    """The state of one trained array."""

    __slots__ = ()

    @property
    def _index(self) -> int:
        return self._core.leaf(self._node)

    @property
    def path(self) -> KeyPath:
        """Where the array stands in the model."""
        return KeyPath(*self._core.path(self._node))

    @property
    def rule(self) -> Rule:
        """The rule with its hyperparameters as they are now."""
        return leaf_rule(self._core, self._index)

    @property
    def frozen(self) -> bool:
        """Whether updates leave it alone."""
        return self._core.is_frozen(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self._core.leaf_info(self._index)[0]

    @property
    def dtype(self) -> Any:
        """The dtype of the array, as its library has it."""
        _, name, library, _ = self._core.leaf_info(self._index)
        return _arrays.dtype(name, library)

    @property
    def clock(self) -> Any:
        """The rule's scalars, named; for a chain one entry a stage. `dict(leaf.clock)` works.

        Rules that count steps have `t`. Set it by name: `leaf.clock = {"t": 100}` is the clock after 100 steps with the
        hyperparameters there are now, products of beta included, in every stage that has one; other names set these
        scalars alone, and what `leaf.clock` returned sets all.
        """
        clocks = iter(self._core.clocks(self._index))
        rule = self._core.rule_object(self._index)
        return _arranged(rule, lambda r: clock_tuple(r, next(clocks) if isinstance(r, BuiltinRule) else []), Clocks)

    @clock.setter
    def clock(self, given: Any) -> None:
        set_clock(self._core, self._index, given)

    @property
    def state(self) -> Any:
        """The rule's slots: a named tuple of writable views in the array's library, no copies.

        For a chain a tuple with one such entry a stage; for `MixedPrecision` `(master, inner)`,
        where master is `None` for a leaf that is as wide already; for a user-defined rule what its
        `init` or `apply` returned.
        """
        library = self._core.leaf_info(self._index)[2]
        stages = iter(self._core.slots(self._index))
        rule = self._core.rule_object(self._index)
        user = iter(self._core.user_states(self._index))

        def stage(r: Rule) -> Any:
            return slots_tuple(r, next(stages), library) if isinstance(r, BuiltinRule) else next(user)

        inner = _arranged(rule, stage, tuple)
        if not isinstance(rule, MixedPrecision):
            return inner
        master = self._core.master(self._index)
        return None if master is None else _arrays.shown(master, library), inner

    def __repr__(self) -> str:
        path, shape, dtype, _, rule, *frozen = row_of(self._core, self._index)
        return f'Leaf("{path}", {", ".join([shape, dtype, rule, *frozen])})'

    def _repr_html_(self) -> str:
        from ._html import leaves_html

        return leaves_html(self._core, [self._index], "Leaf")


def _arranged(rule: Rule, stage: Any, chain: Any) -> Any:
    """One value a stage, nested as the chains are."""
    if isinstance(rule, MixedPrecision):
        return _arranged(rule.rule, stage, chain)
    if isinstance(rule, OptimiserChain):
        return chain([_arranged(inner, stage, chain) for inner in rule.rules])
    return stage(rule)


# Handles that are alive, so that a tied leaf is the same object at each of its places.
_alive: WeakValueDictionary[tuple[int, int], State] = WeakValueDictionary()


def handle(core: _core.State, node: int, checksum: int | None = None) -> Any:
    """The handle at a node: a StateTree, a Leaf, or None where nothing is trained. A pickle brings a checksum."""
    if checksum is not None:
        _check_part(core, node, checksum)
    kind = core.kind(node)
    if kind == "value" and node != 0:
        return None
    if kind == "array":
        node = core.leaf_node(core.leaf(node))
    known = _alive.get((id(core), node))
    if known is None:
        known = _alive[id(core), node] = (Leaf if kind == "array" else StateTree)(core, node)
    return known


def marked_handle(core: _core.State, node: int) -> Marked:
    """The handle of a marker's leaves."""
    known = _alive.get((id(core), node))
    if known is None:
        known = _alive[id(core), node] = Marked(core, node)
    return known  # type: ignore[return-value]


def move_handles(old: _core.State, new: _core.State, leaves: list[tuple[int, int]], node_in_new: Any) -> None:
    """Let `new` take over leaves (there, in `old`) and the handles: each to the node that is found for it, if any."""
    alive = [(key, known) for key, known in list(_alive.items()) if known._core is old]
    moved = [(known, node) for _, known in alive if (node := node_in_new(known)) is not None]
    for key, _ in alive:
        del _alive[key]
    try:
        new.take_over(old, leaves, [known for known, _ in moved], [node for _, node in moved])
    except BaseException:
        _alive.update(alive)
        raise
    for known, node in moved:
        _alive.setdefault((id(new), node), known)


def children_of(core: _core.State, node: int) -> Iterator[Any]:
    """The keys of a node's children."""
    return (core.key(child) for child in range(*core.children(node)))


def check_state(state: object, call: str) -> None:
    if not isinstance(state, State):
        raise InvalidValueError(
            f"{call}: expected the state that setup returned, or a part of it, got {type(state).__name__}"
        )


def _marked(core: _core.State, node: int, checksum: int) -> Marked:
    _check_part(core, node, checksum)
    return marked_handle(core, node)


def _check_part(core: _core.State, node: int, checksum: int) -> None:
    if not isinstance(core, _core.State) or checksum != part_checksum(core, node):
        raise InvalidValueError(
            f"unpickling a state: the checksum of its node {node!r} does not hold: the data were damaged or changed"
        )


copyreg.pickle(_core.State, reduced)
