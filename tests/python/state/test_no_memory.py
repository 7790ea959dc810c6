"""A call in which an allocation fails has changed nothing, whichever it is, and can be made again."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[1]
CALLS = (
    "update_ update_chain update_part update_users update_flat update_torch adjust_ adjust_part adjust_rule freeze_"
    " thaw_ lerp_ update adjust destructure"
)

needs_testcapi = pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this Python has no _testcapi, which makes allocations fail"
)


@needs_testcapi
@pytest.mark.parametrize("call", CALLS.split())
def test_a_call_in_which_an_allocation_fails_has_changed_nothing(call):
    if call == "update_torch":
        pytest.importorskip("torch", reason="torch is not installed")
    result = subprocess.run(
        [sys.executable, str(ROOM / "no_memory.py"), call],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOM}{os.pathsep}{ROOM.parent}"},
    )
    assert (result.returncode, result.stdout) == (0, "\n"), (result.stdout + result.stderr)[-3000:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux")
def test_no_memory_to_keep_slots_for_a_rule_of_the_user_is_an_error():
    code = """
import resource, numpy as np, optimisers as opt
class Half(opt.Rule):
    def init(self, x): return 0
    def apply(self, state, x, dx, *higher): return state, dx * 0.5
size = 20_000_000
x, g = np.ones(size), np.ones(size)
opt.set_num_threads(1)
state = opt.setup(opt.OptimiserChain(opt.Momentum(), Half()), x)
now = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20), -1))
try:
    opt.update_(state, x, g)
except MemoryError:
    print((x == 1).all(), (state.state[0].v == 0).all())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "True True\n"), result.stderr
