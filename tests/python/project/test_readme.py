"""README.md: its code runs as printed, its table is current, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")

# A python block, and the text block with its output where one follows.
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```)?", PAGE, flags=re.M | re.S)


def test_readme_has_an_example() -> None:
    assert BLOCKS


@pytest.mark.parametrize(("source", "printed"), BLOCKS)
def test_example_runs_as_printed(source: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    if printed:
        assert output.getvalue() == printed


def test_table_of_rules_is_current() -> None:
    check = [sys.executable, str(ROOT / "tools" / "rules_table.py"), "--check"]
    run = subprocess.run(check, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def measured(case: str) -> dict[str, str]:
    """A row of docs/performance.md, on one thread, by column."""
    columns: list[str] = []
    for line in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "case":
            columns = cells
        elif cells[:2] == [case, "1"]:
            return dict(zip(columns, cells, strict=True))
    raise AssertionError(f"docs/performance.md has no case {case!r}")


def test_figures_of_speed_are_those_of_the_page() -> None:
    one = [measured(f"{n} elements") for n in ("10⁴", "10⁶", "10⁸")]
    many, chain = measured("1,000 × 256"), measured("global clip, decay, Adam, 10⁷")
    ratios = [row["torch fused"] for row in (*one, many, chain)] + [chain["optax, jit"]]
    speed = PAGE[PAGE.index("## Speed") : PAGE.index("## What there is")]
    assert re.findall(r"([\d.]+) ×", speed) == [f"{float(ratio):.2g}" for ratio in ratios]
    for row in (many, chain):
        assert row["optimisers"].split("**")[1] in speed.replace("\n", " ")
    assert "10⁷ elements or more takes as long as moving its memory" in speed.replace("\n", " ")
    assert all(abs(float(measured(f"{n} elements")["memory limit"]) - 1) < 0.1 for n in ("10⁷", "10⁸"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", PAGE))))
def test_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).is_file()
