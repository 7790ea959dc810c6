"""The benchmark: this library beside torch, optax and NumPy, and beside what the memory can do.

    make bench                                     everything, about 12 minutes on two processors
    python bench/run.py --quick                    under three minutes
    python bench/run.py --only flat ResNet         cases whose name contains one of these texts
    python bench/run.py --report bench/results/2026-01-31.json    pictures and page again, nothing measured

Every case is first checked against the float64 reference of the tests. Peers that are not installed are left out
and named. Writes a JSON file, two pictures and docs/performance.md; with --only or --quick the page is not touched
unless --page names one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import draw  # noqa: E402
import imports  # noqa: E402
import machine  # noqa: E402
import measure  # noqa: E402
import native_library  # noqa: E402
import report  # noqa: E402
from peers import LABELS, YARDSTICKS  # noqa: E402

DOCS = HERE.parent / "docs"
MEMORY_CASES = ("flat: 10⁷ elements", "leaves: 1,000 × 256", "chain: global clip, decay, Adam, 10⁷", "tiny: tree")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    p.add_argument("--only", nargs="+", metavar="TEXT", help="only cases whose name contains one of these")
    p.add_argument("--peers", help=f"comma-separated, of {', '.join(LABELS)}")
    p.add_argument("--threads", type=int, default=machine.processors(), help="the most (default: all processors)")
    p.add_argument("--rounds", type=int, help="visits to each peer (default: 5; quick: 3)")
    p.add_argument("--budget", type=float, help="seconds a visit (default: 0.1; quick: 0.06)")
    p.add_argument("--out", type=Path, help="default: bench/results/<date>.json")
    p.add_argument("--page", type=Path, help="default: docs/performance.md, after a full run")
    p.add_argument("--images", type=Path, help="folder of the pictures (default: docs/images)")
    p.add_argument("--build", type=Path, default=native_library.DEFAULT_BUILD, help="where the yardsticks are compiled")
    p.add_argument("--report", type=Path, help="measure nothing; draw and write from this JSON file")
    return p.parse_args()


def show(records: list[dict[str, Any]]) -> None:
    first = records[0] if records else None
    if first is None:
        return
    print(f"{first['case']}, {first['threads']} thread{'s' * (first['threads'] > 1)}", flush=True)
    for r in records:
        figure = f"{r['us']:>14,.1f} µs" if "us" in r else f"  {r.get('missing') or r.get('error')}"
        print(f"    {LABELS[r['peer']]:26}{figure}", flush=True)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    plan = measure.Plan(native_library.build(args.build), args.threads)
    plan.rounds = args.rounds or (3 if args.quick else 5)
    plan.budget = args.budget or (0.06 if args.quick else 0.1)
    if args.peers:
        plan.peers = tuple(name.strip() for name in args.peers.split(","))
        unknown = [name for name in plan.peers if name not in LABELS]
        if unknown:
            raise SystemExit(f"bench: no peer {', '.join(unknown)}; there are {', '.join(LABELS)}")
    chosen = cases.chosen(args.only, args.quick)
    if not chosen:
        raise SystemExit(f"bench: no case contains {' or '.join(args.only)}")
    about = machine.description()  # fails early if the package is not installed
    start, ticks, load = time.monotonic(), machine.cpu_times(), os.getloadavg()
    records = list(measure.run_cases(chosen, plan, show))
    others = [package for name, package in (("torch_fused", "torch"), ("optax", "optax")) if name in plan.peers]
    memory_peers = ("ours", "torch_fused") if args.quick else tuple(p for p in LABELS if p not in YARDSTICKS)
    memory = list(measure.extra_memory([c for c in chosen if c.id in MEMORY_CASES], memory_peers, plan))
    return {
        "date": datetime.date.today().isoformat(),
        "quick": args.quick,
        "partial": args.only is not None or args.peers is not None,
        "machine": about,
        "versions": dict(sorted(plan.versions.items())),
        "missing_peers": plan.missing,
        "method": {"rounds": plan.rounds, "budget_s": plan.budget, "most_threads": plan.threads},
        "load_before": [round(x, 2) for x in load],
        "steal_percent": machine.stolen(ticks, machine.cpu_times()),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "records": records,
        "extra_memory": memory,
        "imports": imports.measure(min(plan.rounds, 5), ("optimisers", *others)),
    }


def dump(data: dict[str, Any], path: Path) -> None:
    """JSON with one record a line, so that two runs can be compared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False)
    for record in data["records"] + data["extra_memory"]:
        indented = json.dumps(record, indent=1, ensure_ascii=False).replace("\n", "\n  ")
        text = text.replace(indented, json.dumps(record, ensure_ascii=False))
    path.write_text(text + "\n")


def main() -> int:
    args = arguments()
    if args.report:
        data = json.loads(args.report.read_text())
    else:
        data = measured(args)
        out = args.out or HERE / "results" / f"{data['date']}.json"
        dump(data, out)
        print(f"results: {out}")
    complete = not data["quick"] and not data["partial"]
    page = args.page or (DOCS / "performance.md" if complete else None)
    if page is not None:
        images = args.images or (DOCS / "images" if args.page is None else page.parent / "images")
        drawn = draw.all_pictures(data, images)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(report.page(data, os.path.relpath(images, page.parent), drawn))
        print(f"page: {page}")
    wrong = [r for r in data["records"] if "error" in r]
    for r in wrong:
        print(f"bench: {r['case']}, {LABELS[r['peer']]}: {r['error']}", file=sys.stderr)
    return 1 if any(r["peer"] in ("ours", "ours_torch") for r in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
