"""The figures of one run, looked up by case, peer and threads: what pictures and page are made from."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import cases
from cases import Case, Goal
from peers import OWN, YARDSTICKS

Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A goal, and what came of it."""

    case: Case
    goal: Goal
    threads: int
    measured: float  # ratio
    noise: float  # of the row it is from, as a share

    @property
    def verdict(self) -> str:
        if self.measured <= self.goal.ratio:
            return "met"
        return "within the noise" if self.measured <= self.goal.ratio * (1 + self.noise) else "**missed**"


class Results:
    def __init__(self, data: Record) -> None:
        self.data = data
        self.records: list[Record] = [r for r in data["records"] if "us" in r]
        self.by_key = {(r["case"], r["peer"], r["threads"]): r for r in self.records}
        known = {case.id: case for case in cases.all_cases()}
        ids = dict.fromkeys(r["case"] for r in data["records"])
        self.cases = sorted((known[i] for i in ids if i in known), key=list(known.values()).index)

    def get(self, case: Case, peer: str, threads: int) -> Record | None:
        return self.by_key.get((case.id, peer, threads))

    def threads(self, case: Case) -> list[int]:
        return sorted({r["threads"] for r in self.records if r["case"] == case.id})

    def ratio(self, case: Case, peer: str, threads: int, to: str = "ours") -> float | None:
        """How many times as long as `to` the peer takes."""
        a, b = self.get(case, peer, threads), self.get(case, to, threads)
        return a["us"] / b["us"] if a and b else None

    def best_peer(self, case: Case, threads: int) -> tuple[str, float] | None:
        """The fastest of those that are neither yardsticks nor this library, and its ratio to ours."""
        names = [p for p in case.peers if p not in YARDSTICKS + OWN]
        ratios = {p: r for p in names if (r := self.ratio(case, p, threads)) is not None}
        return min(ratios.items(), key=lambda item: item[1]) if ratios else None

    def outcomes(self) -> list[Outcome]:
        found = []
        for case in self.cases:
            for goal in case.goals:
                for threads in self.threads(case):
                    ratio = self.ratio(case, goal.ours, threads, goal.peer)
                    if ratio is not None and goal.threads in (None, threads):
                        found.append(Outcome(case, goal, threads, ratio, self.row_noise(case.id, threads)))
        return found

    def row_noise(self, case_id: str, threads: int) -> float:
        """Half the distance of the quartiles of the noisiest in this row, as a share."""
        rows = [r for r in self.records if r["case"] == case_id and r["threads"] == threads]
        return max(((r["q3"] - r["q1"]) / (2 * r["us"]) for r in rows), default=0.0)

    def noise(self, least: int, most: int) -> tuple[float, float]:
        """Median and 90th percentile of half the distance of the quartiles, in per cent, for these sizes."""
        spread = [50 * (r["q3"] - r["q1"]) / r["us"] for r in self.records if least <= r["elements"] < most]
        if not spread:
            return 0.0, 0.0
        ordered = sorted(spread)
        return statistics.median(ordered), ordered[int(0.9 * (len(ordered) - 1))]
