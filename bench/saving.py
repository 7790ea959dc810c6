"""Saving and loading beside the disk: `python bench/saving.py [--gigabytes 1] [--folder .]`.

In turns: raw writes of as many bytes in pieces of 1 MiB with fsync, `save`, raw reads into fresh memory, `load` into a
new state. Reads come from the system's cache, as far as it holds the file.
Prints the best of each, the ratios, and how much memory a save took.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import optimisers as opt

PIECE = 1 << 20


def seconds(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def raw_write(path: Path, data: memoryview, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        for at in range(0, size, PIECE):
            begin = at % (len(data) - PIECE)
            file.write(data[begin : begin + min(PIECE, size - at)])
        os.fsync(file.fileno())


def raw_read(path: Path, size: int) -> None:
    view = memoryview(np.empty(size, np.uint8))  # fresh, as what is loaded into: its pages are cleared on the way
    with open(path, "rb", buffering=0) as file:
        at = 0
        while n := file.readinto(view[at : at + PIECE]):
            at += n


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    n = int(given.gigabytes * 1e9) // 8
    x = np.zeros(n, np.float32)
    state = opt.setup(opt.Adam(), x)
    state.state.m[...] = np.random.default_rng(1).random(n, np.float32)
    state.state.v[...] = state.state.m
    del x
    times: dict[str, list[float]] = {name: [] for name in ("raw write", "save", "raw read", "load")}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path, raw = Path(folder) / "state.safetensors", Path(folder) / "raw"
        opt.save(path, state)
        size = path.stat().st_size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opt.save(path, state)
        extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        data = memoryview(np.random.default_rng(2).bytes(64 * PIECE))
        model = np.zeros(n, np.float32)
        for _ in range(given.rounds):
            times["raw write"].append(seconds(lambda: raw_write(raw, data, size)))
            times["save"].append(seconds(lambda: opt.save(path, state)))
            times["raw read"].append(seconds(lambda: raw_read(path, size)))
            times["load"].append(seconds(lambda: opt.load(path, None, model) and None))
    best = {name: min(values) for name, values in times.items()}
    print(f"{size / 1e9:.2f} GB, load of the machine {os.getloadavg()[0]:.1f}")
    for name, value in best.items():
        print(f"  {name:9}  {size / value / 1e9:.2f} GB/s")
    saving, loading = best["raw write"] / best["save"], best["raw read"] / best["load"]
    print(f"  save at {saving:.0%} of raw writing, load at {loading:.0%} of raw reading")
    print(f"  a save took {extra / 1024:.0f} MiB of memory")


if __name__ == "__main__":
    main()
