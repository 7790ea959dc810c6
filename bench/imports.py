"""How long `import optimisers` takes beyond `import numpy`, in fresh interpreters, and how large the package is."""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAM = """
import time
a = time.perf_counter()
import numpy
b = time.perf_counter()
try:
    import {name}
except ImportError:
    raise SystemExit(3)
print(b - a, time.perf_counter() - b)
"""


def seconds(name: str) -> tuple[float, float] | None:
    run = subprocess.run([sys.executable, "-c", PROGRAM.format(name=name)], capture_output=True, text=True)
    if run.returncode != 0:
        return None
    numpy, other = map(float, run.stdout.split())
    return numpy, other


def installed_bytes() -> int:
    spec = find_spec("optimisers")
    assert spec is not None
    assert spec.origin is not None
    files = Path(spec.origin).parent.rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc")


def measure(rounds: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Medians in milliseconds; packages that are not installed are left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        seconds(name)  # the files are in the page cache from here on
    for _ in range(rounds):
        for name in names:
            times = seconds(name)
            if times is not None:
                found.setdefault(name, []).append(times)
    numpy = [n for times in found.values() for n, _ in times]
    beyond = {name: round(1e3 * statistics.median(t for _, t in times), 1) for name, times in found.items()}
    return {
        "numpy_ms": round(1e3 * statistics.median(numpy), 1) if numpy else None,
        "beyond_numpy_ms": beyond,
        "installed_bytes": installed_bytes(),
    }
