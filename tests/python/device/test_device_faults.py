"""What (emulated) devices refuse and report: late norms, too little memory, forks, user-defined rules, no library."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stand_in_cupy as cp
from device_arrays import CudaArray, DLPackArray, emulation, host, needs_emulation, on_device
from support import bits, layers, sized

import optimisers as opt

X = sized((50,), "float32", 1)
NAN = np.full(50, np.nan, np.float32)


def state_and_array():
    x = CudaArray(X.copy())
    return opt.setup(opt.OptimiserChain(opt.Momentum(), opt.ClipNorm(1.0)), x), x


@needs_emulation
def test_wait_tells_of_a_norm_that_is_not_finite():
    state, x = state_and_array()
    opt.update_(state, x, CudaArray(NAN))
    with pytest.raises(FloatingPointError, match=r'finite norm.*"the model"'):
        opt.wait(state)
    assert bits(x.host) == bits(X) and not host(state.state[0].v).any()
    assert opt.wait(state) is state


@needs_emulation
def test_the_next_update_tells_of_it_otherwise():
    state, x = state_and_array()
    opt.update_(state, x, CudaArray(NAN))
    emulation("finish")
    with pytest.raises(FloatingPointError, match="earlier call"):
        opt.update_(state, x, CudaArray(X))
    assert bits(x.host) == bits(X)
    opt.update_(state, x, CudaArray(X))
    assert bits(x.host) != bits(X)


@needs_emulation
def test_waiting_for_a_part_waits_for_all():
    model = on_device(layers(2))
    state = opt.setup(opt.ClipNorm(1.0), model)
    gradients = layers(2)
    gradients["layers"][0]["bias"][:] = np.inf
    opt.update_(state, model, on_device(gradients))
    with pytest.raises(FloatingPointError, match=r"layers\.0\.bias"):
        opt.wait(state["layers"][1])


def test_wait_wants_a_state():
    with pytest.raises(ValueError, match="wait: expected the state"):
        opt.wait({"w": X})


@needs_emulation
def test_rules_written_in_python_need_a_library_that_computes():
    class Mine(opt.Rule):
        def init(self, x):
            return None

        def apply(self, state, x, dx):
            return state, dx

    with pytest.raises(TypeError, match='array at "w" is on a CUDA device and of neither torch nor CuPy'):
        opt.setup(opt.OptimiserChain(opt.Adam(), Mine()), {"w": CudaArray(X)})


@needs_emulation
def test_a_global_norm_does_not_span_devices():
    model = {"a": CudaArray(X.copy()), "b": DLPackArray(X, device=1)}
    state = opt.setup(opt.ClipNorm(1.0, scope="global"), model)
    with pytest.raises(ValueError, match="span several devices"):
        opt.update_(state, model, {"a": CudaArray(X), "b": DLPackArray(X, device=1)})
    assert bits(host(model)) == bits({"a": X, "b": X})


@needs_emulation
def test_too_little_memory_is_an_error_that_changes_nothing(monkeypatch):
    model = {"w": CudaArray(np.ones(1 << 16, np.float32))}
    state = opt.setup(opt.Adam(), model)
    opt.update_(state, model, model)
    before = bits(host(model)), bits(host(state["w"].state))
    monkeypatch.setenv("OPTIMISERS_EMULATED_MEMORY", "1000")
    for call in (
        lambda: opt.setup(opt.Adam(), model),
        lambda: opt.update(state, model, model),
        lambda: opt.to_device(state, 1),
        lambda: opt.destructure(model),
    ):
        with pytest.raises(opt.DeviceMemoryError, match=r"out of memory on device \d: \d+ bytes asked for") as caught:
            call()
        assert isinstance(caught.value, MemoryError)
    monkeypatch.delenv("OPTIMISERS_EMULATED_MEMORY")
    assert before == (bits(host(model)), bits(host(state["w"].state)))
    opt.update_(state, model, model)


class Pool:
    """torch's and CuPy's, of which giving back makes room on the emulated device."""

    def __init__(self, monkeypatch, room):
        self.monkeypatch, self.room, self.asked = monkeypatch, room, 0

    def give_back(self):
        self.asked += 1
        self.monkeypatch.setenv("OPTIMISERS_EMULATED_MEMORY", self.room)

    def used_bytes(self):
        return 70

    def total_bytes(self):
        return 700

    free_all_blocks = give_back


@needs_emulation
@pytest.mark.parametrize("library", ["torch", "cupy"])
@pytest.mark.parametrize("room", ["100000000", "1000"])
def test_libraries_are_asked_to_give_back_what_they_keep(monkeypatch, library, room):
    pool = Pool(monkeypatch, room)
    if library == "torch":
        import torch

        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "empty_cache", pool.give_back)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 70)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    else:
        monkeypatch.setitem(sys.modules, "cupy", cp.module)
        monkeypatch.setattr(cp, "get_default_memory_pool", lambda: pool, raising=False)
    x = CudaArray(np.zeros(1000, np.float32))
    monkeypatch.setenv("OPTIMISERS_EMULATED_MEMORY", "1000")
    if room == "1000":
        who = {"torch": "torch holds 700 bytes, 70 of them in tensors", "cupy": "CuPy holds 700 bytes, 70 of them"}
        with pytest.raises(
            opt.DeviceMemoryError, match=rf"asked for, \d+ free of 1000; in this process.*{who[library]}"
        ):
            opt.setup(opt.Adam(), x)
        assert pool.asked == 1
        return
    state = opt.setup(opt.Adam(), x)
    assert pool.asked == 1 and opt.update_(state, x, x.copy())


@needs_emulation
def test_memory_of_a_destroyed_context_is_refused(monkeypatch):
    state, x = state_and_array()
    before = bits(x.host)
    monkeypatch.setenv("OPTIMISERS_EMULATED_GONE", "1")
    for call in (
        lambda: opt.update_(state, x, CudaArray(X)),
        lambda: opt.setup(opt.Adam(), {"x": CudaArray(X)}),
        lambda: opt.norm(CudaArray(X)),
    ):
        with pytest.raises(ValueError, match="memory CUDA does not know: it was freed, or its context destroyed"):
            call()
    monkeypatch.delenv("OPTIMISERS_EMULATED_GONE")
    assert bits(x.host) == before
    opt.update_(state, x, CudaArray(X))


@needs_emulation
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_devices_cannot_be_used_after_a_fork():
    state, x = state_and_array()
    code = 1
    child = os.fork()
    if child == 0:
        try:
            calls = (
                lambda: opt.update_(state, x, CudaArray(X)),
                lambda: opt.setup(opt.Adam(), x),
                lambda: opt.norm(x),
                lambda: state.clock,
                lambda: opt.to_device(x, "cpu"),
            )
            for call in calls:
                with pytest.raises(opt.DeviceError, match="forked"):
                    call()
            y = X.copy()
            opt.update_(opt.setup(opt.Adam(), y), y, y)  # the host goes on
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    opt.update_(state, x, CudaArray(X))


def report(library: str) -> str:
    """What doctor says, and what setup of an array on a device raises, with this file as the GPU library."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import numpy as np, optimisers as opt\n"
        "from device_arrays import CudaArray\n"
        "x = np.ones(3); opt.update_(opt.setup(opt.Adam(), x), x, x)\n"
        "print(opt.doctor())\n"
        "try: opt.setup(opt.Adam(), CudaArray(np.ones(3)))\n"
        "except ValueError as error: print(error)\n"
        "try: opt.to_device(opt.setup(opt.Adam(), x), 'cuda')\n"
        "except ValueError as error: print(error)\n"
    )
    here = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code, str(here), str(here.parent)],
        env=os.environ | {"OPTIMISERS_CUDA_LIBRARY": library},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout


def test_without_a_library_everything_but_devices_works(tmp_path):
    text = report(str(tmp_path / "_cuda.so"))
    assert f"CUDA            off: this installation has no CUDA library ({tmp_path / '_cuda.so'})" in text
    assert (
        'setup: array at "the model" is on a CUDA device, and CUDA is off: this installation has no CUDA library'
        in text
    )
    assert "to_device: CUDA is off: this installation has no CUDA library" in text


def test_what_is_no_library_is_told(tmp_path):
    (tmp_path / "broken.so").write_text("no library")
    assert "CUDA            off: " in report(str(tmp_path / "broken.so"))
    from optimisers import _core

    assert f"off: {_core.__file__} is not the GPU library" in report(_core.__file__)


@needs_emulation
def test_doctor_names_the_devices():
    doctor = opt.doctor()
    assert doctor.cuda and doctor.cuda_reason == ""
    assert doctor.cuda_devices == ["emulated device"] * 2
    assert "CUDA            on: emulated device, emulated device" in str(doctor)


def test_importing_does_not_touch_cuda():
    code = "import optimisers; print('_cuda' in open('/proc/self/maps').read())"
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list a process's libraries in /proc")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
