"""What was measured on a GPU, as Markdown: for the terminal, and as a section of docs/performance.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import markdown, microseconds, ratio

from gpu.plan import COPY, LABELS, OURS

RESULTS = Path(__file__).resolve().parents[1] / "results"
NOTHING_YET = (
    "This benchmark has not run whole on a GPU yet. [gpu.md](gpu.md#what-has-run-on-hardware) has the figures of two "
    "short runs."
)
Record = dict[str, Any]


def newest(folder: Path = RESULTS) -> Record | None:
    """The latest results of a whole run."""
    for path in sorted(folder.glob("gpu-*.json"), reverse=True):
        data: Record = json.loads(path.read_text())
        if not data["partial"] and not data["dry_run"]:
            return data
    return None


def table(data: Record) -> str:
    """A row a case: our time, its share of a copy's speed, and how many times as long the others take."""
    cases: dict[str, dict[str, Record]] = {}
    for record in data["records"]:
        cases.setdefault(record["case"], {})[record["peer"]] = record
    others = [p for p in LABELS if p not in (COPY, OURS) and any(p in peers for peers in cases.values())]
    head = ["case", "B", LABELS[OURS], "of a copy's speed", *(LABELS[p] for p in others)]
    return markdown(head, [row(title, peers, others) for title, peers in cases.items()])


def row(title: str, peers: dict[str, Record], others: list[str]) -> list[str]:
    times = {name: record["us"] for name, record in peers.items() if "us" in record}
    ours = times.get(OURS)
    size = str(next(iter(peers.values()))["bytes"])
    if ours is None:
        return [title, size, "not measured", "–", *("–" for _ in others)]
    half = (peers[OURS]["q3"] - peers[OURS]["q1"]) / 2 / ours
    share = f"{times[COPY] / ours:.1%}" if COPY in times else "–"
    relative = (ratio(times[p] / ours if p in times else None) for p in others)
    return [title, size, f"**{microseconds(ours)}** (±{half:.1%})", share, *relative]


def goals(data: Record) -> str:
    rows = [
        [g["case"], g["goal"], f"{g['measured']:.3g}", "met" if g["met"] else "**missed**"]
        for g in data["goals"]
    ]  # fmt: skip
    met = sum(g["met"] for g in data["goals"])
    return f"{met} of {len(rows)} goals are met.\n\n{markdown(['case', 'goal', 'measured', ''], rows)}"


def section(data: Record | None) -> str:
    """For the page; one sentence where nothing was measured."""
    if data is None:
        return NOTHING_YET
    versions = ", ".join(f"{name} {v}" for name, v in data["versions"].items())
    notes = dict.fromkeys(f"{r['case']}, {LABELS[r['peer']]}: {r['note']}." for r in data["records"] if r.get("note"))
    missing = [f"Left out: {LABELS[name]}, {why}." for name, why in data["missing_peers"].items()]
    parts = [
        f"Measured on {data['device']}, driver {data['driver']}, CUDA {data['cuda']}, on {data['date']} ({versions}).",
        f"Before that, {data['compared_with_cpu']} combinations of a rule or chain with a dtype gave the bits they "
        "give on the CPU, and every peer the results of the float64 reference.",
        "The yardstick is a copy that moves as many bytes (**B** an element), half read and half written, timed in "
        f"turn with the others: {data['method']['rounds']} rounds of {data['method']['budget_s']:g} s. Columns of "
        'other libraries say how many times as long they take; "interpreted" is the same rule before a stage that does '
        'nothing, which takes it past the kernel compiled for it. "In a graph" is a replayed CUDA graph, "eager" the '
        "host's clock over calls from Python; everything else is the device's clock, but for optax, whose steps are "
        "waited for one by one.",
        table(data),
        "  \n".join([*notes, *missing]),
        goals(data),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))
