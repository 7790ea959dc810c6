"""The semantics of trees in plain Python: where the leaves are, which are tied, what a gradient tree says about each.

`Twin` takes the same steps as a tree does, on a list of contiguous copies of its leaves: no containers, no ties, no
strides. The library must give both the same bits.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import optimisers as opt

Path = tuple[Any, ...]


def children(node: Any) -> list[tuple[Any, Any]] | None:
    """Keys and children of a container in order, those marked as untrained left out; None for anything else."""
    if dataclasses.is_dataclass(node):
        fields = [f for f in dataclasses.fields(node) if f.metadata.get("trainable", True)]
        return [(f.name, getattr(node, f.name)) for f in fields]
    if hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, (list, tuple)) else None


def is_leaf(node: Any) -> bool:
    return isinstance(node, np.ndarray) and (node.dtype.kind in "fc" or node.dtype.name == "bfloat16")


def places(node: Any, path: Path = ()) -> Iterator[tuple[Path, np.ndarray]]:
    """Every place where a trained array stands, in walk order."""
    if is_leaf(node):
        yield path, node
    for key, child in children(node) or ():
        yield from places(child, (*path, key))


def values(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything that is not trained and not marked so, in walk order: no gradient may be given for it."""
    inside = children(node)
    if inside is None and not is_leaf(node):
        yield path, node
    for key, child in inside or ():
        yield from values(child, (*path, key))


def axes_between(leaf: np.ndarray, other: np.ndarray) -> tuple[int, ...] | None:
    """Axes such that leaf.transpose(axes) is other, element by element; None where it is not."""
    if leaf.size == 0 or (leaf.dtype, leaf.ndim, leaf.ctypes.data) != (other.dtype, other.ndim, other.ctypes.data):
        return None

    def steps(x: np.ndarray) -> list[tuple[int, int]]:
        return [(n, step if n > 1 else 0) for n, step in zip(x.shape, x.strides, strict=True)]

    for axes in itertools.permutations(range(leaf.ndim)):
        if steps(leaf.transpose(axes)) == steps(other):
            return axes
    return None


@dataclasses.dataclass
class Spot:
    """A trained array: where it stands first, and each place with the axes it has there."""

    array: np.ndarray
    at: list[tuple[Path, tuple[int, ...]]]

    def below(self, part: Path) -> bool:
        return any(path[: len(part)] == part for path, _ in self.at)


def leaves(model: Any) -> list[Spot]:
    """The trained arrays in walk order, each tied one once."""
    found: list[Spot] = []
    for path, x in places(model):
        for spot in found:
            axes = axes_between(spot.array, x)
            if axes is not None:
                spot.at.append((path, axes))
                break
        else:
            found.append(Spot(x, [(path, tuple(range(x.ndim)))]))
    return found


def entry(tree: Any, path: Path) -> Any:
    """What a gradient tree has at a path of the model: None where a key or a whole branch is missing."""
    for key in path:
        if tree is None:
            return None
        named = dict(children(tree) or ())
        tree = named.get(key)
    return tree


def gradients(model: Any, tree: Any) -> list[np.ndarray | None]:
    """The gradient of each leaf, those of its places summed, with the leaf's axes."""
    result: list[np.ndarray | None] = []
    for spot in leaves(model):
        parts = [(entry(tree, path), axes) for path, axes in spot.at]
        given = [g.transpose(np.argsort(axes)) for g, axes in parts if g is not None]
        total = sum(given[1:], given[0]) if given else None
        result.append(None if total is None else np.array(total, order="C"))
    return result


class Twin:
    """A list of contiguous copies of a model's leaves with a state of its own."""

    def __init__(self, rules: list[opt.Rule], model: Any) -> None:
        self.xs = [np.array(spot.array, order="C") for spot in leaves(model)]
        self.state = opt.setup(rules, self.xs)

    def update(self, grads: list[np.ndarray | None]) -> None:
        opt.update_(self.state, self.xs, grads)

    def parts(self, model: Any, part: Path) -> list[int]:
        return [i for i, spot in enumerate(leaves(model)) if spot.below(part)]

    def adjust(self, model: Any, part: Path, **fields: Any) -> None:
        for i in self.parts(model, part):
            known = names(self.state[i].rule)
            own = {name: value for name, value in fields.items() if name in known}
            if own:
                opt.adjust_(self.state[i], **own)

    def freeze(self, model: Any, part: Path, frozen: bool) -> None:
        for i in self.parts(model, part):
            (opt.freeze_ if frozen else opt.thaw_)(self.state[i])


def names(rule: Any) -> set[str]:
    """The hyperparameters that stages of a rule have."""
    if isinstance(rule, opt.MixedPrecision):
        return names(rule.rule)
    if isinstance(rule, opt.OptimiserChain):
        return set().union(*map(names, rule.rules))
    return {field.name for field in rule.fields}
