"""Before anything is timed on a device: every rule there gives the bits it gives on the host.

python bench/gpu/bits.py              on the GPU; ends with 1 where something differs
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from check import random_arrays
from specs import Spec, build, names, rule_names, sums

import optimisers as opt
from gpu.peers import tensors
from gpu.plan import CLIPPED, DECAYED

LARGEST = 100_003
STEPS = 3
DTYPES = {"float32": torch.int32, "float64": torch.int64, "bfloat16": torch.int16, "float16": torch.int16}


def specs() -> list[Spec]:
    """Every rule, and chains of every kind: with a template and without, measuring, collecting, with a master copy."""
    chains: list[Spec] = [
        CLIPPED, DECAYED, [("ClipNorm", {"omega": 0.5}), ("AdamW", {})],
        [("ClipGrad", {"delta": 0.4}), ("SignDecay", {}), ("NAdam", {}), ("Descent", {"eta": 0.5})],
        [("Momentum", {}), ("ClipNorm", {"omega": 0.01, "scope": "global"}), ("WeightDecay", {})],
        [("AccumGrad", {"n": 2}), ("Adam", {})],
        ("MixedPrecision", {"rule": ("Adam", {})}),
    ]  # fmt: skip
    return [*((name, {}) for name in rule_names() if not sums(name)), *chains]


def after(spec: Spec, dtype: str, device: str, largest: int) -> list[torch.Tensor]:
    """The parameters after some steps, on the host."""
    shapes = ((largest,), (7, 65, 3), (1,), ())
    x = tensors(random_arrays(shapes, 0.005, 1.0, 1), dtype, device)
    state = opt.setup(build(spec), x)
    for step in range(STEPS):
        opt.update_(state, x, tensors(random_arrays(shapes, 1e-3, 1.0, 2 + step), dtype, device))
    opt.wait(state)
    return [a.cpu() for a in x]


def check_bits(device: str, largest: int = LARGEST) -> tuple[int, list[str]]:
    """How many rules and dtypes were compared, and what is wrong: other bits, or no result at all."""
    compared, wrong = 0, []
    for spec in specs():
        for dtype, integer in DTYPES.items():
            if names(spec) == "MixedPrecision" and dtype == "float64":
                continue
            try:
                there, here = after(spec, dtype, device, largest), after(spec, dtype, "cpu", largest)
            except Exception as error:  # the others are looked at all the same
                wrong.append(f"{names(spec)}, {dtype}: {type(error).__name__}: {error}")
                continue
            for a, b in zip(there, here, strict=True):
                different = int(np.count_nonzero((a.view(integer) != b.view(integer)).numpy()))
                if different:
                    wrong.append(
                        f"{names(spec)}, {dtype}: {different} of {a.numel()} elements have other bits than on the CPU"
                    )
            compared += 1
    return compared, wrong


def main() -> int:
    compared, wrong = check_bits("cuda")
    print("\n".join(wrong))
    print(f"bits: {compared} rules and dtypes compared with the CPU, {len(wrong)} wrong")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
