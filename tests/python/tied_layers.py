"""A Module with one weight at two places, tied in each of the ways torch has for it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

TIES = {
    "data": lambda e, h: setattr(h.weight, "data", e.weight.data),
    "Parameter of a Parameter": lambda e, h: setattr(h, "weight", nn.Parameter(e.weight)),
    "transposed": lambda e, h: setattr(h, "weight", nn.Parameter(e.weight.t())),
    "the same Parameter": lambda e, h: setattr(h, "weight", e.weight),
}


def two_layers(tie: str) -> Any:
    torch.manual_seed(0)
    e, h = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    TIES[tie](e, h)
    return nn.ModuleDict({"e": e, "h": h, "rest": nn.Linear(4, 4)})


def backward(m: Any) -> None:
    m["rest"](m["h"](torch.tanh(m["e"](torch.arange(8.0).reshape(2, 4))))).pow(2).sum().backward()
