"""A few steps for a profiler to look at: `ncu ... python bench/gpu/profiled.py adam`.

Random data of 10^8 elements (--elements), on a torch device tensor; the second of two steps is the one to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

import optimisers as opt


def stepped(rule: opt.Rule, dtype: torch.dtype) -> Callable[[int], None]:
    def run(n: int) -> None:
        x, g = (torch.randn(n, device="cuda", dtype=dtype) for _ in range(2))
        state = opt.setup(rule, x)
        for _ in range(2):
            opt.update_(state, x, g)
        opt.wait(state)

    return run


def norm(n: int) -> None:
    g = torch.randn(n, device="cuda")
    for _ in range(2):
        opt.norm(g)


def lerp(dtype: torch.dtype) -> Callable[[int], None]:
    def run(n: int) -> None:
        a, b = (torch.randn(n, device="cuda", dtype=dtype) for _ in range(2))
        for _ in range(2):
            opt.lerp_(a, b, 0.1)

    return run


CASES: dict[str, Callable[[int], None]] = {
    "adam": stepped(opt.Adam(), torch.float32),
    "adam-bfloat16": stepped(opt.Adam(), torch.bfloat16),
    "adam-mixed": stepped(opt.MixedPrecision(opt.Adam()), torch.bfloat16),
    "norm": norm,
    "lerp": lerp(torch.float32),
    "lerp-bfloat16": lerp(torch.bfloat16),
    "clip": stepped(opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.Adam()), torch.float32),
    "clip-short": lambda n: stepped(opt.OptimiserChain(opt.ClipNorm(1.0), opt.Adam()), torch.float32)(n // 100),
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)} (default: all)")
    p.add_argument("--elements", type=int, default=10**8)
    args = p.parse_args()
    for name in args.cases or CASES:
        CASES[name](args.elements)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
