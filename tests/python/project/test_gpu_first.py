"""tools/gpu_first.py, on the emulation: every step is tried, whatever becomes of another, and the page says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

from device_arrays import needs_emulation

TOOL = Path(__file__).parents[3] / "tools" / "gpu_first.py"
pytestmark = needs_emulation


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, dict, str]:
    command = [sys.executable, str(TOOL), "--out", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)
    assert (folder / "results.json").exists(), done.stdout + done.stderr
    return done.returncode, json.loads((folder / "results.json").read_text()), (folder / "page.txt").read_text()


def test_a_dry_run_looks_at_everything_the_emulation_can(tmp_path):
    status, results, page = run(tmp_path, "--dry-run")
    assert status == 0, page + (tmp_path / "logs.txt").read_text()
    assert results["dry_run"] and results["cuda"]
    assert {step["name"]: step["status"] for step in results["steps"]} == {"smoke": "ok", "speed": "ok"}
    assert "smoke: 14 checks, 0 failed" in page and "| Adam, 10³ |" in page
    assert {path.name for path in tmp_path.iterdir()} == {"page.txt", "results.json", "logs.txt", "bench.json"}


def test_what_fails_or_is_not_there_is_said_and_the_rest_is_run(tmp_path):
    status, results, page = run(
        tmp_path, "--only", "smoke", "memcheck", "ncu", PATH=str(tmp_path), OPTIMISERS_EMULATED_FAILURE="sticky"
    )
    assert status == 1
    found = {step["name"]: step for step in results["steps"]}
    assert found["smoke"]["status"] == "failed" and "smoke: 14 checks, 14 failed" in found["smoke"]["said"]
    for name, program in (("memcheck", "compute-sanitizer"), ("ncu", "ncu")):
        assert found[name]["status"] == "left out" and f"{program} is not in PATH" in found[name]["said"]
    assert "failed   smoke" in page
