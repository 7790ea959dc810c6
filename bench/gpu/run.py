"""The benchmark on a GPU: this library on torch tensors, beside torch, optax and CuPy, and beside a copy of memory.

    python bench/gpu/run.py               less than eight minutes on a large GPU
    python bench/gpu/run.py --only Adam   cases whose name contains one of these texts
    python bench/gpu/run.py --dry-run     everything once, tiny, on the CPU: shows that it works, measures nothing

First checks every rule's bits against the CPU's: with others the figures are for you alone. Checks every peer's results
against the float64 reference of the tests; what is wrong is not timed. Peers that are not installed, or fail, are left
out and named. Prints a table and writes it to bench/results/gpu-<date>.json, after each case what there is so far;
`python bench/run.py --report FILE`, with the results of the CPU, makes a section of docs/performance.md of a whole one.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or JAX takes the memory the others need

Record = dict[str, Any]


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    p.add_argument("--only", nargs="+", metavar="TEXT", help="only cases whose name contains one of these")
    p.add_argument("--sizes", nargs="+", type=float, help="elements of the flat cases (default: 1e8)")
    p.add_argument("--peers", nargs="+", metavar="NAME", help="only these: copy ours interpreted torch_fused ...")
    p.add_argument("--unchecked", action="store_true", help="without comparing every rule's bits first (bits.py does)")
    p.add_argument("--rounds", type=int, help="visits to each peer (default: 9)")
    p.add_argument("--budget", type=float, help="seconds a visit (default: 0.1)")
    p.add_argument("--minutes", type=float, default=7.5, help="no case begins after these (default: 7.5)")
    p.add_argument("--out", type=Path, help="default: bench/results/gpu-<date>.json; a dry run writes none")
    return p.parse_args()


def device_of(args: argparse.Namespace) -> str:
    """Where to run; leaves with a clear message where that is impossible."""
    try:
        import torch
    except ImportError as error:
        raise SystemExit(f"bench/gpu: torch is needed, it holds the arrays: {error}") from None
    if args.dry_run:
        os.environ["JAX_PLATFORMS"] = "cpu"
        return "cpu"
    if not torch.cuda.is_available():
        raise SystemExit("bench/gpu: torch finds no CUDA device here; --dry-run runs everything once on the CPU")
    import optimisers as opt

    found = opt.doctor()
    if not found.cuda:
        raise SystemExit(f"bench/gpu: optimisers finds no CUDA device: {found.cuda_reason}")
    return "cuda"


def driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def about(device: str) -> Record:
    """The device, the driver and the versions."""
    import torch

    import optimisers as opt

    versions = {"python": platform.python_version(), "optimisers": opt.doctor().version}
    for package in ("torch", "jax", "jaxlib", "optax", "cupy", "cupy-cuda12x", "cupy-cuda13x", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if device == "cpu":
        return {"device": "none: a dry run on the CPU", "driver": "none", "cuda": "none", "versions": versions}
    p = torch.cuda.get_device_properties(0)
    return {
        "device": f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {p.multi_processor_count} multiprocessors",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "versions": versions,
    }


def available(cases: list[Any], device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The peers that are there, and why the others are not."""
    from gpu import peers
    from gpu.plan import LABELS

    found, missing = {}, {}
    for name in dict.fromkeys(peer for case in cases for peer in case.peers):
        try:
            found[name] = peers.make(name, device)
        except Exception as error:  # a package may fail at import in any way: no driver, another version
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"left out: {LABELS[name]}, {missing[name]}", flush=True)
    return found, missing


def measured_case(case: Any, peers: dict[str, Any], settings: Any) -> Iterator[Record]:
    """Every peer checked on a small instance, then all of them timed side by side."""
    import numpy as np
    from check import check
    from peers.face import NotOfferedError

    from gpu.timing import Visited

    rng = np.random.default_rng(1)
    x = [rng.standard_normal(shape, np.float32) for shape in case.shapes]
    dx = [rng.standard_normal(shape, np.float32) for shape in case.shapes]
    common = {"case": case.title, "bytes": case.bytes, "elements": case.params, "leaves": len(case.shapes)}
    visited, checked = {}, {}
    for name in (n for n in case.peers if n in peers):
        try:
            checked[name] = check(peers[name], case)
            visited[name] = Visited(name, case, peers[name].build(case, x, dx), settings)
        except NotOfferedError as error:
            yield {**common, "peer": name, "missing": str(error)}
        except Exception as error:  # the others' figures are not lost for it
            yield {**common, "peer": name, "error": f"{type(error).__name__}: {error}"}
    for _ in range(settings.rounds):
        for name, peer in list(visited.items()):
            try:
                peer.visit()
            except Exception as error:
                del visited[name]
                yield {**common, "peer": name, "error": f"{type(error).__name__}: {error}"}
    for name, peer in visited.items():
        yield {**common, "peer": name, "how": case.how, "check": checked[name], **peer.record()}


def goals_of(cases: list[Any], records: list[Record]) -> list[Record]:
    """What was to be reached, and what was."""
    return [
        {"case": case.title, "goal": goal.text, "measured": round(goal.measured(times), 4), "met": goal.met(times)}
        for case in cases
        if (times := {r["peer"]: r["us"] for r in records if r["case"] == case.title and "us" in r})
        for goal in case.goals
        if all(peer in times for peer in goal.needs)
    ]


def written(data: Record, out: Path | None) -> None:
    """The results so far; what is there is whole even where the run ends here."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = out.with_suffix(".part")
    whole.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    whole.replace(out)


def measured(args: argparse.Namespace, device: str) -> Record:
    from gpu import plan
    from gpu.bits import LARGEST, check_bits
    from gpu.timing import Settings

    settings = Settings(
        device, args.rounds or (2 if args.dry_run else 9), args.budget or (1e-4 if args.dry_run else 0.1)
    )
    many = 10 if args.dry_run else plan.MANY
    sizes = [int(n) for n in args.sizes or [1000 if args.dry_run else plan.LARGE]]
    cases = list({c.title: c for n in sizes for c in plan.all_cases(n, many)}.values())
    if args.peers:
        cases = [dataclasses.replace(c, peers=tuple(p for p in c.peers if p in args.peers)) for c in cases]
    if args.only:
        cases = [c for c in cases if any(text.lower() in c.title.lower() for text in args.only)]
        if not cases:
            raise SystemExit(f"bench/gpu: no case contains {' or '.join(args.only)}")
    start, facts = time.monotonic(), about(device)
    print(f"{facts['device']}; driver {facts['driver']}, CUDA {facts['cuda']}", flush=True)
    compared, other_bits = (0, []) if args.unchecked else check_bits(device, 1003 if args.dry_run else LARGEST)
    print(
        "\n".join([f"{compared} rules and dtypes compared with the CPU, wrong:", *(other_bits or ["none"])]), flush=True
    )
    peers, missing = available(cases, device)
    records: list[Record] = []
    data = {
        "date": datetime.date.today().isoformat(), "dry_run": args.dry_run, "partial": True, **facts,
        "compared_with_cpu": compared, "other_bits": other_bits, "missing_peers": missing,
        "method": {"rounds": settings.rounds, "budget_s": settings.budget}, "minutes": 0.0, "goals": [],
        "records": records,
    }  # fmt: skip
    out = args.out or (None if args.dry_run else HERE.parent / "results" / f"gpu-{data['date']}.json")
    left_out = 0
    for case in cases:
        if time.monotonic() - start > args.minutes * 60:
            print(f"left out: {case.title}, {args.minutes:g} minutes are over", flush=True)
            left_out += 1
            continue
        print(case.title, flush=True)
        for record in measured_case(case, peers, settings):
            figure = f"{record['us']:>12,.1f} µs" if "us" in record else record.get("missing") or record["error"]
            print(f"    {plan.LABELS[record['peer']]:16}{figure}", flush=True)
            records.append(record)
        gc.collect()
        data["minutes"] = round((time.monotonic() - start) / 60, 1)
        data["goals"] = goals_of(cases, records)
        written(data, out)
    data["partial"] = bool(args.only or args.peers or args.unchecked or left_out or other_bits)
    written(data, out)
    if out is not None:
        print(f"results: {out}")
    return data


def main() -> int:
    args = arguments()
    data = measured(args, device_of(args))
    from gpu.report import table

    print(table(data))
    wrong = [f"{r['case']}, {r['peer']}: {r['error']}" for r in data["records"] if "error" in r]
    for text in (*data["other_bits"], *wrong):
        print(f"bench/gpu: {text}", file=sys.stderr)
    return 1 if wrong or data["other_bits"] else 0


if __name__ == "__main__":
    sys.exit(main())
