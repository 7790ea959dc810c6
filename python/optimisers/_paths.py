"""KeyPath: where something stands in a model."""

from __future__ import annotations

from typing import Any


class KeyPath(tuple[Any, ...]):
    """The keys that lead to a place in a model, printed with dots between them.

    Example:
        >>> from optimisers import KeyPath
        >>> print(KeyPath(("layers", 0, "weight")))
        layers.0.weight
    """

    __slots__ = ()

    def __str__(self) -> str:
        return ".".join(map(str, self))

    def __repr__(self) -> str:
        return f"KeyPath({super().__repr__()})"
