"""For tests that need a CUDA device: why there is none, and comparing with the host."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from support import arrays, bits, mapped, to_numpy

import optimisers as opt


def _why_not() -> str:
    """Why nothing can run on a GPU here; empty: it can."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    if "emulation" in os.environ.get("OPTIMISERS_CUDA_LIBRARY", ""):
        return "OPTIMISERS_CUDA_LIBRARY names the emulation; `make gpu-test` runs these tests without it"
    return opt.doctor().cuda_reason


WHY_NOT = _why_not()
needs_gpu = pytest.mark.skipif(WHY_NOT != "", reason=f"needs a GPU: {WHY_NOT}")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


def cuda(tree: Any, device: int = 0) -> Any:
    """The tree with copies of its tensors on a GPU."""
    return mapped(lambda a: a.detach().to(f"cuda:{device}", copy=True), tree)


def cpu(tree: Any) -> Any:
    """The tree with its tensors on the host; waits for them."""
    return mapped(lambda a: a.detach().cpu() if isinstance(a, torch.Tensor) else a, tree)


def same_bits(one: Any, other: Any) -> bool:
    return bits(cpu(one)) == bits(cpu(other))


def close(one: Any, other: Any, tolerance: float) -> bool:
    pairs = zip(arrays(cpu(one)), arrays(cpu(other)), strict=True)
    return all(np.allclose(to_numpy(a), to_numpy(b), rtol=tolerance, atol=tolerance) for a, b in pairs)


def busy(milliseconds: float = 200.0) -> None:
    """Keep torch's current stream busy for about this long."""
    torch.cuda._sleep(int(milliseconds * 1e6 * 1.5))  # in clock cycles, of at most 2 GHz
