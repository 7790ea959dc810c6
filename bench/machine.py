"""What machine and which versions the figures are from, in general words."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def processors() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    name = fields.get("model name", platform.machine())
    family = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    return name + family


def caches() -> list[str]:
    """Of the first processor: "L2 1 MiB"."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind == "Instruction":
            continue
        kib = int(size.removesuffix("K")) if size.endswith("K") else 0
        text = f"{kib // 1024} MiB" if kib >= 1024 and kib % 1024 == 0 else f"{kib} KiB"
        shared = (index / "shared_cpu_list").read_text().strip()
        found.append(f"L{level}{'d' if kind == 'Data' else ''} {text}" + ("" if shared == "0" else " shared"))
    return found


def memory(field: str = "MemTotal") -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next((line.split()[1] for line in lines if line.startswith(field + ":")), "0"))


def numa_nodes() -> int:
    return max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))))


def compiler() -> str:
    try:
        run = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.splitlines()[0]


def description() -> dict[str, Any]:
    import optimisers as opt

    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": cpu_model(),
        "processors": processors(),
        "virtual": "hypervisor" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""),
        "caches": caches(),
        "memory_gib": round(memory() / 2**30, 1),
        "numa_nodes": numa_nodes(),
        "huge_pages": huge.read_text().split("[")[1].split("]")[0] if huge.exists() else "unknown",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "compiler": compiler(),
        "isa": opt.doctor().isa,
    }


def cpu_times() -> tuple[int, int]:
    """Ticks that other guests of the host took from this machine, and all ticks."""
    try:
        ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[7], sum(ticks)


def stolen(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Per cent."""
    return round(100 * (after[0] - before[0]) / max(1, after[1] - before[1]), 2)
