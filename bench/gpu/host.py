"""What one call costs the host, without a GPU: the tests' emulation of devices, told to run no kernels.

After `make cpp-test`: python bench/gpu/host.py [build/cuda/liboptimisers_cuda_emulation.so]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

LEAVES, ELEMENTS, ROUNDS, SECONDS = 1000, 1000, 9, 0.05


def microseconds(run: Callable[[], Any]) -> float:
    """Of the fastest of some rounds."""
    run()
    start = time.perf_counter()
    run()
    count = max(1, int(SECONDS / (time.perf_counter() - start)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(count):
            run()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e6


def main() -> None:
    library = sys.argv[1] if len(sys.argv) > 1 else "build/cuda/liboptimisers_cuda_emulation.so"
    os.environ |= {"OPTIMISERS_CUDA_LIBRARY": os.path.abspath(library), "OPTIMISERS_EMULATED_IDLE": "1"}
    import numpy as np

    import optimisers as opt
    from optimisers._core import device_zeros

    def model(make: Callable[[], Any]) -> list[dict[str, Any]]:
        return [{"w": make()} for _ in range(LEAVES)]

    rules = {
        "Adam": opt.Adam(),
        "ClipNorm (global), Adam": opt.OptimiserChain(opt.ClipNorm(1, scope="global"), opt.Adam()),
    }
    arrays = {
        f"{LEAVES} arrays on a device": lambda: device_zeros([ELEMENTS], "float32", 0),
        f"{LEAVES} empty arrays on the host": lambda: np.zeros(0, "float32"),
    }
    for where, make in arrays.items():
        for name, rule in rules.items():
            x, g = model(make), model(make)
            state = opt.setup(rule, x)
            update = microseconds(lambda state=state, x=x, g=g: opt.update_(state, x, g))
            adjust = microseconds(lambda state=state: opt.adjust_(state, 0.1))
            print(f"{where}, {name}: update_ {update:.1f} us, adjust_ {adjust:.1f} us")
    x, g = device_zeros([ELEMENTS], "float32", 0), device_zeros([ELEMENTS], "float32", 0)
    state = opt.setup(opt.Adam(), x)
    print(f"one array on a device, Adam: update_ {microseconds(lambda: opt.update_(state, x, g)):.2f} us")


if __name__ == "__main__":
    main()
