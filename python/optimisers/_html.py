"""States in a notebook: the tree to be folded, a row a leaf, each rule once."""

from __future__ import annotations

from html import escape

from . import _core
from ._shown import Legend, count_text, row_of, size_text

SHOWN_LEAVES = 1000  # further ones are counted
OPEN_LEAVES = 30  # containers with more are folded at first
DEEPEST = 24  # what is nested deeper stands in its leaves' paths only

_STYLE = """<style>
.optimisers-state {font-family: var(--jp-code-font-family, monospace); font-size: 0.9em; line-height: 1.5}
.optimisers-state details {margin-left: 1.2em}
.optimisers-state > details {margin-left: 0}
.optimisers-state summary {cursor: pointer}
.optimisers-state table {margin: 0 0 0 1.2em; border-collapse: collapse; width: auto}
.optimisers-state td {text-align: left; padding: 0 1.5em 0 0; border: none; white-space: nowrap}
.optimisers-state td.number {text-align: right}
.optimisers-state .dim {opacity: 0.65}
.optimisers-state pre {margin: 0.4em 0 0 0}
</style>"""


def tree_html(core: _core.State, node: int) -> str:
    """The part of a state tree at a node."""
    return _framed(_Writer(core).whole(node, "StateTree"))


def leaves_html(core: _core.State, leaves: list[int], title: str) -> str:
    """Leaves without a tree around them."""
    writer = _Writer(core)
    rows = writer.table([(core.leaf_node(leaf), leaf) for leaf in leaves[:SHOWN_LEAVES]])
    return _framed(writer.details(title, leaves, rows + writer.missing(len(leaves)), True) + writer.rules())


def _framed(body: str) -> str:
    text = f'{_STYLE}<div class="optimisers-state">{body}</div>'
    return text.encode("utf-8", "backslashreplace").decode()  # names from a file system need not be valid


def _key_text(key: object) -> str:
    try:
        return str(key)
    except Exception:  # whatever somebody's __str__ raises
        return object.__repr__(key)


class _Writer:
    def __init__(self, core: _core.State) -> None:
        self.core, self.legend, self.left = core, Legend(always=True), SHOWN_LEAVES

    def whole(self, node: int, title: str) -> str:
        leaves = self.core.leaves(node)
        body = self.children(node, 0)
        return self.details(title, leaves, body + self.missing(len(leaves)), True) + self.rules()

    def details(self, title: str, leaves: list[int], body: str, is_open: bool) -> str:
        about = f"{count_text(len(leaves))}, {size_text(self.core, leaves)}"
        summary = f'<summary>{escape(title)} <span class="dim">{escape(about)}</span></summary>'
        return f"<details{' open' if is_open else ''}>{summary}{body}</details>"

    def children(self, node: int, depth: int) -> str:
        """The children of a container in order, leaves that follow one another as one table."""
        core, parts, rows = self.core, list[str](), list[tuple[int, int]]()
        for child in range(*core.children(node)):
            kind = core.kind(child)
            if self.left <= 0 or kind == "value":
                continue
            if kind == "array":
                rows.append((child, core.leaf(child)))
                self.left -= 1
                continue
            leaves = core.leaves(child)
            if not leaves:
                continue
            if depth == DEEPEST:
                rows += [(core.leaf_node(leaf), leaf) for leaf in leaves[: self.left]]
                self.left -= len(leaves)
                continue
            parts.append(self.table(rows))
            rows = []
            title = f"{_key_text(core.key(child))} ({kind})"
            parts.append(self.details(title, leaves, self.children(child, depth + 1), len(leaves) <= OPEN_LEAVES))
        return "".join(parts) + self.table(rows)

    def table(self, rows: list[tuple[int, int]]) -> str:
        return f"<table>{''.join(self.row(*row) for row in rows)}</table>" if rows else ""

    def row(self, node: int, leaf: int) -> str:
        _, shape, dtype, size, rule, *frozen = row_of(self.core, leaf, self.legend)
        first = self.core.leaf_node(leaf)
        tied = [f"tied to {self.core.path_text(first)}"] if node != first else []
        cells = [self.core.path_text(node) if node else "the model", shape, dtype]
        text = "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f'<td class="number">{escape(size)}</td>'
        return f'<tr>{text}<td class="dim">{escape(rule)}</td><td>{escape(", ".join(frozen + tied))}</td></tr>'

    def missing(self, total: int) -> str:
        return f'<div class="dim">{total - SHOWN_LEAVES} more leaves</div>' if total > SHOWN_LEAVES else ""

    def rules(self) -> str:
        return f"<pre>{escape(chr(10).join(self.legend.lines()))}</pre>" if self.legend.rules else ""
