"""Views of one memory in any strides: a call is refused where NumPy finds a shared byte, and nowhere else."""

import re

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import optimisers as opt

SIZE = 6000  # bytes
DTYPES = ("float32", "float32", "float16", "float64")


def strided(rng, memory, shape, dtype, row):
    """A view of any strides, mostly such as columns and blocks of a matrix have; None: it would leave the memory."""
    item = np.dtype(dtype).itemsize
    steps = (item, 2 * item, row, row * int(rng.integers(1, 4)), int(rng.integers(1, 90)), 0)
    strides = [s * rng.choice([1, 1, -1]) for s in rng.choice(steps, len(shape), p=(0.2, 0.1, 0.4, 0.15, 0.1, 0.05))]
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    before = -sum(r for r in reach if r < 0)
    room = SIZE - item - before - sum(r for r in reach if r > 0)
    if room < 0:
        return None
    start = before + int(rng.integers(room + 1))
    return as_strided(memory[start : start + item].view(dtype), shape, strides)


def overlaps_itself(array):
    places = np.zeros((1,), np.int64)
    for n, stride in zip(array.shape, array.strides, strict=True):
        places = np.add.outer(places, np.arange(n) * stride)
    places = np.add.outer(places, np.arange(array.itemsize)).ravel()
    return len(np.unique(places)) < places.size


def disjoint_views(rng, memory, row):
    views = []
    for _ in range(60):
        shape = tuple(rng.integers(1, 9, rng.integers(1, 4)))
        view = strided(rng, memory, shape, rng.choice(DTYPES), row)
        if view is not None and not overlaps_itself(view) and not any(np.shares_memory(view, v) for v in views):
            views.append(view)
    return views


def same_view(a, b):
    steps = [[s for n, s in zip(x.shape, x.strides, strict=True) if n > 1] for x in (a, b)]
    return a.dtype == b.dtype and a.ctypes.data == b.ctypes.data and steps[0] == steps[1]


def sources_of(rng, memory, row, written):
    """An array for each of the written ones: a few in the same memory, or the written array itself."""
    sources = [np.zeros(x.shape, x.dtype) for x in written]
    for i in rng.choice(len(written), min(3, len(written)), replace=False):
        view = strided(rng, memory, written[i].shape, rng.choice(DTYPES), row)
        sources[i] = written[i] if view is None or rng.random() < 0.1 else view
    return sources


@pytest.mark.parametrize("call", ["update_", "lerp_"])
def test_refused_exactly_where_numpy_finds_a_shared_byte(call):
    rng = np.random.default_rng(0)
    seen = {"refused": 0, "between": 0}
    for _ in range(60):
        row = int(rng.choice([40, 64, 100, 120, 240]))
        memory = np.zeros(SIZE, np.uint8)
        written = disjoint_views(rng, memory, row)
        state = opt.setup(opt.Descent(1.0), written)
        for _ in range(20):
            sources = sources_of(rng, memory, row, written)
            shared = [
                (i, j)
                for i, source in enumerate(sources)
                for j, x in enumerate(written)
                if np.shares_memory(source, x) and not (i == j and same_view(source, x))
            ]
            memory[:] = rng.integers(0, 256, SIZE)
            before = memory.copy()
            try:
                opt.update_(state, written, sources) if call == "update_" else opt.lerp_(written, sources, 0.5)
            except ValueError as error:
                places = tuple(int(n) for n in re.findall(r'at "(\d+)"', str(error)))
                assert shared and places == shared[0] and (memory == before).all(), (error, shared)
                seen["refused"] += 1
            else:
                assert not shared, shared
                seen["between"] += any(np.may_share_memory(s, x) for s in sources for x in written if s is not x)
    assert min(seen.values()) > 100, seen
