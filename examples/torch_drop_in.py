"""A small GPT on real text, trained twice: by torch.optim.AdamW, and with one import changed by optimisers.torch.AdamW.

The text is a module of Python's own standard library, read byte by byte. Both losses and both step times are printed;
the losses are the same to float32 rounding.

    python examples/torch_drop_in.py [STEPS]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import optimisers.torch

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 64, 4, 4, 64, 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            t.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(WIDTH, dim=-1)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.tokens(text) + self.places(torch.arange(text.shape[1]))
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


def batches(steps: int) -> list[torch.Tensor]:
    """Pieces of the source text of `argparse`, the same at each call."""
    text = torch.frombuffer(bytearray(Path(argparse.__file__).read_bytes()), dtype=torch.uint8).long()
    chosen = torch.Generator().manual_seed(0)
    starts = torch.randint(len(text) - CONTEXT - 1, (steps, BATCH), generator=chosen)
    return [torch.stack([text[i : i + CONTEXT + 1] for i in row]) for row in starts]


def train(library: type[torch.optim.Optimizer], steps: int) -> tuple[list[float], float]:
    """The losses, and the median time of a step of the optimiser in microseconds."""
    torch.manual_seed(1)
    model = GPT()
    optimizer = library(model.parameters(), lr=3e-3, weight_decay=0.1)  # type: ignore[call-arg]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    losses, times = [], []
    for batch in batches(steps):
        logits = model(batch[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        begin = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - begin)
        schedule.step()
        losses.append(loss.item())
    return losses, statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int, nargs="?", default=60)
    steps = parser.parse_args().steps
    results = {}
    for library in (torch.optim.AdamW, optimisers.torch.AdamW):
        name = f"{library.__module__.removesuffix('.adamw')}.AdamW"
        losses, microseconds = results[name] = train(library, steps)
        print(f"{name:22} loss {losses[0]:.4f} -> {losses[-1]:.4f}   step {microseconds:7.1f} us")
    (theirs, _), (ours, _) = results.values()
    assert ours[-1] < ours[0]
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-2 * ours[0]


if __name__ == "__main__":
    main()
