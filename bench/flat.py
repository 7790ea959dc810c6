"""One vector: `python bench/flat.py [--rounds 7] [--largest 10000000] [--write]`.

First table: Adam on the Rosenbrock function of n elements in float64, time of an iteration without the function's own:
a loop written down in NumPy, `update_` in a loop, `minimize`, the method under SciPy's `minimize`, and L-BFGS-B. In
turns, each round all of them; the best of each counts. Second table: how many evaluations each needs to come to a
gradient of 1e-5, and what they took. `--write` puts both into docs/flat.md.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.optimize import minimize

import optimisers as opt

PAGE = Path(__file__).resolve().parents[1] / "docs" / "flat.md"
BEGIN, END = "<!-- flat:begin -->", "<!-- flat:end -->"
ETA = 0.01


def rosenbrock(x: Any) -> Any:
    """Value and gradient."""
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[:-1] = -400 * x[:-1] * a - 2 * b
    g[1:] += 200 * a
    return 100 * (a @ a) + b @ b, g


def by_hand(x0: Any, steps: int) -> Any:
    x, m, v = x0.copy(), np.zeros_like(x0), np.zeros_like(x0)
    for t in range(1, steps + 1):
        _, g = rosenbrock(x)
        m *= 0.9
        m += 0.1 * g
        v *= 0.999
        v += 0.001 * (g * g)
        root = math.sqrt(1 - 0.999**t)
        x -= (ETA * root / (1 - 0.9**t)) * m / (np.sqrt(v) + 1e-8 * root)
    return x


def by_update(x0: Any, steps: int) -> Any:
    x = x0.copy()
    state = opt.setup(opt.Adam(ETA), x)
    for _ in range(steps):
        opt.update_(state, x, rosenbrock(x)[1])
    return x


def by_minimize(x0: Any, steps: int) -> Any:
    return opt.minimize(rosenbrock, x0, opt.Adam(ETA), maxiter=steps - 1, gtol=0).last


def by_method(x0: Any, steps: int) -> Any:
    options = {"maxiter": steps - 1, "gtol": 0}
    return minimize(rosenbrock, x0, jac=True, method=opt.scipy_method(opt.Adam(ETA)), options=options).last


def by_lbfgs(x0: Any, steps: int) -> Any:
    options = {"maxfun": steps, "maxiter": steps, "ftol": 0, "gtol": 0}
    return minimize(rosenbrock, x0, jac=True, method="L-BFGS-B", options=options)


WAYS: dict[str, Callable[[Any, int], Any]] = {
    "NumPy by hand": by_hand,
    "`update_`": by_update,
    "`minimize`": by_minimize,
    "`scipy_method`": by_method,
    "L-BFGS-B": by_lbfgs,
}


def seconds(f: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


def an_iteration(n: int, rounds: int) -> list[float]:
    """Microseconds beside the function, each way."""
    steps = max(20, min(500, 20_000_000 // n))
    x0 = np.random.default_rng(n).uniform(-0.5, 0.5, n)
    best = dict.fromkeys(WAYS, math.inf)
    own = math.inf
    for _ in range(rounds):
        own = min(own, seconds(lambda: [rosenbrock(x0) for _ in range(steps)])[0] / steps)
        for name, way in WAYS.items():
            took, found = seconds(lambda way=way: way(x0, steps))
            done = found.nfev if name == "L-BFGS-B" else steps
            best[name] = min(best[name], took / done)
    return [(value - own) * 1e6 for value in best.values()]


def to_the_minimum(n: int) -> list[str]:
    """Evaluations and milliseconds to a gradient of 1e-5, or where it ended."""
    x0 = np.full(n, 0.0)
    adam = {"maxiter": 100_000, "gtol": 1e-5}
    cells = []
    for method, options in (
        ("L-BFGS-B", {"maxiter": 100_000, "maxfun": 100_000, "ftol": 0, "gtol": 1e-5}),
        (opt.scipy_method(opt.Adam(ETA)), adam),
        (opt.scipy_method(opt.Momentum(1e-4, 0.99)), adam),
    ):
        took, found = seconds(
            lambda m=method, o=options: minimize(rosenbrock, x0, jac=True, method=m, options=o)  # type: ignore[misc]
        )
        reached = "" if np.abs(found.jac).max() <= 1e-5 else f", at {np.abs(found.jac).max():.0e}"
        cells.append(f"{found.nfev:,}{reached}, {took * 1e3:.3g} ms")
    return cells


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest", type=int, default=10_000_000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    sizes = [n for n in (10, 1_000, 100_000, 10_000_000) if n <= given.largest]
    first = table(
        ["n", *(f"{name}, µs" for name in WAYS)],
        [[f"{n:,}", *(f"{value:.3g}" for value in an_iteration(n, given.rounds))] for n in sizes],
    )
    second = table(
        ["n", "L-BFGS-B", f"Adam({ETA})", "Momentum(1e-4, 0.99)"],
        [[f"{n:,}", *to_the_minimum(n)] for n in (10, 1_000, 100_000) if n <= given.largest],
    )
    said = (
        f"NumPy {np.__version__}, SciPy {scipy.__version__}, {os.cpu_count()} cores, {opt.doctor().isa}, load before "
        f"{os.getloadavg()[2]:.1f}; an iteration, without the function's own time:"
    )
    text = f"{said}\n\n{first}\n\nEvaluations and time to a gradient of 1e-5, from 0:\n\n{second}"
    print(text)
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
        print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
