"""README.md: its code runs as printed, its table is current, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", PAGE))))
def test_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).is_file()
