"""Arrays that get other memory, another shape or no owner while a call reads or writes them."""

import gc
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from support import bits

import optimisers as opt


class Nosy(np.ndarray):
    """Runs `act` once, when it is asked for its class."""

    act: Any = None

    @property
    def __class__(self) -> type:  # type: ignore[override]
        act, Nosy.act = Nosy.act, None
        if act is not None:
            act()
        return np.ndarray


class Masked(np.ma.MaskedArray):
    act: Any = None

    @property
    def _mask(self) -> Any:
        act, Masked.act = Masked.act, None
        if act is not None:
            act()
        return np.ma.nomask

    @_mask.setter
    def _mask(self, value: Any) -> None:
        pass


@pytest.mark.parametrize("cls", [Nosy, Masked])
@pytest.mark.parametrize("place", ["gradient", "parameter"])
def test_code_that_runs_while_arrays_are_read_cannot_take_others_away(cls, place):
    count, size = 400, 1000
    model = {f"k{i}": np.ones(size) for i in range(count)}
    grads = {key: np.ones(size) for key in model}
    of = grads if place == "gradient" else model
    of["k200"] = of["k200"].view(cls)
    state = opt.setup(opt.Descent(0.5), model)
    others: list[Any] = []

    def take_away():
        model.clear()
        grads.clear()
        gc.collect()
        others.extend(np.full(size, 7.0) for _ in range(4 * count))  # where freed memory would be used again

    cls.act = take_away
    opt.update_(state, model, grads)
    assert cls.act is None and len(others) == 4 * count
    assert all((a == 7).all() for a in others)


def test_subclasses_of_numpy_arrays_train_like_arrays(tmp_path):
    on_disk = np.memmap(tmp_path / "w", dtype="float32", mode="w+", shape=(5,))
    on_disk[:] = 1
    model = {"a": np.ones(3).view(np.recarray).view(Nosy), "b": on_disk}
    state = opt.setup(opt.Descent(0.5), model)
    opt.update_(state, model, {"a": np.ones(3).view(Nosy), "b": np.ones(5, np.float32)})
    assert (np.asarray(model["a"]) == 0.5).all() and (on_disk == 0.5).all()


def test_destructure_keeps_the_shapes_there_were():
    model = {"w": np.arange(12.0).reshape(3, 4), "b": np.ones(2)}
    flat, re = opt.destructure(model)
    model["w"].shape = (2, 2, 3)
    junk = [np.zeros((7, 9)) for _ in range(100)]
    assert len(re) == len(flat) == 14 and len(junk) == 100
    assert re.flatten({"w": np.ones((3, 4)), "b": None}).tolist() == [1.0] * 12 + [0.0] * 2
    assert re(flat)["w"].shape == (3, 4)


def test_an_array_that_changes_size_while_setup_asks_for_rules_is_refused():
    model = {"a": np.ones(4, np.float16), "b": np.ones(4, np.float16)}

    def rule(path, x):
        if path[-1] == "b":
            model["a"].resize(400_000, refcheck=False)
        return opt.MixedPrecision(opt.Descent(0.5))

    with pytest.raises(ValueError, match='array at "a" was given other memory'):
        opt.setup(rule, model)


class Changing(opt.Rule):
    """Does whatever `what` holds, once, from inside an update."""

    what: Any = None

    def init(self, x):
        return None

    def apply(self, state, x, dx, *higher):
        what, Changing.what = Changing.what, None
        if what is not None:
            what()
        return state, dx


def test_a_rule_that_gives_a_numpy_parameter_other_memory_is_refused():
    model = {"a": np.ones(1000), "b": np.ones(1000)}
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Changing(), opt.Adam()), model)
    opt.update_(state, model, {"a": np.ones(1000), "b": np.ones(1000)})
    before, clocks = (
        bits(model["b"]),
        dict(state["b"].clock[0]),
    )
    velocity = state["b"].state[0].v.copy()
    Changing.what = lambda: model["a"].resize(10, refcheck=False)
    with pytest.raises(ValueError, match='"a" was given other memory or another size in the middle'):
        opt.update_(state, model, {"a": np.ones(1000), "b": np.ones(1000)})
    assert bits(model["b"]) == before and dict(state["b"].clock[0]) == clocks
    assert (state["b"].state[0].v == velocity).all()


def test_a_rule_that_gives_a_torch_parameter_other_memory_is_refused():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = {"a": torch.ones(100_000), "b": torch.ones(100_000)}
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Changing(), opt.Adam()), model)
    grads = {"a": torch.ones(100_000), "b": torch.ones(100_000)}

    def replace():
        model["a"].data = torch.full((100_000,), 3.0)
        grads["b"].data = torch.full((100_000,), torch.nan)
        gc.collect()

    Changing.what = replace
    with pytest.raises(ValueError, match='"a" was given other memory or another size in the middle'):
        opt.update_(state, model, grads)
    assert (model["a"] == 3).all() and (model["b"] == 1).all()


SWAPPED = """
import gc, threading, numpy as np, optimisers as opt, torch
size, swaps = 3_000_000, 0
slow = opt.OptimiserChain(opt.ClipNorm(1.0, p=3.5), opt.Adam(0.1))
for trial in range(4):
    w = torch.ones(size, dtype=torch.float64)
    g = torch.ones(size, dtype=torch.float64)
    state = opt.setup(slow, {"w": w})
    done = threading.Event()
    others = []
    def swap():
        global swaps
        while not done.wait(0.02):
            w.data = torch.full((size,), 5.0, dtype=torch.float64)
            g.data = torch.full((size,), 5.0, dtype=torch.float64)
            others.append(w.data[:10].clone())
            swaps += 1
            if swaps > 3: return
    thread = threading.Thread(target=swap)
    thread.start()
    opt.update_(state, {"w": w}, {"w": g})
    done.set()
    thread.join()
assert all((o == 5).all() for o in others)
print("swapped", swaps > 0)
"""


def test_a_tensor_that_another_thread_gives_other_memory_is_read_and_written_where_it_was():
    """The old memory is some of the largest blocks, which are unmapped when they are freed: to touch it is a crash."""
    pytest.importorskip("torch", reason="torch is not installed")
    result = subprocess.run([sys.executable, "-c", SWAPPED], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "swapped True\n"), result.stderr


def test_a_strided_array_that_another_thread_reshapes_is_written_as_it_was(threads):
    """Its strides lie in memory that a new shape frees."""
    opt.set_num_threads(1)
    whole = np.ones((1000, 4000))
    w, g = whole[:, ::2], np.ones((1000, 2000))
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1e9, p=3.5), opt.Descent(0.5)), {"w": w})
    done = threading.Event()

    def reshape():
        while not done.wait(0.002):
            for shape in ((1000, 1, 2000), (1000, 2000)):
                w.shape = shape
                junk = [np.zeros((9,) * 5).shape for _ in range(50)]
                assert len(junk) == 50

    thread = threading.Thread(target=reshape)
    thread.start()
    try:
        for _ in range(3):
            try:
                opt.update_(state, {"w": w}, {"w": g})
            except ValueError as error:
                assert "shape" in str(error)  # it was read in the middle
    finally:
        done.set()
        thread.join()
    assert (whole[:, 1::2] == 1).all() and len(np.unique(whole[:, ::2])) == 1
