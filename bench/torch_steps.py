"""optimizer.step() of optimisers.torch.AdamW beside torch.optim's and beside update_ of the same tensors.

    python bench/torch_steps.py [--threads 1] [--seconds 3] [--only GPT-2]

One parameter of 10 elements, 1,000 of 256, the arrays of ResNet-18 and of GPT-2 small, one of 10⁷. The candidates are
visited in turn, a burst of steps each, until a case has had its time; the fastest burst counts. Their ratios hold on a
loaded machine too, the microseconds do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from cases import GPT2, RESNET, Shape

import optimisers as opt
import optimisers.torch

MODELS: dict[str, tuple[Shape, ...]] = {
    "1 × 10": ((10,),),
    "1,000 × 256": ((256,),) * 1000,
    "ResNet-18 (62)": RESNET,
    "GPT-2 small (148)": GPT2,
    "1 × 10⁷": ((10_000_000,),),
}
BURST = 0.05  # seconds: what the others leave in the caches is gone after the first steps of it
OURS = "optimisers.torch"


def parameters(shapes: tuple[Shape, ...]) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for p in made:
        p.grad = torch.full_like(p, 1e-3)
    return made


def candidates(shapes: tuple[Shape, ...]) -> dict[str, Callable[[], object]]:
    """Each with parameters of its own."""
    options = {"lr": 1e-3, "weight_decay": 1e-2}
    tensors = parameters(shapes)
    state = opt.setup(opt.AdamW(1e-3, lambda_=1e-2), tensors)
    return {
        OURS: optimisers.torch.AdamW(parameters(shapes), **options).step,
        "update_": lambda: opt.update_(state, tensors),
        "torch fused": torch.optim.AdamW(parameters(shapes), fused=True, **options).step,
        "torch foreach": torch.optim.AdamW(parameters(shapes), foreach=True, **options).step,
    }


def burst(step: Callable[[], object], n: int) -> float:
    begin = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - begin) / n


def fastest(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Of each the shortest time of a step, in seconds, over bursts in turn."""
    lengths = {name: max(1, int(BURST / max(burst(step, 2), 1e-7))) for name, step in steps.items()}
    best = dict.fromkeys(steps, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            best[name] = min(best[name], burst(step, lengths[name]))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3, help="for each model")
    parser.add_argument("--only", default="", help="only models whose name begins with this")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    opt.set_num_threads(args.threads)
    print(f"AdamW, {args.threads} thread{'s' * (args.threads > 1)}; µs a step, and times {OURS}")
    for name, shapes in MODELS.items():
        if not name.startswith(args.only):
            continue
        best = fastest(candidates(shapes), args.seconds)
        told = [f"{who} {t * 1e6:,.1f}" + f" ({t / best[OURS]:.2f} ×)" * (who != OURS) for who, t in best.items()]
        print(f"{name:18} " + "   ".join(told), flush=True)


if __name__ == "__main__":
    main()
