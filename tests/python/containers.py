"""Containers of every kind that is recognised by what it follows, or where it is registered."""

import copy
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import equinox as eqx
import jax
import numpy as np
import pydantic


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@attrs.define
class Attrs:
    w: Any
    b: Any


@attrs.frozen
class FrozenAttrs:
    w: Any
    b: Any


@attrs.define(slots=False, eq=False)
class AttrsWithDict:
    w: Any
    b: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    w: Any
    b: Any


class FrozenModel(Model):
    model_config = pydantic.ConfigDict(frozen=True, validate_assignment=True)


class OpenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


@pydantic.dataclasses.dataclass(config={"arbitrary_types_allowed": True})
class Validated:
    w: Any
    b: Any


class Frozen(Mapping):
    """Keeps its items where only its own methods reach them, and cannot be changed."""

    def __init__(self, items: Any) -> None:
        self._items = dict(items)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return 1


class Sealed(Frozen):
    """Deep copies are new arrays: only the constructor helps."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sealed":
        return Sealed({key: copy.deepcopy(value) for key, value in self._items.items()})


class Store(Frozen, MutableMapping):
    def __setitem__(self, key: Any, value: Any) -> None:
        self._items[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._items[key]


class Row(Sequence):
    def __init__(self, items: Any) -> None:
        self._items = tuple(items)

    def __getitem__(self, i: Any) -> Any:
        return self._items[i]

    def __len__(self) -> int:
        return len(self._items)


class Module(eqx.Module):
    w: Any
    b: Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, w: Any, b: Any, note: str = "") -> None:
        self.w, self.b, self.note = w, b, note

    def tree_flatten(self) -> Any:
        return (self.w, self.b), self.note

    @classmethod
    def tree_unflatten(cls, note: str, children: Any) -> "Node":
        return cls(*children, note)


@jax.tree_util.register_pytree_with_keys_class
class Keyed:
    def __init__(self, w: Any, b: Any) -> None:
        self.w, self.b = w, b

    def tree_flatten_with_keys(self) -> Any:
        keys = jax.tree_util.GetAttrKey("w"), jax.tree_util.GetAttrKey("b")
        return tuple(zip(keys, (self.w, self.b), strict=True)), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "Keyed":
        return cls(*children)


class State(Frozen):
    """As flax.nnx.State: a Mapping whose inner ones are made when they are asked for, and a pytree."""

    def __getitem__(self, key: Any) -> Any:
        value = self._items[key]
        return State(value) if isinstance(value, dict) else value


jax.tree_util.register_pytree_with_keys(
    State,
    lambda x: (tuple((jax.tree_util.DictKey(k), x[k]) for k in x), tuple(x)),
    lambda keys, children: State(zip(keys, children, strict=True)),
)

NAMED = {
    "dict": lambda w, b: {"w": w, "b": b},
    "UserDict": lambda w, b: UserDict(w=w, b=b),
    "MappingProxyType": lambda w, b: MappingProxyType({"w": w, "b": b}),
    "ChainMap": lambda w, b: ChainMap({"w": w}, {"b": b}),
    "Mapping": lambda w, b: Frozen({"w": w, "b": b}),
    "Mapping with a deepcopy of its own": lambda w, b: Sealed({"w": w, "b": b}),
    "MutableMapping": lambda w, b: Store({"w": w, "b": b}),
    "attrs": Attrs,
    "frozen attrs": FrozenAttrs,
    "attrs without slots": AttrsWithDict,
    "pydantic": lambda w, b: Model(w=w, b=b),
    "frozen pydantic": lambda w, b: FrozenModel(w=w, b=b),
    "pydantic extra": lambda w, b: OpenModel(w=w, b=b),
    "pydantic dataclass": Validated,
    "equinox": Module,
    "pytree with keys": Keyed,
    "State": lambda w, b: State({"w": w, "b": b}),
}
PLACED = {
    "list": lambda w, b: [w, b],
    "deque": lambda w, b: deque([w, b], maxlen=5),
    "UserList": lambda w, b: UserList([w, b]),
    "Sequence": lambda w, b: Row([w, b]),
}
OTHERS = {"pytree without keys": Node}
EVERY = {**NAMED, **PLACED, **OTHERS}


def at(node: Any, key: str) -> Any:
    """What a container has in the place of w or b."""
    if isinstance(node, (list, deque, Sequence)):
        return node["wb".index(key)]
    return node[key] if isinstance(node, Mapping) else getattr(node, key)
