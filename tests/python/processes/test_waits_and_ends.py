"""Waiting for a state that is in use, Ctrl-C, and updates while the process ends or imports once more."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import optimisers as opt

SLOW = opt.OptimiserChain(opt.ClipNorm(1.0, p=3.5), opt.Adam(0.1))


def run(code: str, timeout: float = 100) -> str:
    """What the program printed; its end is waited for."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=timeout)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def calling(what: Any) -> opt.Rule:
    """A rule that calls a function from inside an update."""

    class Calls(opt.Rule):
        def init(self, x):
            return None

        def apply(self, state, x, dx, *higher):
            what()
            return state, dx

    return Calls()


# ------------------------------------------------------------------------------------------- states that wait


def test_states_whose_rules_use_each_other_do_not_wait_for_ever():
    """Each thread is inside one state and asks for the other: one of them is refused, and both end."""
    models, states = [{"w": np.ones(2)} for _ in range(2)], []
    inside, results = threading.Barrier(2), []

    def use_other(own):
        inside.wait(30)
        opt.update_(states[1 - own], models[1 - own], {"w": None})

    states.extend(opt.setup(calling(lambda own=own: use_other(own)), models[own]) for own in range(2))

    def update(own):
        try:
            opt.update_(states[own], models[own], {"w": np.ones(2)})
            results.append("updated")
        except opt.BusyError as error:
            assert "waits for a state which this thread is using" in str(error)
            results.append("busy")

    threads = [threading.Thread(target=update, args=(own,), daemon=True) for own in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == ["busy", "updated"]
    assert sorted(m["w"].sum() for m in models) == [0.0, 2.0]


def test_a_ring_of_three_is_found_too():
    models, states = [{"w": np.ones(2)} for _ in range(3)], []
    inside, results = threading.Barrier(3), []

    def use_next(own):
        inside.wait(30)
        opt.update_(states[(own + 1) % 3], models[(own + 1) % 3], {"w": None})

    states.extend(opt.setup(calling(lambda own=own: use_next(own)), models[own]) for own in range(3))

    def update(own):
        try:
            opt.update_(states[own], models[own], {"w": np.ones(2)})
            results.append("updated")
        except opt.BusyError:
            results.append("busy")

    threads = [threading.Thread(target=update, args=(own,), daemon=True) for own in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == ["busy", "updated", "updated"]


@pytest.fixture
def interruptible():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_waiting_for_a_busy_state_hears_ctrl_c(interruptible):
    entered, leave = threading.Event(), threading.Event()

    def stay():
        entered.set()
        assert leave.wait(60)

    model = {"w": np.ones(2)}
    state = opt.setup(calling(stay), model)
    other = threading.Thread(target=opt.update_, args=(state, model, {"w": np.ones(2)}))
    other.start()
    assert entered.wait(30)
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            opt.update_(state, model, {"w": np.ones(2)})
        assert other.is_alive() and (model["w"] == 1).all()
    finally:
        leave.set()
        other.join()
        interrupt.join()
    assert (model["w"] == 0).all()


def test_ctrl_c_during_an_update_of_tensors_arrives(interruptible):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    size = 2_000_000
    w, g = torch.ones(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64)
    state = opt.setup(SLOW, {"w": w})
    for _ in range(3):
        version = w._version
        interrupt = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            opt.update_(state, {"w": w}, {"w": g})
            time.sleep(5)  # where the update was faster
        interrupt.join()
        assert w._version == version + 1


# ------------------------------------------------------------------------------------------- the end


FINAL = """
import sys, numpy as np, optimisers as opt
opt.set_num_threads(2)
class Trainer:
    def __init__(self, size):
        self.model, self.grads = {"w": np.ones(size)}, {"w": np.ones(size)}
        self.state = opt.setup(opt.Descent(0.5), self.model)
        opt.update_(self.state, self.model, self.grads)
        self.update, self.print, self.norm = opt.update_, print, opt.norm
    def __del__(self):
        self.update(self.state, self.model, self.grads)
        self.print("updated", self.model["w"][0], self.norm(self.grads) > 0, flush=True)
"""


@pytest.mark.parametrize("size", [5, 300_000])
def test_an_update_while_the_interpreter_ends_is_made(size):
    assert run(FINAL + f"trainer = Trainer({size}); trainer.itself = trainer") == "updated 0.0 True\n"


def test_a_state_that_a_thread_left_in_use_is_busy_while_the_interpreter_ends():
    code = """
import threading, time
class Last:
    def __init__(self, *use):
        self.use, self.print, self.update, self.busy = use, print, opt.update_, opt.BusyError
    def __del__(self):
        try:
            self.update(*self.use)
        except self.busy:
            self.print("busy", flush=True)
long = Trainer.__new__(Trainer)
del Trainer.__del__
model = {"w": np.ones(4_000_000)}
state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0, p=3.5), opt.Adam()), model)
use = (state, model, {"w": np.ones(4_000_000)})
last = Last(*use)
last.itself = last
threading.Thread(target=opt.update_, args=use, daemon=True).start()
time.sleep(0.05)
"""
    assert run(FINAL + code) in ("busy\n", "")  # the step may have been over by then


def test_functions_that_run_at_exit_may_be_older_than_the_import():
    code = """
import atexit
def last():
    opt.update_(state, model, {"layer": {"w": np.ones(2)}})
    print(model["layer"].w.tolist(), list(opt.trainable(Layer(np.ones(2)))))
atexit.register(last)
import numpy as np, optimisers as opt
class Layer:
    def __init__(self, w):
        self.w = w
opt.register_container(Layer, lambda layer: {"w": layer.w}, lambda layer, children: Layer(**children))
model = {"layer": Layer(np.ones(2))}
state = opt.setup(opt.Descent(0.5), model)
"""
    assert run(code) == "[0.5, 0.5] ['w']\n"


def test_the_package_can_be_imported_again():
    code = """
import sys, pickle, numpy as np, optimisers as first
old = first.setup(first.Momentum(0.5), np.ones(2))
for name in [name for name in sys.modules if name.startswith("optimisers")]:
    del sys.modules[name]
import optimisers as opt
assert opt is not first and opt.update_ is first.update_ and opt.InvalidValueError is first.InvalidValueError
class Layer:
    def __init__(self, w):
        self.w = w
opt.register_container(Layer, lambda layer: {"w": layer.w}, lambda layer, children: Layer(**children))
del first, name
import gc; gc.collect()
model = {"layer": Layer(np.ones(2))}
state = opt.setup(opt.Adam(0.5), model)
opt.update_(state, model, {"layer": {"w": np.ones(2)}})
x = np.ones(2)
opt.update_(old, x, np.ones(2))
print(model["layer"].w.round(6).tolist(), x.tolist(), pickle.loads(pickle.dumps(state))["layer"].w.rule)
"""
    assert run(code) == "[0.5, 0.5] [0.5, 0.5] Adam(eta=0.5, beta=(0.9, 0.999), epsilon=1e-08)\n"


# ------------------------------------------------------------------------------------------- small stacks


def test_a_thread_with_a_small_stack_gets_an_error():
    """As small as Python makes them; running over the end would write to other memory."""
    code = """
import threading, numpy as np, optimisers as opt
model, found = {"w": np.ones(5000)}, []
state = opt.setup(opt.Adam(), model)
def update():
    try:
        opt.update_(state, model, {"w": np.ones(5000)})
    except MemoryError as error:
        found.append(str(error))
for size in (64 << 10, 1 << 20):
    threading.stack_size(size)
    thread = threading.Thread(target=update)
    thread.start()
    thread.join()
    print(len(found), float(model["w"][0]) == 1, state["w"].clock.beta1_t)
print(found[0])
"""
    lines = run(code).splitlines()
    assert lines[:2] == ["1 True 1.0", "1 False 0.9"] and "a call needs 96 KiB" in lines[2], lines
