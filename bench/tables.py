"""Figures as Markdown tables."""

from __future__ import annotations

from cases import GROUPS, Case
from peers import LABELS
from results import Record, Results

COLUMNS = ("bare", "hand", "fused", "ours", "ours_torch", "torch_fused", "torch_foreach", "optax", "numpy")


MOST_EXTRA_MEMORY = 10**6  # bytes
MOST_IMPORT_MS = 15


def microseconds(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.2f} s"
    if us >= 1e4:
        return f"{us / 1e3:.1f} ms"
    if us >= 1e3:
        return f"{us / 1e3:.2f} ms"
    return f"{us:.0f} µs" if us >= 100 else f"{us:.1f} µs" if us >= 10 else f"{us:.2f} µs"


def ratio(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(count: float) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count:.0f} bytes"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def own_time(record: Record) -> str:
    middle = f"{microseconds(record['q1'])} to {microseconds(record['q3'])}"
    return f"**{microseconds(record['us'])}** ({middle})"


def row(results: Results, case: Case, threads: int, columns: list[str]) -> list[str] | None:
    ours = results.get(case, "ours", threads)
    if ours is None:
        return None
    cells = [case.title, str(threads), str(case.bytes)]
    for name in columns:
        cells.append(own_time(ours) if name == "ours" else ratio(results.ratio(case, name, threads)))
    return cells


def group_table(results: Results, group: str) -> str:
    cases = [case for case in results.cases if case.group == group]
    present = {r["peer"] for r in results.records if r["group"] == group}
    columns = [name for name in COLUMNS if name in present]
    rows = [r for case in cases for t in results.threads(case) if (r := row(results, case, t, columns))]
    if not rows:
        return ""
    head = ["case", "threads", "B", *(LABELS[name] for name in columns)]
    absent = missing(results, group)
    return f"### {GROUPS[group]}\n\n{markdown(head, rows)}\n" + (f"\n{absent}\n" if absent else "")


def missing(results: Results, group: str) -> str:
    """Our own calls that could not be measured, with the reason; notes on variants of the peers."""
    lines = []
    for r in results.data["records"]:
        if r["group"] != group:
            continue
        problem = r.get("error") or (r.get("missing") if r["peer"] in ("ours", "ours_torch") else "")
        if problem:
            lines.append(f"{r['title']}, {LABELS[r['peer']]}: not measured, {problem}.")
        elif r.get("note"):
            lines.append(f"{r['title'].rpartition(',')[0] or r['title']}, {LABELS[r['peer']]}: {r['note']}.")
    return "  \n".join(dict.fromkeys(lines))


def all_groups(results: Results) -> str:
    shown = [group for group in GROUPS if group != "scaling"]
    return "\n".join(filter(None, (group_table(results, group) for group in shown)))


def goal_rows(results: Results) -> list[list[str]]:
    rows = []
    for o in results.outcomes():
        ours = "" if o.goal.ours == "ours" else f" ({LABELS[o.goal.ours]})"
        got = f"{o.measured:.2f}" if o.measured >= 0.1 else f"{o.measured:.3f}"
        place = f"{GROUPS[o.case.group].split(',')[0]}: {o.case.title}{ours}"
        rows.append([place, str(o.threads), LABELS[o.goal.peer], f"≤ {o.goal.ratio:.3g}", got, o.verdict])
    return rows


def further_goals(results: Results) -> list[list[str]]:
    """Those that are not about two peers in one row."""
    rows = []
    for case in results.cases:
        times = {t: r for t in results.threads(case) if (r := results.get(case, "ours", t))}
        if case.title == "10⁴ elements" and len(times) > 1:
            most, noise = max(times), max(results.row_noise(case.id, t) for t in times)
            slower = times[most]["us"] / times[1]["us"]
            verdict = "met" if slower <= 1 else "within the noise" if slower <= 1 + noise else "**missed**"
            rows.append([f"One float32 array: {case.title}", str(most), "one thread", "≤ 1", f"{slower:.2f}", verdict])
    for r in results.data["extra_memory"]:
        if r["peer"] == "ours" and "bytes" in r:
            verdict = "met" if r["bytes"] < MOST_EXTRA_MEMORY else "**missed**"
            rows.append([f"Extra memory of a step: {r['title']}", "1", "–", "< 1 MB", size(r["bytes"]), verdict])
    own = results.data["imports"]["beyond_numpy_ms"].get("optimisers")
    if own is not None:
        verdict = "met" if own <= MOST_IMPORT_MS else "**missed**"
        rows.append(["`import optimisers`", "1", "import numpy", f"+ {MOST_IMPORT_MS} ms", f"+ {own} ms", verdict])
    return rows


def goals(results: Results) -> str:
    rows = goal_rows(results) + further_goals(results)
    verdicts = [r[-1].strip("*") for r in rows]
    counts = [f"{verdicts.count(v)} {v}" for v in ("met", "within the noise", "missed") if v in verdicts]
    head = ["case", "threads", "beside", "goal", "measured", ""]
    return f"Of {len(rows)}: {', '.join(counts)}.\n\n{markdown(head, rows)}"


def memory(results: Results) -> str:
    found = [r for r in results.data["extra_memory"] if "bytes" in r]
    if not found:
        return "Extra memory was not measured in this run."
    names = [name for name in COLUMNS if any(r["peer"] == name for r in found)]
    by_key = {(r["title"], r["peer"]): r["bytes"] for r in found}
    titles = dict.fromkeys(r["title"] for r in found)
    rows = [[t, *(size(by_key[t, n]) if (t, n) in by_key else "–" for n in names)] for t in titles]
    text = "By how much one step lifts the peak of the process's resident memory, parameters and state aside:"
    return f"{text}\n\n{markdown(['case', *(LABELS[n] for n in names)], rows)}"


def imports(results: Results) -> str:
    data = results.data["imports"]
    beyond = data["beyond_numpy_ms"]
    others = "".join(f"; `import {name}` {ms:,.0f} ms" for name, ms in beyond.items() if name != "optimisers")
    own = beyond.get("optimisers")
    return (
        f"`import numpy` takes {data['numpy_ms']} ms, `import optimisers` {own} ms beyond that{others}. "
        f"The installed package has {size(data['installed_bytes'])}."
    )
