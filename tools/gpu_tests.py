"""Runs the tests that need a GPU, each file in a process of its own: what ends one does not hide the others.

    python tools/gpu_tests.py [-k bits] [-x] ...     arguments go to pytest; -x stops at the first file that fails

A kernel that reads where it must not makes the device useless to its whole process, and one that never ends holds it
up. So whatever happens in a test, those of the file that have not begun are run in a new process: where the device is
lost, where the process ends, and where nothing was finished for --patience seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGUN = "OPTIMISERS_GPU_TESTS_BEGUN"  # names the file that takes the tests begun
LOST = 77  # pytest's status where the device was lost
NO_TESTS = 5  # and where nothing was chosen


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=ROOT / "tests" / "python" / "device", help=argparse.SUPPRESS)
    p.add_argument("--file", default="test_gpu*.py", help="only these files (a pattern)")
    p.add_argument("--patience", type=float, default=120, help="seconds a test may take (default: 120)")
    args, rest = p.parse_known_args()
    failed = []
    start = time.monotonic()
    for file in sorted(args.folder.glob(args.file)):
        print(f"== {file.name}", flush=True)
        if whole_file(file, rest, args.patience):
            continue
        failed.append(file.name)
        if "-x" in rest:
            break
    print(f"gpu_tests: {time.monotonic() - start:.0f} s, {'failed: ' + ', '.join(failed) if failed else 'none failed'}")
    return 1 if failed else 0


def whole_file(file: Path, arguments: list[str], patience: float) -> bool:
    """All tests of a file, in as many processes as that takes. Whether all passed, or said why they were skipped."""
    with tempfile.TemporaryDirectory() as folder:
        begun, left_out = Path(folder, "begun"), Path(folder, "arguments")
        passed = True
        while True:
            known = tests_in(begun)
            left_out.write_text("".join(f"--deselect={name}\n" for name in known))
            command = [sys.executable, "-m", "pytest", "-rs", "-p", "gpu_tests", str(file), f"@{left_out}", *arguments]
            status, why = run(command, begun, patience)
            if status in (0, NO_TESTS):
                return passed
            passed = False
            last = tests_in(begun)
            if status == 1 or len(last) == len(known) or "-x" in arguments:  # it came to its end, or will not begin
                if status != 1:
                    print(f"gpu_tests: {file.name}: {why}", flush=True)
                return False
            print(f"\ngpu_tests: {why} in {last[-1]}; those after it in a new process", flush=True)


def tests_in(begun: Path) -> list[str]:
    return begun.read_text().splitlines() if begun.exists() else []


def run(command: list[str], begun: Path, patience: float) -> tuple[int, str]:
    """The status of pytest, and what it means; it is ended where no test was begun for too long."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {BEGUN: str(begun), "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        since, count = time.monotonic(), 0
        while True:
            try:
                status = process.wait(0.2)
            except subprocess.TimeoutExpired:
                if (now := len(tests_in(begun))) != count:
                    since, count = time.monotonic(), now
                if time.monotonic() - since > patience:
                    process.kill()
                    process.wait()
                    return -1, f"nothing ended for {patience:g} s"
                continue
            return status, "the device was lost" if status == LOST else f"the process ended with status {status}"


# ---- as a plugin of pytest: "-p gpu_tests"


def pytest_runtest_logstart(nodeid: str) -> None:
    with open(os.environ[BEGUN], "a") as file:
        file.write(nodeid + "\n")


def pytest_runtest_logfinish() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        import pytest

        pytest.exit(f"the device is lost: {error}", returncode=LOST)


if __name__ == "__main__":
    sys.exit(main())
