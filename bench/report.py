"""Writes docs/performance.md from a results file and the template."""

from __future__ import annotations

from pathlib import Path
from string import Template

import draw
import tables
from cases import GROUPS
from gpu.report import newest
from gpu.report import section as gpu_section
from peers import LABELS, ONE_THREAD
from results import Record, Results
from scaling import scaling

TEMPLATE = Path(__file__).with_name("performance.template.md")
EQUAL = 0.05  # ratios nearer to 1 than this, or than the noise, are no difference
IN_CACHE = 2_000_000  # elements up to which Adam's arrays fit the last cache of most machines


def page(data: Record, images: str, drawn: list[str]) -> str:
    results = Results(data)
    texts = {
        "warning": warning(data),
        "summary": summary(results),
        "findings": findings(results),
        "size_picture": picture(draw.SIZE_FILE, "Time of one Adam step against size", images, drawn),
        "peers_picture": picture(draw.PEERS_FILE, "The others' time as a multiple of this library's", images, drawn),
        "tables": tables.all_groups(results).strip(),
        "goals": tables.goals(results),
        "memory": tables.memory(results),
        "imports": tables.imports(results),
        "scaling": scaling(results),
        "gpu": gpu_section(newest()),
        "rounds": str(data["method"]["rounds"]),
        "budget": f"{data['method']['budget_s']:g}",
        "noise": noise(results),
        "machine": machine(data),
        "checks": checks(data),
    }
    text = Template(TEMPLATE.read_text()).substitute(texts)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def warning(data: Record) -> str:
    if not data["quick"] and not data["partial"]:
        return ""
    return "**These figures are from a shortened run: few cases, few rounds.**\n\n"


def picture(name: str, text: str, images: str, drawn: list[str]) -> str:
    return f"![{text}]({images}/{name})\n" if name in drawn else ""


def plain(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{tables.ratio(low)} times" if high < 1.15 * low else f"{tables.ratio(low)} to {tables.ratio(high)} times"


def summary(results: Results) -> str:
    """One paragraph of the broad picture, in figures of this run."""
    own = {c.id: r for c in results.cases if (r := results.ratio(c, "ours", 1, "bare"))}
    large = [own[c.id] for c in results.cases if c.id in own and c.params >= 10**7 and c.dtype == "float32"]
    lines = []
    if large:
        lines.append(
            f"From 10⁷ elements on, one float32 step takes {plain(large)} as long as moving its memory alone "
            f"({len(large)} cases, one thread). No library can be much faster there."
        )
    many = next((c for c in results.cases if c.title == "1,000 × 256"), None)
    if many is not None:
        best, ours = results.best_peer(many, 1), results.get(many, "ours", 1)
        if best and ours:
            lines.append(
                f"A model of 1,000 small arrays takes {tables.microseconds(ours['us'])} a step; the fastest other "
                f"library, {LABELS[best[0]]}, takes {tables.ratio(best[1])} times as long."
            )
    return " ".join(lines)


def findings(results: Results) -> str:
    """Where this library is faster, where it only matches the best of the others, and where it loses."""
    kinds: dict[str, list[str]] = {"faster": [], "equal": [], "slower": []}
    for case in results.cases:
        for threads in results.threads(case):
            best = results.best_peer(case, threads)
            if best is None:
                continue
            peer, value = best
            band = max(EQUAL, results.row_noise(case.id, threads))
            kind = "faster" if value > 1 + band else "slower" if value < 1 - band else "equal"
            where = f"{GROUPS[case.group].split(',')[0].lower()}: {case.title}"
            kinds[kind].append(f"{where}, {threads} thread{'s' * (threads > 1)} ({LABELS[peer]}, {value:.2f})")
    total = sum(map(len, kinds.values()))
    if total == 0:
        return "No other library was measured in this run."
    text = [
        f"Beside the fastest of the others, case by case: faster in {len(kinds['faster'])} of {total}, "
        f"equal within the noise in {len(kinds['equal'])}, slower in {len(kinds['slower'])}."
    ]
    for kind, head in (("equal", "**Only equal**"), ("slower", "**Slower**")):
        if kinds[kind]:
            items = "\n".join(f"- {item}" for item in kinds[kind])
            text.append(f"{head} (the fastest other, and its time as a multiple of ours):\n\n{items}")
    return "\n\n".join(text)


def noise(results: Results) -> str:
    parts = []
    for text, least, most in (
        (f"up to {IN_CACHE // 10**6} million elements", 0, IN_CACHE),
        ("for more", IN_CACHE, 10**12),
    ):
        middle, high = results.noise(least, most)
        if high:
            parts.append(f"±{middle:.1f} % {text} (in nine cases of ten below ±{high:.1f} %)")
    steal = results.data["steal_percent"]
    text = f"Half the distance between the quartiles of the rounds is typically {', '.join(parts)}." if parts else ""
    return f"{text} The host took {steal:g} % of the processors' time away during the run."


def machine(data: Record) -> str:
    m = data["machine"]
    kind = "virtual machine" if m["virtual"] else "machine"
    caches = ", ".join(m["caches"]) or "caches unknown"
    nodes = "" if m["numa_nodes"] == 1 else f", {m['numa_nodes']} NUMA nodes"
    lines = [
        f"{m['processor']}, {m['processors']} processors of a {kind}; {caches}; {m['memory_gib']:g} GiB{nodes}",
        f"{m['system']}, transparent huge pages: {m['huge_pages']}",
        f"kernels for {m['isa']}; yardsticks compiled by {m['compiler']}",
        f"Python {m['python']}; " + ", ".join(f"{name} {v}" for name, v in data["versions"].items()),
        f"{data['date']}, {data['minutes']:g} minutes, load before the run "
        + " ".join(f"{x:g}" for x in data["load_before"]),
    ]
    for peer, why in data["missing_peers"].items():
        lines.append(f"left out: {LABELS[peer]}, {why}")
    return "\n".join(f"- {line}" for line in lines)


def checks(data: Record) -> str:
    kinds = [r.get("check") for r in data["records"] if "us" in r]
    by_reference, finite = kinds.count("reference"), kinds.count("finite")
    alone = ", ".join(LABELS[name] for name in ONE_THREAD)
    return (
        f"{by_reference} measurements passed the check against the reference, {finite} run a variant of the rule. "
        f"{alone} uses one thread only and is left out where there are more."
    )
