"""Chains of any rules with any switches, and what leaves a chain's result as it is."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from support import REFUSES_COMPLEX, RULES, SUMS, Spec, is_complex, needed

NOTHING: Spec = ("Descent", {"eta": 1.0})  # dx as it comes; no kernel joins it with another rule


def switched() -> list[Spec]:
    """Every rule with every combination of its switches, the other hyperparameters at their defaults."""
    specs = []
    for name, rule in RULES.items():
        choices = {f.name: f.words or (False, True) for f in rule.fields if f.words or f.kind == "bool"}
        for values in itertools.product(*choices.values()):
            specs.append((name, needed(name) | dict(zip(choices, values, strict=True))))
    return specs


SWITCHED = switched()
ON_DEVICES = [spec for spec in SWITCHED if spec[0] not in SUMS]


def suits(chain: list[Spec], dtype: str) -> bool:
    return not (is_complex(dtype) and REFUSES_COMPLEX & {name for name, _ in chain})


def drawn_chains(length: int, dtype: str, count: int, rules: list[Spec] = SWITCHED) -> Iterator[list[Spec]]:
    """The same chains each time."""
    draw = random.Random(f"{length} in {dtype}")
    chains = ([draw.choice(rules) for _ in range(length)] for _ in range(count))
    return (chain for chain in chains if suits(chain, dtype))


# Whom every rule meets in the tests of pairs: those whose kernels are joined with others, that measure, that gate.
MET_BY_ALL = {"Adam", "WeightDecay", "ClipNorm", "AccumGrad"}


def partners(first: Spec, specs: list[Spec]) -> list[Spec]:
    """Every third of the rules behind this one, another third behind the next, so that all meet before or behind."""
    place = specs.index(first)
    return [s for i, s in enumerate(specs) if s[0] in MET_BY_ALL | {first[0]} or (place + i) % 3 == 0]


def apart(chain: list[Spec]) -> list[Spec]:
    """The chain with NOTHING between its stages."""
    return [stage for spec in chain for stage in (spec, NOTHING)][:-1]
