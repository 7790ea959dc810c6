"""tools/gpu_tests.py: whatever a test does to its process or its device, the others are run."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[3] / "tools" / "gpu_tests.py"
FINE = "def test_fine(): pass\n"
# What the tool asks of torch, without a GPU: the device is lost once something has broken it.
DEVICE = """
import sys, types
def synchronize():
    if device.broken: raise RuntimeError("illegal address")
device = types.SimpleNamespace(broken=False, is_initialized=lambda: True, synchronize=synchronize)
sys.modules["torch"] = types.SimpleNamespace(cuda=device)
"""
ENDS = {
    "ends": ("def test_bad():\n    import os\n    os._exit(9)\n", "the process ended with status 9"),
    "hangs": ("def test_bad():\n    import time\n    time.sleep(60)\n", "nothing ended for 8 s"),
    "loses": (DEVICE + "def test_bad(): device.broken = True\n", "the device was lost"),
}


def run(folder, *arguments):
    command = [sys.executable, str(TOOL), "--folder", str(folder), "-v", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return found.returncode, found.stdout


def test_what_ends_one_test_does_not_hide_the_others(tmp_path):
    for name, (bad, _) in ENDS.items():
        (tmp_path / f"test_gpu_{name}.py").write_text("def test_first(): pass\n" + bad + "def test_next(): pass\n")
    status, text = run(tmp_path, "--patience", "8")
    assert status == 1
    for name, (_, said) in ENDS.items():
        file = f"test_gpu_{name}.py"
        assert text.count(f"{file}::test_first PASSED") == text.count(f"{file}::test_next PASSED") == 1
        assert any(
            line.startswith(f"gpu_tests: {said} in ") and f"{file}::test_bad" in line for line in text.splitlines()
        )
    assert "failed: test_gpu_ends.py, test_gpu_hangs.py, test_gpu_loses.py" in text


def test_failures_and_skips_are_those_of_pytest(tmp_path):
    (tmp_path / "test_gpu_a.py").write_text("def test_wrong(): assert 0\n" + FINE)
    (tmp_path / "test_gpu_b.py").write_text('import pytest\npytestmark = pytest.mark.skip("no GPU here")\n' + FINE)
    (tmp_path / "test_gpu_c.py").write_text("import there_is_no_such_module\n")
    status, text = run(tmp_path)
    assert status == 1
    assert "test_wrong FAILED" in text
    assert "test_gpu_a.py::test_fine PASSED" in text
    assert "no GPU here" in text
    assert "failed: test_gpu_a.py, test_gpu_c.py" in text
    (tmp_path / "test_gpu_c.py").unlink()
    assert "test_gpu_b" not in run(tmp_path, "-x")[1]
    status, text = run(tmp_path, "-k", "fine")
    assert status == 0, text
