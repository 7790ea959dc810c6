"""The scaling note: how cost grows with arrays, elements and threads. Figures where measured, reasons beyond."""

from __future__ import annotations

import tables
from cases import Case
from results import Results

BEYOND = """\
**More threads than here.** The elements of a call are dealt out to the threads in equal, contiguous shares. While the
arrays fit the caches, the work is arithmetic and gets faster almost in proportion to the threads, once there is
enough of it to pay for waking them; smaller calls stay on one thread. Beyond the caches the memory sets the pace: a
step cannot take less than its bytes divided by the machine's bandwidth. A few threads reach that on a desktop, a
server with many memory channels needs more of them; from there on further threads change nothing, here or in any
other implementation. The memory limit above, run with as many threads, says where that point lies.

**Several NUMA nodes.** State arrays are mapped, but not touched, when they are made. Whichever thread makes the first
update of a part touches its pages first, so the system places them on that thread's node, and calls over the same
leaves give the same part to the same worker. Slots that do not start at zero (AMSGrad, AdaGrad, Rprop) and master
copies are written at setup, by the same threads in the same parts; a copied state's slots in about the same. Outside
of this: parameters and gradients lie where the program first touched them; and workers are not bound to processors.
Hence, on such a machine, either one process per node (`numactl --cpunodebind=0 --membind=0`), or pages spread over all
nodes (`numactl --interleave=all`). This is reasoned, not measured: this machine has {nodes}.

**More elements.** Sizes and offsets have 64 bits. Past the last cache the cost is proportional to the elements, as the
table shows, and no step allocates anything in proportion to them. The limit is the memory for parameters, gradients
and state: 16 bytes an element for Adam in float32."""


def leaf_growth(results: Results) -> str:
    found = [c for c in results.cases if c.group == "scaling" and c.title.endswith("× 64")]
    rows = []
    for case in found:
        ours, bare = results.get(case, "ours", 1), results.get(case, "bare", 1)
        if ours and bare:
            count = len(case.shapes)
            each = 1e3 * (ours["us"] - bare["us"]) / count
            times = [tables.microseconds(r["us"]) for r in (ours, bare)]
            rows.append([f"{count:,}", *times, f"{each:,.0f} ns"])
    if not rows:
        return ""
    head = ["arrays of 64", "optimisers", "memory limit", "overhead an array"]
    text = "**Arrays.** Nested dicts of NumPy arrays of 64 elements, Adam, one thread:"
    return f"{text}\n\n{tables.markdown(head, rows)}"


def element_growth(results: Results) -> str:
    found = [c for c in results.cases if len(c.shapes) == 1 and (c.group == "flat" or c.title == "10⁹ elements")]
    rows = []
    for case in found:
        for threads in results.threads(case):
            ours, over = results.get(case, "ours", threads), results.ratio(case, "ours", threads, "bare")
            if ours and over:
                rate = case.bytes * case.params / ours["us"] * 1e-3
                cells = [case.title, str(threads), tables.microseconds(ours["us"]), f"{ours['ns_per_element']:.3f} ns"]
                rows.append([*cells, f"{rate:,.1f} GB/s", tables.ratio(over)])
    if not rows:
        return ""
    head = ["array", "threads", "a step", "an element", "moved", "× memory limit"]
    return f"**Elements.** One float32 array, Adam, 28 bytes an element:\n\n{tables.markdown(head, rows)}"


def thread_growth(results: Results) -> str:
    found = [c for c in results.cases if c.title.startswith("threads, ")]
    rows = []
    for case in found:
        for threads in results.threads(case):
            gain, limit = (speedup(results, case, peer, threads) for peer in ("ours", "bare"))
            if gain and limit:
                rows.append([case.title.removeprefix("threads, "), str(threads), f"{gain:.2f} ×", f"{limit:.2f} ×"])
    if not rows:
        return ""
    text = "**Threads.** How many times faster than with one thread, and what the memory limit itself gains:"
    return f"{text}\n\n{tables.markdown(['array', 'threads', 'optimisers', 'memory limit'], rows)}"


def speedup(results: Results, case: Case, peer: str, threads: int) -> float | None:
    one, many = results.get(case, peer, 1), results.get(case, peer, threads)
    return one["us"] / many["us"] if one and many else None


def scaling(results: Results) -> str:
    nodes = results.data["machine"]["numa_nodes"]
    beyond = BEYOND.format(nodes="one node" if nodes == 1 else f"{nodes} nodes, and pages lay where they came to lie")
    parts = [leaf_growth(results), element_growth(results), thread_growth(results), beyond]
    return "\n\n".join(filter(None, parts))
