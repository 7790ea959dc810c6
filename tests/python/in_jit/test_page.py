"""The page about JAX: its programs run, and the names in its table are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import optimisers as opt

PAGE = (Path(__file__).resolve().parents[3] / "docs/jax.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S))
def test_its_programs_run(block: str) -> None:
    pytest.importorskip("optax", reason="optax is not installed; the page's programs are not run")
    exec(compile(block, "docs/jax.md", "exec"), {"__name__": "page"})


def test_its_names_are_there() -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed; the page's names are not looked up")
    table = PAGE[PAGE.index("## Names") : PAGE.index("## Order of keys")]
    rows = [row.strip("|").split("|") for row in re.findall(r"^\| .*`.* \|$", table, flags=re.M)]
    theirs = {name for row in rows for name in re.findall(r"`(?:contrib\.)?(\w+)", row[0])} - {"from_optax", "to_optax"}
    known = set(dir(optax)) | set(dir(optax.contrib)) | {"partition"}
    assert len(rows) > 8 and not theirs - known
    ours = {name for row in rows for name in re.findall(r"\b([A-Z]\w{3,})\b", row[1])} - {"Optimisers"}
    assert len(ours) > 25 and not ours - set(dir(opt))
