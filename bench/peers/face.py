"""What peers have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LERP_WEIGHT = 0.005


class NotOfferedError(Exception):
    """The peer has no such rule, call or data type."""


@dataclass(frozen=True)
class Step:
    """One step, and what the parameters (or the result of the last call) are now."""

    run: Callable[[], Any]
    values: Callable[[], list[np.ndarray]]
    exact: bool = True  # the formula is the reference's; False: a variant of the same cost
    note: str = ""


def nested(arrays: list[Any]) -> Any:
    """One array as it is; more as a user would hold them: dicts of eight arrays in a dict."""
    if len(arrays) == 1:
        return arrays[0]
    blocks = range(0, len(arrays), 8)
    return {f"block{i // 8}": {f"w{k}": a for k, a in enumerate(arrays[i : i + 8])} for i in blocks}
