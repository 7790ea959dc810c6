"""docs/flat.md: its code runs as printed, its links lead somewhere, and bench/flat.py finds where to write."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy", reason="SciPy is not installed, which the page calls")

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "flat.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```)?", PAGE.read_text(encoding="utf-8"), re.M | re.S
)


def test_the_code_of_the_page_runs_as_printed() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    assert len(BLOCKS) == 3 and sum(bool(printed) for _, printed in BLOCKS) == 1
    for source, printed in BLOCKS:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(source, str(PAGE), "exec"), names)
        assert not printed or output.getvalue() == printed
    assert names["found"].success and names["lowest"].fun < 1e-6


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", PAGE.read_text("utf-8")))))
def test_link_leads_to_a_file(target: str) -> None:
    assert (PAGE.parent / target).is_file()


def test_the_benchmark_runs_and_the_page_has_its_place(tmp_path: Path) -> None:
    assert re.search(r"^<!-- flat:begin -->\n.*^<!-- flat:end -->$", PAGE.read_text("utf-8"), re.M | re.S)
    command = [sys.executable, str(ROOT / "bench" / "flat.py"), "--rounds", "1", "--largest", "10"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"^\| 10 \|", run.stdout, re.M)) == 2
