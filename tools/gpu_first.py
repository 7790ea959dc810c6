"""Runs all that needs a GPU, step by step, whatever becomes of a step, and writes one page about it.

    python tools/gpu_first.py --out FOLDER              see tools/gpu_first.sh
    python tools/gpu_first.py --out FOLDER --dry-run    on the emulation that OPTIMISERS_CUDA_LIBRARY names

What is about right and wrong runs side by side, since the GPU has room for it; what is timed runs alone. Each step has
a time after which it is ended, and a log. What a machine lacks (compute-sanitizer, ncu) is left out by name.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PY = sys.executable
# What is asked of ncu, and how the table says it.
METRICS = {
    "gpu__time_duration.sum": "ns",
    "dram__bytes_read.sum": "read",
    "dram__bytes_write.sum": "written",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "% of memory's peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "% of warps",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "blocks",
    "smsp__inst_executed.sum": "instructions",
}


@dataclass
class Step:
    name: str
    command: list[str]
    seconds: float
    together: bool = True
    needs: str = ""  # a program
    dry: bool = False  # runs on the emulation too


@dataclass
class Result:
    name: str
    status: str  # "ok", "failed", "ended", "left out"
    seconds: float = 0.0
    said: str = ""
    log: str = ""


def steps(out: Path, dry: bool) -> list[Step]:
    bench, gpu = ROOT / "bench" / "gpu", ROOT / "tests" / "python" / "device"
    smoke = [PY, str(bench / "smoke.py")]
    bare = [*smoke, "--without-torch"]

    def sanitizer(tool: str, *options: str) -> list[str]:
        return ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *options, *bare]

    tests = [
        Step(
            f"tests: {file.stem}",
            [PY, str(ROOT / "tools" / "gpu_tests.py"), "--file", file.name, "--patience", "40", "-q", "--tb=short"],
            150,
        )
        for file in sorted(gpu.glob("test_gpu*.py"))
    ]  # fmt: skip
    speed = [PY, str(bench / "run.py"), "--out", str(out / "bench.json")]
    if dry:
        speed += ["--dry-run", "--peers", "copy", "ours", "torch_fused", "torch_foreach"]
    else:
        speed += ["--sizes", "1e6", "1e7", "1e8", "--unchecked", "--rounds", "7", "--budget", "0.02"]
        speed += ["--minutes", "1.5", "--peers", "copy", "ours", "torch_fused", "torch_foreach"]
    ncu = ["ncu", "--clock-control", "none", "--csv", "--page", "raw", "--kernel-name-base", "demangled"]
    ncu += ["--kernel-name", "regex:optimisers", "--metrics", ",".join(METRICS), PY, str(bench / "profiled.py")]
    return [
        Step("smoke", smoke, 40, together=False, dry=True),
        Step("memcheck", sanitizer("memcheck", "--leak-check", "no"), 100, needs="compute-sanitizer"),
        Step("racecheck", sanitizer("racecheck"), 100, needs="compute-sanitizer"),
        Step("initcheck", sanitizer("initcheck"), 100, needs="compute-sanitizer"),
        Step("synccheck", sanitizer("synccheck"), 100, needs="compute-sanitizer"),
        Step("bits", [PY, str(bench / "bits.py")], 100),
        *tests,
        Step("speed", speed, 130, together=False, dry=True),
        Step("ncu", ncu, 60, together=False, needs="ncu"),
    ]


def run(step: Step, out: Path, environment: dict[str, str]) -> Result:
    if step.needs and not shutil.which(step.needs):
        return Result(step.name, "left out", said=f"{step.needs} is not in PATH")
    log = out / "logs" / (re.sub(r"\W+", "_", step.name) + ".log")
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            step.command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(step.seconds)
            status, said = ("ok", "") if code == 0 else ("failed", f"status {code}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status, said = "ended", f"after {step.seconds:g} s"
    text = log.read_text(errors="replace")
    result = Result(step.name, status, round(time.monotonic() - start, 1), said, text)
    summary = " | ".join(last(text))
    result.said = f"{said}; {summary}" if said else summary
    print(f"{result.status:9}{result.name:28}{result.seconds:6.1f} s  {result.said[:300]}", flush=True)
    return result


ENDS = r"smoke:|bits:|FAILED|gpu_tests:|E  |=+ .*(?:passed|failed|error)|=+ (?:ERROR|RACECHECK) SUMMARY"
SUMMARY = re.compile(rf"^(?:{ENDS}|.*\d+ (?:passed|failed).* in [0-9.]+s)")


def last(text: str) -> list[str]:
    """The lines that say what came of it; the last one where none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line for line in lines if SUMMARY.match(line)][-12:] or lines[-1:]


def profile(text: str) -> list[str]:
    """Of what ncu printed, a row for the last launch of each kernel and size that took the longer."""
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if len(rows) < 3 or "Kernel Name" not in rows[0]:
        return []
    head = rows[0]
    found = {}
    for row in rows[2:]:
        cell = dict(zip(head, row, strict=False))
        name = re.sub(r"void kernel<(.*)>\(Table\)", r"\1", cell["Kernel Name"])
        found[name, cell["launch__grid_size"]] = [cell.get(metric, "?") for metric in METRICS]
    lines = ["  ".join([f"{'kernel':52}", *(f"{title:>12}" for title in METRICS.values())])]
    return lines + ["  ".join([f"{name:52}", *(f"{v:>12}" for v in cells)]) for (name, _), cells in found.items()]


def machine(environment: dict[str, str]) -> dict[str, object]:
    code = (
        "import json, optimisers as o; d = o.doctor(); print(d, file=__import__('sys').stderr);"
        "print(json.dumps({'version': d.version, 'cuda': d.cuda, 'why_not': d.cuda_reason}))"
    )
    found: dict[str, object] = {"python": platform.python_version()}
    try:
        done = subprocess.run([PY, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
        print(done.stderr, flush=True)
        found |= json.loads(done.stdout) if done.returncode == 0 else {"import": done.stderr[-2000:]}
    except subprocess.TimeoutExpired:
        found["import"] = "took more than 60 s"
    for key, query in (("gpu", "name"), ("driver", "driver_version"), ("memory", "memory.total")):
        try:
            command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
            found[key] = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            found[key] = "unknown"
    return found


def install(out: Path) -> None:
    """The wheel of the bundle into OUT/site, by no network and beside nothing else."""
    wheels = sorted(ROOT.glob("*.whl"))
    if not wheels:
        print("no wheel beside this script: the package that is installed is the one looked at", flush=True)
        return
    command = [PY, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    subprocess.run([*command, "--target", str(out / "site"), *map(str, wheels)], check=True)


def page(facts: dict[str, object], results: list[Result], seconds: float) -> str:
    lines = [
        "The run of all that needs a GPU",
        "",
        *(f"{k}: {v}" for k, v in facts.items()),
        f"seconds: {seconds:.0f}",
        "",
    ]
    for r in results:
        lines.append(f"{r.status:9}{r.name:28}{r.seconds:6.1f} s")
        if r.status != "ok" or r.name in ("smoke", "bits") or r.name.startswith("tests"):
            lines += [f"             {line[:200]}" for line in r.said.split(" | ")]
        if r.name == "speed":
            lines += [line for line in r.log.splitlines() if line.startswith("|")]
        if r.name == "ncu":
            lines += profile(r.log)
    return "\n".join(lines) + "\n"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dry-run", action="store_true")
    p.add_argument("--only", nargs="+", metavar="TEXT", help="steps whose name begins with one of these")
    args = p.parse_args()
    out = args.out.resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    install(out)
    paths = [str(out / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    facts = machine(environment)
    print("\n".join(f"{k}: {v}" for k, v in facts.items()), flush=True)
    chosen = [s for s in steps(out, args.dry_run) if s.dry or not args.dry_run]
    if args.only:
        chosen = [s for s in chosen if any(s.name.startswith(text) for text in args.only)]
    results: list[Result] = []

    def finish(result: Result) -> None:
        results.append(result)
        text = page(facts, results, time.monotonic() - start)
        (out / "page.txt").write_text(text)
        step_records = [{"name": r.name, "status": r.status, "seconds": r.seconds, "said": r.said} for r in results]
        seconds = round(time.monotonic() - start, 1)
        record = {**facts, "dry_run": args.dry_run, "seconds": seconds, "steps": step_records}
        (out / "results.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        with (out / "logs.txt").open("a") as file:
            file.write(f"\n==== {result.name}: {result.status}, {result.seconds} s\n{result.log}\n")

    (out / "logs.txt").write_text("")

    def work(step: Step) -> Result:
        return run(step, out, environment)

    alone_first = [s for s in chosen if s.name == "smoke"]
    for step in alone_first:
        finish(work(step))
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, [s for s in chosen if s.together]):
            finish(result)
    for step in chosen:
        if not step.together and step not in alone_first:
            finish(work(step))
    shutil.rmtree(out / "logs")
    shutil.rmtree(out / "site", ignore_errors=True)
    print((out / "page.txt").read_text())
    return 1 if any(r.status in ("failed", "ended") for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
