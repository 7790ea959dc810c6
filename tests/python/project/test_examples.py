"""Every example runs to its end; each checks itself what it is to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NEEDS = {"jax_value_and_grad": "jax", "flat_lbfgs": "scipy", "least_squares": "sklearn"}
NEEDS |= dict.fromkeys(("torch_module", "training_loop", "torch_drop_in", "encoder_and_head", "muon"), "torch")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "digits")  # that one has its own tests


def test_the_examples_are_there() -> None:
    assert set(NEEDS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed, which examples/{name}.py is about")
    command = [sys.executable, "-W", "error::UserWarning:__main__", str(EXAMPLES / f"{name}.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=dict(os.environ))
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout
    assert "leaked" not in run.stderr
