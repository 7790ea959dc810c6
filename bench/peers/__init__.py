"""The peers, each behind one face: `build(case, x, dx)` gives a step to time and the values to check it by.

A peer is made once in a process of its own. A new one is a class here and an entry in PEERS.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

# name -> (module, class, arguments, what tables call it, packages whose versions are worth recording)
PEERS: dict[str, tuple[str, str, dict[str, Any], str, tuple[str, ...]]] = {
    "bare": ("yardsticks", "Bare", {}, "memory limit", ()),
    "hand": ("yardsticks", "Hand", {}, "by hand", ()),
    "fused": ("yardsticks", "Fused", {}, "compile-time chain", ()),
    "ours": ("ours", "Ours", {}, "optimisers", ("optimisers", "numpy")),
    "ours_torch": ("ours", "Ours", {"tensors": True}, "optimisers, torch tensors", ("optimisers", "torch")),
    "torch_fused": ("torch_optim", "Torch", {"mode": "fused"}, "torch fused", ("torch",)),
    "torch_foreach": ("torch_optim", "Torch", {"mode": "foreach"}, "torch foreach", ("torch",)),
    "optax": ("optax_jit", "Optax", {}, "optax, jit", ("optax", "jax", "jaxlib")),
    "numpy": ("plain_numpy", "Numpy", {}, "NumPy", ("numpy",)),
}
LABELS = {name: entry[3] for name, entry in PEERS.items()}
YARDSTICKS = ("bare", "hand", "fused")
OWN = ("ours", "ours_torch")
ONE_THREAD = ("numpy",)  # peers that know no threads


@dataclass(frozen=True)
class Setting:
    """How a peer runs."""

    threads: int
    library: str  # the yardsticks


def make(name: str, setting: Setting) -> Any:
    """Raises ImportError where the peer is not installed."""
    module, cls, arguments, _, _ = PEERS[name]
    return getattr(importlib.import_module(f"peers.{module}"), cls)(setting, **arguments)
