"""Builds and loads the yardsticks of native/: the bare memory traffic, hand-written loops, compile-time chains."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DEFAULT_BUILD = HERE.parent / "build" / "yardsticks"


def build(folder: Path) -> Path:
    """Compile what has changed and return the shared library."""
    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if cmake is None:
        raise SystemExit("bench: cmake is needed to build the yardsticks; run `make bench`, or install cmake")
    generator = ["-G", "Ninja"] if shutil.which("ninja") and not (folder / "Makefile").exists() else []
    steps = ([cmake, "-S", str(HERE), "-B", str(folder), *generator], [cmake, "--build", str(folder)])
    for command in steps:
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(f"bench: building the yardsticks failed\n{run.stdout}{run.stderr}")
    return next(folder.glob("*optimisers_yardsticks.*"))


class Leaves(ctypes.Structure):
    """bench::Leaves of native/leaves.hpp."""

    _fields_ = (
        ("count", ctypes.c_int64),
        ("size", ctypes.POINTER(ctypes.c_int64)),
        ("x", ctypes.POINTER(ctypes.c_void_p)),
        ("dx", ctypes.POINTER(ctypes.c_void_p)),
        ("slot", ctypes.POINTER(ctypes.c_void_p)),
    )


def pointers(arrays: list[np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(1, len(arrays)))(*[a.ctypes.data for a in arrays])


class Yardsticks:
    """The functions of the library, over lists of arrays."""

    def __init__(self, path: str, threads: int) -> None:
        self.library, self.threads = ctypes.CDLL(path), threads
        self.library.bench_bare.restype = ctypes.c_double
        self.library.bench_fused_chain.restype = ctypes.c_void_p
        if threads > 1 and not self.library.bench_has_threads():
            raise RuntimeError("the yardsticks were built without OpenMP: one thread only")

    def leaves(self, x: list[np.ndarray], dx: list[np.ndarray], slots: list[np.ndarray]) -> Leaves:
        """Keeps the arrays alive; `slots` has all of slot 0, then all of slot 1, ..."""
        leaves = Leaves(
            len(x),
            (ctypes.c_int64 * max(1, len(x)))(*[a.size for a in x]),
            ctypes.cast(pointers(x), ctypes.POINTER(ctypes.c_void_p)),
            ctypes.cast(pointers(dx), ctypes.POINTER(ctypes.c_void_p)),
            ctypes.cast(pointers(slots), ctypes.POINTER(ctypes.c_void_p)),
        )
        leaves.arrays = (x, dx, slots)
        return leaves

    def bare(self, kind: str, leaves: Leaves) -> Callable[[], float]:
        f, name, at, threads = self.library.bench_bare, kind.encode(), ctypes.byref(leaves), self.threads
        if f(name, at, threads) < 0:
            raise ValueError(f"native/bare.cpp has no loop {kind!r}")
        return lambda: float(f(name, at, threads))

    def hand(self, clipped: bool, leaves: Leaves) -> Callable[[], None]:
        f = self.library.bench_clipped_adamw if clipped else self.library.bench_adam
        at, threads, t = ctypes.byref(leaves), self.threads, ctypes.c_int64(0)

        def step() -> None:
            t.value += 1
            f(at, t, threads)

        return step

    def fused(self, names: str, leaves: Leaves) -> Callable[[], None]:
        chain = self.library.bench_fused_chain(names.encode())
        if chain is None:
            raise ValueError(f"native/fused.cpp has no chain {names!r}")
        f, threads = self.library.bench_fused_step, self.threads
        handle, at = ctypes.c_void_p(chain), ctypes.byref(leaves)
        return lambda: f(handle, at, threads)
