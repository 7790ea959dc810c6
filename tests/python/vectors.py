"""A model and its numbers, in NumPy and in torch, for what is packed into vectors."""

from typing import Any

import numpy as np
import pytest
import torch


def model_of(kind: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    w, b, v = rng.random((3, 4)), rng.random(4), rng.random((2, 2, 2))
    if kind == "torch":
        w, b, v = map(torch.from_numpy, (w, b, v))
    return {"l1": {"w": w, "b": b}, "name": "net", "rest": [v, 3, None]}


def numbers(x: Any) -> np.ndarray:
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x)


KINDS = pytest.mark.parametrize("kind", ["numpy", "torch"])
