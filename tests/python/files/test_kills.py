"""A process killed at any instant of a save leaves the old file or the new one, whole."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

import optimisers as opt

SAVER = """
import sys
import numpy as np, optimisers as opt
model = {"a": np.zeros(200_000, np.float32), "b": np.zeros(300_000)}
state = opt.setup(opt.Momentum(), model)
for step in range(10**9):
    for name in model:
        model[name][...] = step
        state[name].state.v[...] = step
    opt.save(sys.argv[1], state, model, step=step)
    print(step, flush=True)
"""


def test_no_kill_loses_the_file(tmp_path):
    path = tmp_path / "state.safetensors"
    rng = np.random.default_rng(1)
    model = {"a": np.zeros(200_000, np.float32), "b": np.zeros(300_000)}
    state = opt.setup(opt.Momentum(), model)
    for _ in range(int(os.environ.get("OPTIMISERS_KILLS", "12"))):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"0\n"
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        step = opt.load(path, state, model).extra["step"]
        arrays = [*model.values(), *(state[name].state.v for name in model)]
        assert all((array == step).all() for array in arrays)
    opt.save(path, state)
    assert os.listdir(tmp_path) == [path.name]


def test_no_space_leaves_the_old_file(tmp_path):
    code = """
import resource, sys
import numpy as np, optimisers as opt
state = opt.setup(opt.Momentum(), np.zeros(100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    opt.save(sys.argv[1], state)
except OSError as error:
    print(type(error).__name__, error.errno)
"""
    path = tmp_path / "state.safetensors"
    opt.save(path, opt.setup(opt.Momentum(), np.zeros(10)))
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError 27\n" and path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_second_writer_is_refused_while_the_first_one_writes(tmp_path):
    import fcntl

    path = tmp_path / "state.safetensors"
    state = opt.setup(opt.Momentum(), np.zeros(10))
    with open(f"{path}.part", "w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        try:
            opt.save(path, state)
        except OSError as error:
            assert "another call is writing" in str(error)
        else:
            raise AssertionError("saved over another writer's file")
    opt.save(path, state)
