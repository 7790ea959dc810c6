"""What the project states in more than one place is the same in all of them."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")


def test_installed_version_is_the_header_s() -> None:
    header = (ROOT / "cpp" / "include" / "optimisers" / "config.hpp").read_text(encoding="utf-8")
    assert f'version = "{metadata.version("optimisers")}"' in header


@pytest.mark.parametrize("pin", sorted(set(re.findall(r"\w[\w-]*(?:\[\w+\])?==[\d.]+", HOOKS))))
def test_commit_hooks_use_the_versions_of_make_lint(pin: str) -> None:
    assert f'"{pin}"' in PROJECT
