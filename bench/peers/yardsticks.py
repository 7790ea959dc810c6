"""The yardsticks: the memory's limit, loops written by hand, chains fused when compiling."""

from __future__ import annotations

import numpy as np
from cases import Case
from native_library import Leaves, Yardsticks
from specs import names, slot_count

from peers import Setting
from peers.face import NotOfferedError, Step

STAGGER = 17 * 64  # bytes: arrays swept together should not begin at the same place of a page


def stored(arrays: list[np.ndarray], dtype: str) -> list[np.ndarray]:
    """16-bit floats as their bits: the upper half of float32."""
    if dtype == "float32":
        return arrays
    return [np.ascontiguousarray(a.view(np.uint32) >> 16).astype(np.uint16) for a in arrays]


def zeros(shape: tuple[int, ...], index: int) -> np.ndarray:
    size, skip = int(np.prod(shape, dtype=np.int64)), (index % 3 + 1) * STAGGER // 4
    memory = np.zeros(size + skip, np.float32)
    return memory[skip:].reshape(shape)


class Bare:
    def __init__(self, setting: Setting) -> None:
        self.yardsticks = Yardsticks(setting.library, setting.threads)

    def leaves(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray], slots: int) -> Leaves:
        state = [zeros(a.shape, k) for k in range(slots) for a in x]
        return self.yardsticks.leaves(stored(x, case.dtype), stored(dx, case.dtype), state)

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        slots = {"half": 2, "master": 3, "copy": 0, "norm": 0}.get(case.bare)
        leaves = self.leaves(case, x, dx, int(case.bare[-1]) if slots is None else slots)
        return Step(self.yardsticks.bare(case.bare, leaves), lambda: [], exact=False)


class Hand(Bare):
    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        if case.op != "update" or case.dtype != "float32" or names(case.rule) not in ("Adam", "ClipNorm AdamW"):
            raise NotOfferedError(f"no loop written by hand for {case.title}")
        leaves = self.leaves(case, x, dx, 2)
        return Step(self.yardsticks.hand(names(case.rule) != "Adam", leaves), lambda: x)


class Fused(Bare):
    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        leaves = self.leaves(case, x, dx, slot_count(case.rule))
        return Step(self.yardsticks.fused(names(case.rule), leaves), lambda: x)
