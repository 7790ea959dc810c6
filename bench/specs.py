"""Rules by their names: as the float64 reference of the tests writes them, and as the package builds them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import reference

Spec = Any  # as in tests/reference.py: ("Adam", {...}), or a list of these for a chain


def rule_names() -> list[str]:
    """Every rule that needs no argument and no matrices."""
    import optimisers as opt

    of_any_shape = (cls.__name__ for cls in opt.RULES if not cls._matrix)
    return [name for name in of_any_shape if reference.REQUIRED not in reference.REFERENCE[name].defaults.values()]


def sums(name: str) -> bool:
    """Whether the rule sums over its leaf before it steps: one read more."""
    import optimisers as opt

    return bool(getattr(opt, name)._sums)


def hyperparameters(name: str, given: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**(reference.REFERENCE[name].defaults | given))


def slot_count(spec: Spec) -> int:
    """How many arrays as large as the leaf the rule or chain keeps."""
    x = np.zeros(1)
    return sum(len(reference.REFERENCE[n].init(hyperparameters(n, h), x)) for n, h in reference.flatten([spec]))


def names(spec: Spec) -> str:
    """A rule or chain in one line: "ClipGrad Adam"."""
    return " ".join(name for name, _ in reference.flatten([spec]))


def build(spec: Spec) -> Any:
    """The package's rule."""
    import optimisers as opt

    if isinstance(spec, list):
        return opt.OptimiserChain(*map(build, spec))
    name, given = spec
    if name == "MixedPrecision":
        return opt.MixedPrecision(build(given["rule"]))
    return getattr(opt, name)(**given)


def expected(spec: Spec, x: list[np.ndarray], dx: list[np.ndarray], steps: int, dtype: Any) -> list[np.ndarray]:
    """What the reference makes of x in some steps with the same gradients."""
    stored = None if dtype == np.float32 else dtype
    leaves = [reference.Leaf(spec, a, stored) for a in x]
    for _ in range(steps):
        reference.update(leaves, list(dx))
    return [leaf.x for leaf in leaves]
