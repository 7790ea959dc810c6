"""Before anything is timed: does it compute the right thing? Against the float64 reference of the tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from cases import Case, Shape
from peers.face import LERP_WEIGHT, NotOfferedError, Step
from specs import expected, names

STEPS = 3


class WrongResultError(Exception):
    """A peer, or this library, does not compute what the case is about."""


def random_arrays(shapes: tuple[Shape, ...], low: float, high: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    signs = [rng.choice([-1.0, 1.0], shape) for shape in shapes]
    return [np.asarray(s * rng.uniform(low, high, s.shape), np.float32) for s in signs]


def small_instance(case: Case) -> tuple[Case, list[np.ndarray], list[np.ndarray]]:
    """Parameters so small that a step shows in 16 bits too; AccumGrad fires."""
    shapes = case.small()
    rule = ("AccumGrad", {"n": 2}) if names(case.rule) == "AccumGrad" else case.rule
    x, dx = random_arrays(shapes, 0.005, 0.01, 1), random_arrays(shapes, 0.5, 1.0, 2)
    return dataclasses.replace(case, shapes=shapes, rule=rule), x, dx


def dtype_of(case: Case) -> Any:
    if case.dtype == "float32":
        return np.float32
    try:
        import ml_dtypes
    except ImportError:
        raise NotOfferedError(f"{case.dtype} is checked with ml_dtypes, which is not installed") from None
    return getattr(ml_dtypes, case.dtype)


def wanted(case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> list[np.ndarray]:
    wide_x, wide_dx = ([a.astype(np.float64) for a in arrays] for arrays in (x, dx))
    if case.op == "norm":
        return [np.sqrt(sum(np.sum(g * g) for g in wide_dx))]
    if case.op == "flatten":
        return [np.concatenate([g.ravel() for g in wide_dx])]
    if case.op == "lerp":
        kept = (1 - LERP_WEIGHT) ** STEPS
        return [kept * a + (1 - kept) * b for a, b in zip(wide_x, wide_dx, strict=True)]
    dtype = dtype_of(case)
    return expected(case.rule, *([np.asarray(a, dtype).astype(np.float64) for a in b] for b in (x, dx)), STEPS, dtype)


def check(peer: Any, case: Case) -> str:
    """How it was checked: "reference", or "finite" for a variant of the formula; raises WrongResultError."""
    small, x, dx = small_instance(case)
    start = [a.astype(np.float64) for a in x]
    want = wanted(small, x, dx)
    step: Step = peer.build(small, [a.copy() for a in x], [a.copy() for a in dx])
    for _ in range(STEPS):
        step.run()
    got = step.values()
    if not got:  # the bare traffic computes nothing
        return "nothing to check"
    if not all(np.isfinite(a).all() for a in got):
        raise WrongResultError(f"{case.id}: not finite after {STEPS} steps")
    if not step.exact:
        return "finite"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        moved = np.abs(b - start[i]) if case.op == "update" else np.abs(b)
        allowed = 1e-7 + 1e-3 * moved if case.dtype == "float32" else 2.0**-8 * np.abs(b)
        if not (np.abs(a - b) <= allowed).all():
            worst = float(np.max(np.abs(a - b)))
            raise WrongResultError(f"{case.id}: array {i} is off by {worst:.3g} after {STEPS} steps")
    return "reference"
