"""A process that uses the library can fork and leave at any time; each test has one of its own, which may hang."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(code):
    """The last line a script prints; it must end by itself within a minute."""
    head = "import os, signal, threading, time\nimport numpy as np\nimport optimisers as opt\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


FORK = """
opt.set_num_threads(2)
rule = opt.OptimiserChain(opt.ClipNorm(1.0, p=3.5), opt.Adam())
def world(n):
    model = {"w": np.linspace(1, 2, n)}
    return opt.setup(rule, model), model, {"w": np.linspace(2, 1, n)}
def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0
state, model, grads = world(300_000)
opt.update_(state, model, grads)
_, want = opt.update(state, model, grads)
def same():
    opt.update_(state, model, grads)
    return opt.get_num_threads() == 2 and model["w"].tobytes() == want["w"].tobytes()
"""


@pytest.mark.parametrize(
    "code",
    [
        "print(child(same) and same())",
        "print(child(lambda: child(same) and same()) and same())",
        "print(all(child(same) for _ in range(5)) and same())",
        "long = world(4_000_000)\nthread = threading.Thread(target=opt.update_, args=long)\nthread.start()\n"
        "time.sleep(0.05)\nresult = child(same)\nthread.join()\nprint(result and same())",
    ],
    ids=["after use", "of a fork", "several", "while another state is updated"],
)
def test_fork_after_use_has_the_same_bits_with_two_threads(code):
    assert run(FORK + code) == "True"


@pytest.mark.parametrize("count", [1, 2])
def test_fork_in_the_middle_of_a_step_leaves_that_state_busy_in_the_child(count):
    code = f"opt.set_num_threads({count})\nlong = world(4_000_000)\n"
    code += """
def busy():
    try:
        opt.update_(*long)
    except RuntimeError:
        return True
thread = threading.Thread(target=opt.update_, args=long)
thread.start()
time.sleep(0.05)
print(child(busy) if thread.is_alive() else True)
thread.join()"""
    assert run(FORK.replace("alarm(30)", "alarm(5)") + code) == "True"


def test_leaving_the_interpreter_in_the_middle_of_a_step_is_no_crash():
    code = "long = world(4_000_000)\nthreading.Thread(target=opt.update_, args=long, daemon=True).start()\n"
    assert run(FORK + code + "time.sleep(0.05)\nprint('left')") == "left"
