"""CuPy arrays, by way of a stand-in for CuPy over emulated devices; test_gpu_libraries.py has the real one."""

import sys

import numpy as np
import pytest
import stand_in_cupy as cp
from device_arrays import DLPackArray, needs_emulation
from support import bits, sized

import optimisers as opt

pytestmark = needs_emulation
RULE = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam(0.1))


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cp.module)
    monkeypatch.setattr(cp.current, "ptr", 0)


def trained(rule=RULE, steps=3):
    """An array and its state on the host, and the same in CuPy."""
    here = sized((20, 3), "float32", 1)
    there = cp.array(here)
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(steps):
        g = sized((20, 3), "float32", 2 + step)
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, cp.array(g))
    return here, there, *states


def test_slots_are_cupy_arrays_of_the_same_memory():
    here, there, reference, state = trained()
    m = state.state[1].m
    assert bits(there.host) == bits(here) and bits(m.host) == bits(reference.state[1].m)
    assert type(m) is cp.ndarray and state.dtype == np.float32
    m[...] = 3
    assert (state.state[1].m.host == 3).all()


def test_work_goes_to_cupys_current_stream():
    _, x, _, state = trained()
    cp.current.ptr = 0x60
    g = DLPackArray(np.ones((20, 3), np.float32))
    opt.update_(state, x, g)
    opt.update_(state, x, g, stream=0x70)
    assert g.streams == [0x60, 0x70]


def test_pure_updates_and_apply_give_cupy_arrays():
    here, there, reference, state = trained()
    g = sized((20, 3), "float32", 9)
    new_state, new = opt.update(state, there, cp.array(g))
    assert bits(there.host) == bits(here) and type(new) is cp.ndarray
    opt.update_(reference, here, g)
    assert bits(new.host) == bits(here) and bits(new_state.state[1].m.host) == bits(reference.state[1].m)
    _, dx = opt.apply_(RULE, opt.init(RULE, new), new, cp.array(g))
    _, want = opt.apply_(RULE, opt.init(RULE, here), here, g)
    assert type(dx) is cp.ndarray and bits(dx.host) == bits(want)


def test_models_and_states_move_between_numpy_and_cupy():
    w = sized((3, 4), "float32", 1)
    model = {"w": w, "turned": w.T, "steps": np.arange(3), "words": np.array(["a"])}
    there = opt.to_device(model, "cuda:1")
    assert type(there["w"]) is cp.ndarray and there["w"].device_id == 1 == there["steps"].device_id
    assert np.shares_memory(there["w"].host, there["turned"].host) and isinstance(there["words"], np.ndarray)
    back = opt.to_device(there, "cpu")
    assert bits(back["w"], back["turned"], back["steps"]) == bits(w, w.T, np.arange(3))
    here, _, reference, _ = trained()
    state, x = opt.to_device(reference, 1), opt.to_device(here, 1)
    g = sized((20, 3), "float32", 9)
    opt.update_(reference, here, g)
    opt.update_(state, x, opt.to_device(g, 1))
    assert bits(x.host) == bits(here) and type(state.state[1].m) is cp.ndarray
    assert isinstance(opt.to_device(state, "cpu").state[1].m, np.ndarray)


def test_destructure_slices_cupy_vectors():
    here = {"a": sized((3, 4), "float32", 1).T, "b": sized((5,), "float64", 2)}
    there = {key: cp.array(x) for key, x in here.items()}
    (flat, re), (device_flat, device_re) = opt.destructure(here), opt.destructure(there)
    assert type(device_flat) is cp.ndarray and bits(device_flat.host) == bits(flat)
    again = device_re(device_flat)
    assert bits({k: again[k].host for k in again}) == bits(re(flat))
    assert np.shares_memory(again["b"].host, device_flat.host)
    assert bits(device_re.flatten({"a": None, "b": there["b"]}).host) == bits(re.flatten({"a": None, "b": here["b"]}))
    with pytest.raises(TypeError, match="expected a CuPy array, got ndarray"):
        device_re(flat)


class Halved(opt.Rule):
    def init(self, x):
        return x * 0

    def apply(self, state, x, dx):
        if np.isnan(x.host if isinstance(x, cp.ndarray) else x).any():
            raise ArithmeticError
        return state + dx, dx / 2


@pytest.mark.parametrize("wrapped", [lambda rule: rule, opt.MixedPrecision], ids=["plain", "with master copy"])
def test_rules_written_in_python_compute_with_cupy(wrapped):
    rule = opt.OptimiserChain(opt.Momentum(0.1), Halved(), opt.ClipNorm(0.3))
    rule = opt.MixedPrecision(rule, "float64") if wrapped is opt.MixedPrecision else rule
    here, there, reference, state = trained(rule)
    assert bits(there.host) == bits(here)
    inner, wanted = (s.state[1] if wrapped is opt.MixedPrecision else s.state for s in (state, reference))
    assert bits(inner[1].host) == bits(wanted[1]) and type(inner[1]) is cp.ndarray
    before = bits(inner[0].v.host), state.clock
    there.host[0, 0] = np.nan
    with pytest.raises(ArithmeticError):
        opt.update_(state, there, cp.array(here))
    assert before == (bits(inner[0].v.host), state.clock)  # the native stage before it was put back


def test_a_rule_that_returns_a_host_array_is_refused():
    class Host(opt.Rule):
        def init(self, x):
            return None

        def apply(self, state, x, dx):
            return state, dx.get()

    x = cp.array(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="is a ndarray, expected a CuPy array like the parameter"):
        opt.update_(opt.setup(Host(), x), x, x)
