"""Threads, signals and forks: calls on one state are serialised, states are independent, a running step completes."""

import copy
import gc
import math
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import bits, fingerprint, sized

import optimisers as opt

# One power an element: a long update of few elements, so that there is time for things to happen meanwhile.
SLOW = opt.OptimiserChain(opt.ClipNorm(1.0, p=3.5), opt.Adam(0.1))
LONG = 6_000_000  # elements: some 30 ms on two threads
USUAL = opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.01, lambda_=0.01))


def model_of(size):
    return {"w": sized((size,), "float64", 1), "b": sized((3,), "float64", 2)}


def grads_of(size):
    return {"w": sized((size,), "float64", 3), "b": sized((3,), "float64", 4)}


@dataclass
class Reading:
    """Gradients that say when an update reads them, which is after all that runs in Python."""

    w: Any
    b: Any

    def __getattribute__(self, name):
        if name == "b":
            object.__getattribute__(self, "__dict__")["began"].set()
        return object.__getattribute__(self, name)


def during(act, state, model, grads, in_time, ended=lambda: None):
    """An update, with act run by another thread meanwhile; in_time gets whether the update was not faster."""
    reading, done = Reading(grads["w"], grads["b"]), threading.Event()
    reading.__dict__["began"] = began = threading.Event()
    grads.clear()

    def other():
        began.wait(30)
        time.sleep(0.01)
        in_time.append(not done.is_set())
        act()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        opt.update_(state, model, reading)
        ended()
    finally:
        done.set()
        thread.join()


def tried(attempt, times=10):
    """For what needs the machine to run two threads at once: it may be busy with something else."""
    return any(attempt() for _ in range(times))


def together(*works):
    """Runs the functions in threads of their own and raises what the first of them raised."""
    raised = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if raised:
        raise raised[0]


@pytest.fixture
def eager_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


# ------------------------------------------------------------------------------------------- one state


@pytest.mark.parametrize("size", [5, 20_000])
def test_threads_on_one_state_equal_as_many_serial_steps(size, eager_switches):
    model, twin, grads = model_of(size), model_of(size), grads_of(size)
    state, twin_state = opt.setup(USUAL, model), opt.setup(USUAL, twin)
    together(*[lambda: [opt.update_(state, model, grads) for _ in range(10)]] * 4)
    for _ in range(40):
        opt.update_(twin_state, twin, grads)
    assert fingerprint(model, state) == fingerprint(twin, twin_state)


@pytest.mark.parametrize("size", [5, 20_000])
def test_other_calls_meet_whole_steps_only(size, eager_switches):
    """Every element goes the same way: any difference within an array is a step seen half done."""
    model, grads = {"w": np.zeros(size)}, {"w": np.ones(size)}
    state = opt.setup(opt.Momentum(1.0, 0.5), model)
    finished = threading.Event()

    def write():
        for _ in range(200):
            opt.update_(state, model, grads)
        finished.set()

    def read(call):
        def repeat():
            while not finished.is_set():
                v = call()["w"].state.v
                assert np.all(v == v[0])

        return repeat

    calls = {
        "deepcopy": lambda: copy.deepcopy(state),
        "pickle": lambda: pickle.loads(pickle.dumps(state)),
        "adjust": lambda: opt.adjust(state, 1.0),
        "freeze": lambda: opt.thaw(opt.freeze(state)),
        "adjust_": lambda: opt.adjust(opt.adjust_(state, rho=0.5), 1.0),
        "look": lambda: (repr(state), state["w"].clock, state["w"].rule) and opt.thaw(opt.thaw_(state)),
    }
    together(write, *map(read, calls.values()))
    v, want = 0.0, 0.0
    for _ in range(200):
        v = 0.5 * v + 1.0
        want -= v
    assert np.all(model["w"] == want)


def test_pure_update_takes_model_and_state_of_the_same_step(eager_switches):
    """Each step moves x by 1, and the product of beta counts the steps."""
    beta = 1 - 2.0**-20
    chain = opt.OptimiserChain(opt.Adam(1.0, (0.0, beta)), opt.Lion(1.0, (0.0, 0.0)))
    model, grads = {"w": np.zeros(9000)}, {"w": np.ones(9000)}
    state, finished, differing = opt.setup(chain, model), threading.Event(), []

    def write():
        while not finished.is_set():
            opt.update_(state, model, grads)

    def read():
        end = time.monotonic() + 1.5
        try:
            while time.monotonic() < end and not differing:
                new_state, new = opt.update(state, model, grads)
                steps = round(math.log(new_state["w"].clock[0].beta2_t) / math.log(beta))
                if set(new["w"]) != {-steps}:
                    differing.append((set(new["w"]), steps))
        finally:
            finished.set()

    together(read, write, write, write, write)
    assert not differing


class Calls(opt.Rule):
    """Does whatever `what` holds from inside an update."""

    what: Any = None

    def init(self, x):
        return None

    def apply(self, state, x, dx, *higher):
        if Calls.what is not None:
            Calls.what()
        return state, dx


@pytest.mark.parametrize(
    "call",
    [
        lambda state, model, grads: opt.update_(state, model, grads),
        lambda state, model, grads: opt.update(state, model, grads),
        lambda state, model, grads: opt.adjust_(state["b"], 0.5),
        lambda state, model, grads: opt.adjust(state, 0.5),
        lambda state, model, grads: opt.freeze_(state),
        lambda state, model, grads: opt.thaw_(state["w"]),
        lambda state, model, grads: copy.deepcopy(state),
        lambda state, model, grads: pickle.dumps(state),
    ],
    ids=["update_", "update", "adjust_", "adjust", "freeze_", "thaw_", "deepcopy", "pickle"],
)
def test_use_of_a_state_inside_its_own_update_is_busy_and_changes_nothing(call, monkeypatch):
    model, grads = model_of(5), grads_of(5)
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Calls(), opt.Adam()), model)
    opt.update_(state, model, grads)
    before = fingerprint(model, state)
    monkeypatch.setattr(Calls, "what", lambda: call(state, model, grads))
    with pytest.raises(RuntimeError, match="busy") as caught:
        opt.update_(state, model, grads)
    monkeypatch.setattr(Calls, "what", None)
    assert caught.type is opt.BusyError and fingerprint(model, state) == before
    assert not state["b"].frozen and state["b"].rule == state["w"].rule
    opt.update_(state, model, grads)
    assert fingerprint(model, state) != before


def test_another_state_can_be_used_inside_an_update(monkeypatch):
    inner, outer = model_of(5), model_of(5)
    inner_state, state = opt.setup(opt.Descent(1.0), inner), opt.setup(opt.OptimiserChain(Calls()), outer)
    monkeypatch.setattr(Calls, "what", lambda: opt.update_(inner_state, inner, grads_of(5)))
    opt.update_(state, outer, grads_of(5) | {"b": None})
    assert bits(inner["w"]) == bits(outer["w"]) != bits(model_of(5)["w"])


def test_a_state_is_busy_while_its_model_is_read():
    class Model:
        pass

    calls = []

    @dataclass
    class Nosy:
        w: Any

        def __getattribute__(self, name: str) -> Any:
            if name == "w" and armed:
                try:
                    opt.update_(state, model, None)
                except RuntimeError as error:
                    calls.append(str(error))
            return super().__getattribute__(name)

    armed = False
    model = Nosy(np.ones(2))
    state = opt.setup(opt.Descent(1.0), model)
    armed = True
    opt.update_(state, model, {"w": np.ones(2)})
    armed = False
    assert len(calls) == 1 and "busy" in calls[0] and model.w.sum() == 0


def test_states_of_their_own_run_in_threads_of_their_own():
    def train(seed: int) -> Any:
        model = {"w": np.full(100_000, float(seed))}
        state = opt.setup(opt.Adam(), model)
        for _ in range(10):
            opt.update_(state, model, {"w": np.ones(100_000)})
        return model["w"]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(train, [1, 2, 1, 2]))
    assert np.array_equal(results[0], results[2]) and np.array_equal(results[1], results[3])


# ------------------------------------------------------------------------------------------- the interpreter


def test_other_threads_run_python_during_an_update(threads):
    """Ticks of another thread in the middle half of the call: a thread that holds the interpreter allows none."""
    opt.set_num_threads(1)
    model = model_of(LONG)
    state, grads = opt.setup(SLOW, model), grads_of(LONG)
    ticks, finished = [], threading.Event()

    def tick():
        while not finished.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    def attempt():
        begin = time.perf_counter()
        opt.update_(state, model, grads)
        end = time.perf_counter()
        margin = (end - begin) / 4
        return any(begin + margin < t < end - margin for t in ticks)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        assert tried(attempt)
    finally:
        finished.set()
        thread.join()


@pytest.mark.parametrize("count", [1, 2])
def test_another_state_is_updated_during_a_long_update(count, threads):
    opt.set_num_threads(count)
    small = model_of(20_000)
    small_state, twin, small_grads = opt.setup(USUAL, small), model_of(20_000), grads_of(20_000)
    twin_state = opt.setup(USUAL, twin)

    def attempt():
        model, ended = model_of(LONG), []
        state = opt.setup(SLOW, model)

        def other():
            opt.update_(small_state, small, small_grads)
            ended.append("other")

        during(other, state, model, grads_of(LONG), [], lambda: ended.append("long"))
        opt.update_(twin_state, twin, small_grads)
        assert fingerprint(small, small_state) == fingerprint(twin, twin_state)
        return ended == ["other", "long"]

    assert tried(attempt)


def test_arrays_replaced_by_another_thread_stay_alive_until_the_step_is_done():
    twin = model_of(LONG)
    twin_state = opt.setup(SLOW, twin)
    opt.update_(twin_state, twin, grads_of(LONG))

    def attempt():
        model, in_time, others = model_of(LONG), [], []
        state, x = opt.setup(SLOW, model), model["w"]

        def replace():
            model.clear()
            gc.collect()
            others.extend(np.full(LONG, np.nan) for _ in range(4))  # where freed memory would be used again

        during(replace, state, model, grads_of(LONG), in_time)
        assert bits(x) == bits(twin["w"]) and model == {}
        return in_time[0]

    assert tried(attempt)


# ------------------------------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def interruptible():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_step_completes_as_a_whole_before_keyboard_interrupt(interruptible):
    twin = model_of(LONG)
    twin_state = opt.setup(SLOW, twin)
    opt.update_(twin_state, twin, grads_of(LONG))

    def attempt():
        model, in_time = model_of(LONG), []
        state = opt.setup(SLOW, model)
        with pytest.raises(KeyboardInterrupt):
            during(lambda: os.kill(os.getpid(), signal.SIGINT), state, model, grads_of(LONG), in_time)
            time.sleep(1)  # where the signal came after the update
        assert fingerprint(model, state) == fingerprint(twin, twin_state)
        return in_time[0]

    assert tried(attempt)


def test_keyboard_interrupt_in_a_rule_of_the_user_changes_nothing(interruptible, monkeypatch):
    model, grads = model_of(5), grads_of(5)
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Calls(), opt.Adam()), model)
    opt.update_(state, model, grads)
    before = fingerprint(model, state)
    monkeypatch.setattr(Calls, "what", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        opt.update_(state, model, grads)
    assert fingerprint(model, state) == before
    monkeypatch.setattr(Calls, "what", None)
    opt.update_(state, model, grads)
    assert fingerprint(model, state) != before
