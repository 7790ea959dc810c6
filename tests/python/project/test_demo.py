"""examples/digits.py: what it prints, what it draws, and that it can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the demo's data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

DEMO = Path(__file__).resolve().parents[3] / "examples" / "digits.py"


def run_demo(epochs: int, picture: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--epochs", str(epochs), "--out", str(picture)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_demo_learns_and_tree_equals_flat(tmp_path: Path) -> None:
    picture = tmp_path / "new" / "digits.png"
    run = run_demo(20, picture)
    assert run.returncode == 0, run.stdout + run.stderr

    *_, place, accuracy, agreement = run.stdout.splitlines()
    assert place.startswith("learning curves: ")
    assert place.endswith("digits.png")
    reached = re.fullmatch(r"held-out accuracy (\d\.\d{4})", accuracy)
    assert reached is not None
    assert float(reached[1]) >= 0.96
    assert agreement == "tree and flat agree bit for bit"

    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 20_000


def test_demo_fails_when_it_has_not_learned(tmp_path: Path) -> None:
    run = run_demo(1, tmp_path / "digits.png")
    assert run.returncode == 1
    assert "below 0.96" in run.stdout
