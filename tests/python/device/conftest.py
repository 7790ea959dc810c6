"""What an (emulated) device was asked for, and CuPy in front of it."""

import sys

import pytest
import stand_in_cupy as cp
from device_arrays import emulation


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls since the last time; those that begin with one of these words, or all."""
    emulation("finish")  # what other tests have left
    path = tmp_path / "calls"
    monkeypatch.setenv("OPTIMISERS_EMULATED_CALLS", str(path))

    def since(*words):
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not words or line.startswith(words)]

    return since


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cp.module)
    monkeypatch.setattr(cp.current, "ptr", 0)
    return cp
