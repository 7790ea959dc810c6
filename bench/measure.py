"""Runs the workers: every peer in its own process, visited in turn, round after round."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
from cases import BIG, Case
from peers import LABELS, ONE_THREAD

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]
BYTES_NEEDED = 17  # an element in the largest case: x, dx, m and v in float32, and some


@dataclass
class Plan:
    """How much time goes where."""

    library: Path
    threads: int  # the most
    rounds: int = 5
    budget: float = 0.1  # seconds a visit
    timeout: float = 180.0
    peers: tuple[str, ...] = tuple(LABELS)
    versions: dict[str, str] = field(default_factory=dict)  # filled in by the workers
    missing: dict[str, str] = field(default_factory=dict)  # peers that are not installed


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, threads: int, plan: Plan) -> None:
        self.plan = plan
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), JAX_PLATFORMS="cpu", PYTHONDONTWRITEBYTECODE="1")
        command = [sys.executable, str(HERE / "worker.py"), peer, str(threads), str(plan.library)]
        self.process: subprocess.Popen[str] | None = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
        )

    def ask(self, **request: Any) -> Record:
        if self.process is None:
            return {"error": "gone"}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self.close("the process ended")
        if not select.select([self.process.stdout], [], [], self.plan.timeout)[0]:
            return self.close(f"no answer in {self.plan.timeout:g} s")
        line = self.process.stdout.readline()
        if not line:
            return self.close("the process ended")
        reply: Record = json.loads(line)
        self.plan.versions |= reply.pop("versions", {})
        return reply

    def close(self, why: str = "") -> Record:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        return {"error": why}


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


@dataclass
class Visits:
    """What one peer answered, round by round."""

    samples: list[list[float]] = field(default_factory=list)
    check: str = ""
    note: str = ""
    problem: Record = field(default_factory=dict)

    def take(self, reply: Record) -> None:
        if "times" not in reply:
            self.problem = {key: reply[key] for key in ("missing", "error") if key in reply}
            return
        self.samples.append(reply["times"])
        self.check, self.note = reply["check"], reply["note"]

    def record(self, case: Case) -> Record:
        if self.problem:
            return self.problem
        rounds = [statistics.median(samples) for samples in self.samples]
        median = statistics.median(rounds)  # every visit counts the same, however many steps it had time for
        low, high = quartiles(rounds)
        return {
            "us": round(median * 1e6, 4),
            "q1": round(low * 1e6, 4),
            "q3": round(high * 1e6, 4),
            "best": round(min(rounds) * 1e6, 4),
            "ns_per_element": round(median * 1e9 / max(1, case.params), 4),
            "check": self.check,
            "note": self.note,
        }


class Workers:
    """The processes of one thread count, started when first needed."""

    def __init__(self, threads: int, plan: Plan) -> None:
        self.threads, self.plan = threads, plan
        self.running: dict[str, Worker] = {}

    def __getitem__(self, peer: str) -> Worker:
        if peer not in self.running:
            self.running[peer] = Worker(peer, self.threads, self.plan)
        return self.running[peer]

    def close(self) -> None:
        for worker in self.running.values():
            worker.close()


def rounds_at_most(case: Case) -> int:
    return 2 if case.params > 4 * BIG else 3 if case.big else 1000


def run_case(case: Case, workers: Workers, plan: Plan) -> list[Record]:
    """One case with one thread count, all peers."""
    peers = [p for p in case.peers if p in plan.peers and (workers.threads == 1 or p not in ONE_THREAD)]
    visits = {peer: Visits() for peer in peers}
    before = machine.cpu_times()
    short = case.params * BYTES_NEEDED > machine.memory("MemAvailable")
    for _ in range(min(plan.rounds, rounds_at_most(case))):
        for peer in peers:
            if visits[peer].problem:
                continue
            if short:
                visits[peer].problem = {"missing": "needs more memory than there is"}
                continue
            budget = plan.budget * (3 if case.big else 1)
            visits[peer].take(workers[peer].ask(task="time", case=case.id, budget=budget, drop=case.big))
    stolen = machine.stolen(before, machine.cpu_times())
    common = {
        "case": case.id, "group": case.group, "title": case.title, "threads": workers.threads,
        "leaves": len(case.shapes), "elements": case.params, "bytes": case.bytes, "steal": stolen,
    }  # fmt: skip
    return [{**common, "peer": peer, **visits[peer].record(case)} for peer in peers]


def run_cases(cases: list[Case], plan: Plan, report: Callable[[list[Record]], None]) -> Iterator[Record]:
    """All cases, thread count by thread count, so that at most one set of workers holds memory."""
    for threads in sorted({n for case in cases for n in case.thread_counts(plan.threads)}):
        workers = Workers(threads, plan)
        try:
            for case in (c for c in cases if threads in c.thread_counts(plan.threads)):
                if case.params > 4 * BIG:
                    workers.close()
                    workers.running.clear()
                records = run_case(case, workers, plan)
                note_missing(records, plan)
                report(records)
                yield from records
        finally:
            workers.close()


def note_missing(records: list[Record], plan: Plan) -> None:
    for r in records:
        if r.get("missing", "").startswith("not installed"):
            plan.missing[r["peer"]] = r["missing"]


def extra_memory(cases: list[Case], peers: tuple[str, ...], plan: Plan) -> Iterator[Record]:
    """By how much one step lifts the peak of resident memory; each in a fresh process."""
    for case in cases:
        for peer in (p for p in case.peers if p in plan.peers and p in peers):
            worker = Worker(peer, 1, plan)
            reply = worker.ask(task="memory", case=case.id, budget=0, drop=True)
            worker.close()
            yield {"case": case.id, "title": case.title, "peer": peer, **reply}
