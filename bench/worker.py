"""One peer in a process of its own: python worker.py PEER THREADS LIBRARY. A line of JSON in, a line of JSON out."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reply = dict[str, Any]
WARM_UP_STEPS = 8  # RAdam, for one, is cheaper in its first steps
SHORTEST_SAMPLE = 2e-3  # seconds: below, several steps are one sample
PAUSE_SEPARATELY = 2e7  # elements from which on warming up is kept to two steps


def pin(threads: int) -> None:
    """Stay on as many processors as there are threads; must run before any library counts them."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-threads:])


def sample(step: Callable[[], Any], budget: float) -> list[float]:
    """Seconds of a step, sample by sample, for as long as the budget lasts and at least three times."""
    clock = time.perf_counter
    step()
    start = clock()
    step()
    inner = max(1, int(SHORTEST_SAMPLE / max(clock() - start, 1e-7)))
    samples: list[float] = []
    end = clock() + budget
    gc.collect()
    gc.disable()
    try:
        while len(samples) < 3 or clock() < end:
            start = clock()
            for _ in range(inner):
                step()
            samples.append((clock() - start) / inner)
    finally:
        gc.enable()
    return samples


def status(field: str) -> int:
    """Bytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def extra_memory(step: Callable[[], Any]) -> int:
    """By how many bytes one step lifts the peak of resident memory."""
    for _ in range(3):
        step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = status("VmRSS")
    step()
    return max(0, status("VmHWM") - before)


class Worker:
    def __init__(self, peer: Any) -> None:
        self.peer, self.case_id, self.step, self.checked = peer, "", None, ""

    def prepare(self, case_id: str) -> None:
        import numpy as np
        from cases import find
        from check import check

        self.step = None
        case = find(case_id)
        self.checked = check(self.peer, case)
        x, dx = ([np.full(s, value, np.float32) for s in case.shapes] for value in (1.0, 0.01))
        self.step = self.peer.build(case, x, dx)
        for _ in range(2 if case.params > PAUSE_SEPARATELY else WARM_UP_STEPS):
            self.step.run()
        self.case_id = case_id

    def answer(self, request: dict[str, Any]) -> Reply:
        if request["case"] != self.case_id:
            self.prepare(request["case"])
        assert self.step is not None
        reply: Reply = {"check": self.checked, "note": self.step.note}
        if request["task"] == "time":
            reply["times"] = sample(self.step.run, request["budget"])
        else:
            reply["bytes"] = extra_memory(self.step.run)
        if request["drop"]:
            self.step, self.case_id = None, ""
        return reply


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = str(getattr(sys.modules.get(package), "__version__", "unknown"))
    return found


def main() -> None:
    name, threads, library = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    pin(threads)

    from peers import PEERS, Setting, make
    from peers.face import NotOfferedError

    worker, problem = None, {}
    try:
        worker = Worker(make(name, Setting(threads, library)))
    except ImportError as error:
        problem = {"missing": f"not installed ({error})"}
    except Exception as error:
        problem = {"error": f"{type(error).__name__}: {error}"}
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line)) if worker else problem
        except NotOfferedError as error:
            reply = {"missing": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        if "versions" not in problem:
            problem["versions"] = {}
            reply["versions"] = versions(PEERS[name][4]) if worker else {}
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
