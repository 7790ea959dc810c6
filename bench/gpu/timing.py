"""Clocks for work on a device, and one peer of a case, visited round after round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import quartiles
from peers.face import Step

from gpu.plan import OPTAX, DeviceCase

MOST_STEPS = 2000  # of one visit
Run = Callable[[], Any]


@dataclass(frozen=True)
class Settings:
    device: str
    rounds: int
    budget: float  # seconds a visit

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def by_events(run: Run, count: int, settings: Settings) -> float:
    """Seconds of the device for each of `count` steps."""
    if not settings.on_gpu:
        return by_wall(run, count, settings)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(count):
        run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / count


def by_wall(run: Run, count: int, settings: Settings) -> float:
    """Seconds of the host for each of `count` steps, until the last is done."""
    settings.synchronise()
    start = time.perf_counter()
    for _ in range(count):
        run()
    settings.synchronise()
    return (time.perf_counter() - start) / count


def captured(step: Step, settings: Settings) -> Run:
    """The step in a CUDA graph; without a GPU the step itself."""
    if not settings.on_gpu:
        return step.run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made at first use is made before the capture
        for _ in range(3):
            step.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.run()
    return graph.replay


class Visited:
    """One peer of one case: how a step runs, which clock times it, and its rounds."""

    def __init__(self, peer: str, case: DeviceCase, step: Step, settings: Settings) -> None:
        self.peer, self.settings, self.step = peer, settings, step
        self.run = captured(step, settings) if case.how == "graph" else step.run
        # JAX has streams of its own, which events of torch do not see.
        self.clock = by_wall if case.how == "wall" or peer == OPTAX else by_events
        for _ in range(3):
            self.run()
        once = max(self.clock(self.run, 1, settings), 1e-7)
        self.count = max(1, min(MOST_STEPS, int(settings.budget / once)))
        self.rounds: list[float] = []

    def visit(self) -> None:
        self.clock(self.run, 1, self.settings)  # back to full speed, and its data where it was
        self.rounds.append(self.clock(self.run, self.count, self.settings))

    def record(self) -> dict[str, Any]:
        low, high = quartiles(self.rounds)
        figures = {"us": statistics.median(self.rounds), "q1": low, "q3": high, "best": min(self.rounds)}
        return {name: round(seconds * 1e6, 4) for name, seconds in figures.items()} | {"note": self.step.note}
