"""Arrays and a class with a field that is not trained, for the tests of what is trained and by which rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


@dataclass
class Layer:
    w: Any
    b: Any
    scale: Any = field(default=None, metadata={"trainable": False})
