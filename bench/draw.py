"""The two pictures: time of a step against size, and how many times longer the others take, case by case."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import LABELS
from results import Results

if TYPE_CHECKING:
    from cases import Case
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart with any colour vision; markers tell them apart in print.
STYLE: dict[str, dict[str, Any]] = {
    "bare": {"color": "0.45", "linestyle": "--", "marker": ""},
    "ours": {"color": "#0072B2", "linewidth": 2.6, "marker": "o", "zorder": 5},
    "torch_fused": {"color": "#D55E00", "marker": "s"},
    "torch_foreach": {"color": "#E69F00", "marker": "D"},
    "optax": {"color": "#009E73", "marker": "^"},
    "numpy": {"color": "#CC79A7", "marker": "v"},
}
RIVALS = ("torch_fused", "torch_foreach", "optax", "numpy")
RC = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
SIZE_FILE, PEERS_FILE = "step_time.png", "peers.png"
GAP = 0.085  # of the axes' height: labels stand at least so far apart


def spread(wanted: list[float], gap: float) -> list[float]:
    """Positions near the wanted ones, in their order, at least `gap` apart."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    for before, this in itertools.pairwise(order):
        placed[this] = max(placed[this], placed[before] + gap)
    shift = sum(p - w for p, w in zip(placed, wanted, strict=True)) / max(1, len(wanted))
    return [p - shift for p in placed]


def label_lines(axes: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Names at the left ends of the lines, where they are far apart, joined to them by thin lines."""
    to_axes = axes.transData + axes.transAxes.inverted()
    at = [to_axes.transform((x, y)) for _, x, y in ends]
    heights = spread([float(p[1]) for p in at], GAP)
    for (name, x, y), height in zip(ends, heights, strict=True):
        text = "memory limit" if name == "bare" else LABELS[name]
        axes.annotate(
            text, (x, y), (-0.025, height), xycoords="data", textcoords="axes fraction", ha="right", va="center",
            color=STYLE[name]["color"], fontweight="bold" if name == "ours" else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": STYLE[name]["color"], "linewidth": 0.6, "shrinkB": 4},
        )  # fmt: skip


def step_time(results: Results, path: Path) -> bool:
    """Time of an Adam step against the number of elements, one thread, the memory's limit shaded."""
    flat = [case for case in results.cases if case.group in ("flat", "tiny") and len(case.shapes) == 1]
    lines = {name: [(c.params, r["us"]) for c in flat if (r := results.get(c, name, 1))] for name in STYLE}
    lines = {name: points for name, points in lines.items() if points}
    if "ours" not in lines:
        return False
    plt = pyplot()
    with plt.rc_context(RC):
        figure, axes = plt.subplots(figsize=(8.6, 5.2))
        figure.subplots_adjust(left=0.2, right=0.97, top=0.87, bottom=0.12)
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), **({"linewidth": 1.5, "markersize": 5} | STYLE[name]))
        axes.set(xscale="log", yscale="log", xlabel="elements (float32)")
        if "bare" in lines:
            x, y = zip(*lines["bare"], strict=True)
            floor = min(y) / 2
            axes.fill_between(x, y, floor, color="0.93", zorder=0, linewidth=0)
            axes.set_ylim(bottom=floor)
            axes.text(0.97, 0.06, "faster than the memory allows", transform=axes.transAxes, ha="right", color="0.45")
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.spines["left"].set_visible(False)
        figure.subplots_adjust(left=0.17, right=0.9)
        axes.yaxis.set_major_formatter(lambda us, _: time_text(us))
        axes.minorticks_off()
        axes.grid(axis="y", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        label_lines(axes, [(name, *points[0]) for name, points in lines.items()])
        title(figure, "Time of one Adam step, one thread", "lower is better; both axes logarithmic")
        save(figure, path)
    return True


def chosen_bars(results: Results) -> list[tuple[str, Case, int]]:
    """(label, case, threads) of the bars: a handful that stand for all."""
    wanted = (
        ("10 elements", "flat: 10 elements", 1), ("10⁴ elements", "flat: 10⁴ elements", 1),
        ("10⁶ elements", "flat: 10⁶ elements", 1), ("10⁸ elements", "flat: 10⁸ elements", 1),
        ("1,000 arrays of 256", "leaves: 1,000 × 256", 1), ("ResNet-18, 62 arrays", "leaves: ResNet-18 (62)", 1),
        ("GPT-2, 148 arrays", "leaves: GPT-2 (148)", 1),
        ("clip by global norm,\ndecay, Adam; 10⁷", "chain: global clip, decay, Adam, 10⁷", 1),
        ("AdaBelief, 10⁷", "rule: AdaBelief", 1), ("Momentum, 10⁷", "rule: Momentum", 1),
        ("bfloat16 with float32\nmaster copy, 10⁷", "half: bfloat16 x and dx, float32 master copy, 10⁷", 1),
        ("test vector", "tiny: vector", 1), ("test tree", "tiny: tree", 1),
    )  # fmt: skip
    known = {case.id: case for case in results.cases}
    return [(label, known[i], t) for label, i, t in wanted if i in known and results.best_peer(known[i], t)]


def peers(results: Results, path: Path) -> bool:
    """How many times as long as this library each peer takes; bars to the right: the library is faster."""
    bars = chosen_bars(results)
    if not bars:
        return False
    plt = pyplot()
    with plt.rc_context(RC):
        rows = [(label, [(p, r) for p in RIVALS if (r := results.ratio(c, p, t))]) for label, c, t in bars]
        height = sum(len(values) + 1 for _, values in rows)
        figure, axes = plt.subplots(figsize=(8.6, 1.5 + 0.21 * height), layout="constrained")
        y, ticks, seen = 0.0, [], set()
        for label, values in rows:
            ticks.append((y + (len(values) - 1) / 2, label))
            for peer, ratio in values:
                axes.barh(y, ratio - 1, left=1, height=0.82, color=STYLE[peer]["color"])
                axes.text(ratio * 1.06 if ratio >= 1 else 1.06, y, ratio_text(ratio), va="center", fontsize=9)
                seen.add(peer)
                y += 1
            y += 1
        axes.axvline(1, color=STYLE["ours"]["color"], linewidth=2.2)
        axes.text(1, -1.1, "optimisers", color=STYLE["ours"]["color"], ha="center", va="bottom", fontweight="bold")
        axes.set(xscale="log", xlabel="times as long as optimisers (logarithmic)", ylim=(y - 1, -1))
        axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter("{x:g} ×")
        axes.set_xlim(min(0.7, *(r * 0.9 for _, v in rows for _, r in v)), max(r for _, v in rows for _, r in v) * 1.7)
        handles = [plt.Rectangle((0, 0), 1, 1, color=STYLE[p]["color"], label=LABELS[p]) for p in RIVALS if p in seen]
        axes.legend(handles=handles, frameon=False, loc="lower right")
        axes.set_title("One step, one thread: the others' time", loc="left", fontweight="bold", pad=24)
        save(figure, path)
    return True


def ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×" if ratio >= 1.95 else f"{ratio:.2f} ×"


def time_text(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1)):
        if us >= size:
            return f"{us / size:g} {unit}"
    return f"{us * 1e3:g} ns"


def title(figure: Any, text: str, below: str) -> None:
    figure.text(0.02, 0.95, text, fontweight="bold", fontsize=12)
    figure.text(0.02, 0.905, below, color="0.35")


def pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, metadata={"Software": None})
    pyplot().close(figure)


def all_pictures(data: dict[str, Any], folder: Path) -> list[str]:
    """The names of those that could be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("bench: matplotlib is not installed; no pictures")
        return []
    results = Results(data)
    drawn = [SIZE_FILE] if step_time(results, folder / SIZE_FILE) else []
    return drawn + ([PEERS_FILE] if peers(results, folder / PEERS_FILE) else [])
