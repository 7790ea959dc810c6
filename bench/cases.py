"""What is measured: every case with its arrays, its rule, the memory it has to move, its peers and its goals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from specs import Spec, rule_names, slot_count, sums

Shape = tuple[int, ...]

ADAM: Spec = ("Adam", {})
CLIPPED: Spec = [("ClipNorm", {"omega": 1.0, "scope": "global"}), ("AdamW", {"lambda_": 0.01})]
CHAINS: dict[str, Spec] = {
    "ClipGrad, WeightDecay, Adam": [("ClipGrad", {}), ("WeightDecay", {}), ADAM],
    "WeightDecay, Lion": [("WeightDecay", {}), ("Lion", {})],
    "ClipGrad, SignDecay, RMSProp, Momentum": [("ClipGrad", {}), ("SignDecay", {}), ("RMSProp", {}), ("Momentum", {})],
}
BIG = 50_000_000  # elements from which on a worker forgets a case after each visit

OURS, FUSED, FOREACH, OPTAX, NUMPY = "ours", "torch_fused", "torch_foreach", "optax", "numpy"
FLAT = ("bare", "hand", OURS, FUSED, FOREACH, OPTAX, NUMPY)
MANY = ("bare", "hand", OURS, "ours_torch", FUSED, FOREACH, OPTAX)


@dataclass(frozen=True)
class Goal:
    """`ours` takes at most `ratio` times what `peer` takes."""

    peer: str
    ratio: float
    ours: str = OURS
    threads: int | None = None  # None: any


@dataclass(frozen=True)
class Case:
    group: str
    title: str
    shapes: tuple[Shape, ...]
    bare: str  # the loop of native/bare.cpp that moves the same memory
    bytes: int  # an element
    peers: tuple[str, ...]
    rule: Spec = ADAM
    op: str = "update"
    dtype: str = "float32"
    threads: str = "all"  # one | most | all (1 and the most) | sweep (1, 2, 4, ...)
    goals: tuple[Goal, ...] = ()
    quick: bool = False

    @property
    def id(self) -> str:
        return f"{self.group}: {self.title}"

    @property
    def params(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def big(self) -> bool:
        return self.params > BIG

    def small(self) -> tuple[Shape, ...]:
        """The same case as small as a check needs it."""
        return tuple(tuple(min(n, 5) for n in shape) for shape in self.shapes[:6])

    def thread_counts(self, most: int) -> list[int]:
        if self.threads == "sweep":
            return sorted({min(2**k, most) for k in range(most.bit_length() + 1)})
        return {"one": [1], "most": [most], "all": sorted({1, most})}[self.threads]


def resnet18() -> tuple[Shape, ...]:
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    for stage, (before, width) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)]):
        for block, inputs in enumerate((before, width)):
            shapes += [(width, inputs, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if stage > 0 and block == 0:
                shapes += [(width, inputs, 1, 1), (width,), (width,)]
    return (*shapes, (1000, 512), (1000,))


def gpt2(width: int = 768, layers: int = 12) -> tuple[Shape, ...]:
    norm = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    dense = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return ((50257, width), (1024, width), *(norm + attention + norm + dense) * layers, *norm)


RESNET, GPT2 = resnet18(), gpt2()


def power(n: int) -> str:
    exponent = len(str(n)) - 1
    assert n == 10**exponent
    return "10" + str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def flat_cases() -> Iterator[Case]:
    goals = {
        10**4: (Goal("hand", 1.10, threads=1), Goal(FUSED, 1 / 8, threads=1)),
        10**5: (Goal("hand", 1.10, threads=1), Goal(FUSED, 1 / 2, threads=1)),
        10**6: (Goal("hand", 1.10, threads=1), Goal(FUSED, 1 / 1.2, threads=1)),
        10**7: (Goal("hand", 1.05), Goal(FUSED, 1.0)),
        10**8: (Goal("hand", 1.05), Goal(FUSED, 1.0)),
    }
    ten = (Goal(FUSED, 1 / 20),)
    yield Case("flat", "10 elements", ((10,),), "update2", 28, FLAT, threads="one", goals=ten, quick=True)
    for n in (10**3, *goals):
        peers = ("bare", "hand", OURS, FUSED) if n == 10**8 else FLAT
        yield Case(
            "flat", f"{power(n)} elements", ((n,),), "update2", 28, peers,
            goals=goals.get(n, ()), quick=n < 10**8,
        )  # fmt: skip


def leaf_cases() -> Iterator[Case]:
    few = (Goal("hand", 1.05),)
    thousand = (Goal(FUSED, 1 / 30, threads=1), Goal(FUSED, 1 / 14, "ours_torch", threads=1))
    yield Case("leaves", "1,000 × 256", ((256,),) * 1000, "update2", 28, MANY, goals=thousand, quick=True)
    peers = ("bare", "hand", OURS, "ours_torch", FUSED)
    yield Case("leaves", "10,000 × 64", ((64,),) * 10_000, "update2", 28, peers, goals=(Goal("hand", 2.7),))
    yield Case("leaves", "ResNet-18 (62)", RESNET, "update2", 28, MANY, goals=few, quick=True)
    yield Case("leaves", "GPT-2 (148)", GPT2, "update2", 28, peers, goals=few)


def chain_cases() -> Iterator[Case]:
    goals = (Goal("hand", 1.05), Goal(FUSED, 1 / 1.3), Goal(OPTAX, 1 / 3))
    for n in (10**7, 10**8):
        peers = ("bare", "hand", OURS, FUSED) + (() if n == 10**8 else (FOREACH, OPTAX))
        yield Case(
            "chain", f"global clip, decay, Adam, {power(n)}", ((n,),), "clipped2", 32, peers, CLIPPED,
            threads="most" if n == 10**8 else "all", goals=goals, quick=n == 10**7,
        )  # fmt: skip
    for n in (10**5, 10**7):
        goal = Goal("fused", 1.3) if n == 10**5 else Goal("bare", 1.05)
        for title, rule in CHAINS.items():
            slots = slot_count(rule)
            yield Case(
                "chain", f"{title}, {power(n)}", ((n,),), f"update{slots}", 12 + 8 * slots,
                ("bare", "fused", OURS, FOREACH, OPTAX), rule, threads="one", goals=(goal,),
            )  # fmt: skip


def rule_cases() -> Iterator[Case]:
    for name in rule_names():
        slots = slot_count((name, {}))
        reads_twice = name == "ClipNorm" or sums(name)
        bare, size = (f"clipped{slots}", 16 + 8 * slots) if reads_twice else (f"update{slots}", 12 + 8 * slots)
        yield Case(
            "rule", name, ((10**7,),), bare, size, ("bare", OURS, FUSED, FOREACH, OPTAX), (name, {}),
            threads="one", goals=(Goal("bare", 1.10),), quick=name in ("Momentum", "AdaBelief"),
        )  # fmt: skip


def half_cases() -> Iterator[Case]:
    goals = (Goal("bare", 1.10),)
    for n in (10**7, 10**8):
        for title, rule, bare, size in (
            ("bfloat16 x and dx, float32 m and v", ADAM, "half", 22),
            ("bfloat16 x and dx, float32 master copy", ("MixedPrecision", {"rule": ADAM}), "master", 28),
        ):
            yield Case(
                "half", f"{title}, {power(n)}", ((n,),), bare, size, ("bare", OURS, FUSED), rule,
                dtype="bfloat16", threads="all" if n == 10**7 else "most", goals=goals, quick=n == 10**7,
            )  # fmt: skip


def other_cases() -> Iterator[Case]:
    peers, goals = ("bare", OURS, FOREACH, NUMPY), (Goal("bare", 1.10),)
    for title, bare, size, op in (
        ("norm of a tree", "norm", 4, "norm"),
        ("moving average of a tree (lerp_)", "update0", 12, "lerp"),
        ("re.flatten of a tree into a vector", "copy", 8, "flatten"),
    ):
        yield Case("other", f"{title}, ResNet-18", RESNET, bare, size, peers, op=op, goals=goals)
    never, title = ("AccumGrad", {"n": 1_000_000_000}), "AccumGrad, a call that collects, 10⁷"
    yield Case("other", title, ((10**7,),), "update0", 12, ("bare", OURS), never, goals=goals)


def scaling_cases() -> Iterator[Case]:
    for k in range(5):
        yield Case("scaling", f"{10**k:,} × 64", ((64,),) * 10**k, "update2", 28, ("bare", OURS), threads="one")
    for n in (10**5, 10**6, 10**7):
        yield Case("scaling", f"threads, {power(n)} elements", ((n,),), "update2", 28, ("bare", OURS), threads="sweep")
    yield Case("scaling", f"{power(10**9)} elements", ((10**9,),), "update2", 28, ("bare", OURS), threads="most")


def tiny_cases() -> Iterator[Case]:
    """For the benchmark's own test."""
    yield Case("tiny", "vector", ((100,),), "update2", 28, FLAT, threads="one", goals=(Goal("bare", 1e9),))
    yield Case("tiny", "tree", ((3, 4), (5,), ()), "clipped2", 32, MANY, CLIPPED, goals=(Goal("hand", 1e-9),))


GROUPS = {
    "flat": "One float32 array, Adam",
    "leaves": "Many float32 arrays in nested dicts, Adam",
    "chain": "Chains, float32",
    "rule": "Every rule, one float32 array of 10⁷ elements",
    "half": "16-bit parameters, Adam",
    "other": "Other calls, float32",
    "scaling": "Scaling, float32, Adam",
    "tiny": "Test of the benchmark",
}


def all_cases() -> list[Case]:
    groups = (flat_cases, leaf_cases, chain_cases, rule_cases, half_cases, other_cases, scaling_cases, tiny_cases)
    return list(itertools.chain.from_iterable(group() for group in groups))


def find(case_id: str) -> Case:
    return next(case for case in all_cases() if case.id == case_id)


def chosen(only: list[str] | None, quick: bool) -> list[Case]:
    """The cases whose id contains one of the texts, or all but the test's."""
    cases = [case for case in all_cases() if case.quick or not quick]
    if only is None:
        return [case for case in cases if case.group != "tiny"]
    return [case for case in cases if any(text.lower() in case.id.lower() for text in only)]
