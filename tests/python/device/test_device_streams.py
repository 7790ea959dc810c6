"""Which stream of an (emulated) device is ordered behind which: the calls the emulation writes down."""

import copy
import pickle

import numpy as np
import pytest
import stand_in_cupy as cp
from device_arrays import CudaArray, DLPackArray, needs_emulation, on_device
from support import layers, sized

import optimisers as opt

pytestmark = needs_emulation
X, G = sized((50,), "float32", 1), sized((50,), "float32", 2)


READS = {
    "clock": lambda state: state.clock,
    "slots": lambda state: state.state.m,
    "wait": opt.wait,
    "pickle": pickle.dumps,
    "copy": copy.deepcopy,
    "to_device": lambda state: opt.to_device(state, "cpu"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_reads_a_state_follows_a_step_on_another_stream(calls, cupy, read):
    x, g = cp.array(X), cp.array(G)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, g, stream=0x50)
    calls()
    read(state)
    assert calls("await", "copy", "wait")[0] == "await 0 0x0"


def test_norm_and_lerp_follow_arrays_that_came_in_on_another_stream(calls, cupy):
    cp.current.ptr = 0x60
    tree = [cp.array(X), DLPackArray(G)]  # the first one's library decides
    calls()
    opt.norm(tree)
    assert "follow 0 0x60" in calls()
    opt.lerp_(tree, [cp.array(G), DLPackArray(X)], 0.5)
    assert "follow 0 0x60" in calls()


def test_cupys_stream_goes_on_behind_a_step_on_another_one(calls, cupy):
    x = CudaArray(X.copy())
    state = opt.setup(opt.Adam(), x)
    cp.current.ptr = 0x60
    calls()
    opt.update_(state, x, cp.array(G), stream=0x50)
    found = calls("launch", "follow")
    assert found[-1] == "follow 0 0x60" and "launch 0 0x50" in found
    opt.update_(state, x, cp.array(G), stream=0x60)
    assert not calls("follow")


def test_setup_follows_arrays_that_came_in_on_another_stream(calls, cupy):
    cp.current.ptr = 0x60
    tree = [cp.array(X), DLPackArray(G)]
    calls()
    opt.setup(opt.MixedPrecision(opt.Adam(), "float64"), tree)  # reads them
    assert calls("follow", "launch")[0] == "follow 0 0x60"


def test_a_setup_that_fails_leaves_no_stream_behind(cupy):
    cp.current.ptr = 0x60
    with pytest.raises(ValueError, match="16 stages"):
        opt.setup(opt.OptimiserChain(*[opt.Descent()] * 17), cp.array(X))
    x = DLPackArray(X)
    opt.to_device(x, "cpu")
    assert set(x.streams) == {1}


def test_a_capture_is_ordered_with_nothing_outside_of_it(calls, cupy, monkeypatch):
    """Waiting for another stream's event would end it, and so would another stream that waits for its."""
    cp.current.ptr = 0x60
    x, other = cp.array(X), CudaArray(G.copy(), stream=0x70)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, cp.array(G))
    opt.lerp_(x, cp.array(G), 0.5)
    cp.asked.clear()
    calls()
    monkeypatch.setenv("OPTIMISERS_EMULATED_CAPTURE", "1")
    opt.lerp_(x, cp.array(G), 0.5)
    opt.lerp_(x, other, 0.5)
    with pytest.raises(ValueError, match="cannot be part of the CUDA graph"):
        opt.norm(x)
    opt.update_(state, x, cp.array(G))
    opt.update_(state, x, other)
    lent = DLPackArray(G)
    opt.update_(state, x, lent)
    assert set(cp.asked) == {-1} == set(lent.streams) and not calls("follow", "await", "wait")


def test_parts_that_take_turns_wait_for_no_memory(calls):
    """Each part's norms have tables of their own, and getting or giving back memory waits for the whole device."""
    rule = opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam())
    model, gradients = on_device(layers(3)), on_device(layers(3, seed=9))
    state = opt.setup(rule, model)

    def take_turns():
        for layer in range(3):
            opt.update_(state["layers"][layer], model["layers"][layer], gradients["layers"][layer])
        opt.update_(state, model, gradients)

    take_turns()
    calls()
    take_turns()
    assert calls("allocate", "free") == []


def test_adjusting_is_a_launch_for_each_stage_and_not_for_each_leaf(calls):
    model = on_device(layers(40))
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam()), model)
    calls()
    opt.adjust_(state, 0.1)
    assert [line.split()[0] for line in calls()] == ["launch", "launch", "record"]


def test_moving_within_devices_has_arrived_on_return(calls):
    calls()
    opt.to_device(DLPackArray(X), "cuda:0")
    assert calls("copy", "wait")[-1] == "wait 0 0x0"


MODELS = {
    "layers": (lambda: layers(3), opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.Adam())),
    "transposed": (lambda: [sized((5, 4, 3), "float32", 1).transpose(2, 0, 1)], opt.Adam()),
    "16-bit": (
        lambda: [sized((40,), "bfloat16", 1)],
        opt.MixedPrecision(opt.OptimiserChain(opt.ClipNorm(1.0), opt.Adam())),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_first_step_allocates_nothing(calls, name):
    make, rule = MODELS[name]
    model, gradients = on_device(make()), on_device(make())
    state = opt.setup(rule, model)
    calls()
    opt.update_(state, model, gradients)
    found = calls()
    assert any(line.startswith("launch") for line in found)
    assert [line for line in found if line.startswith(("allocate", "free", "load"))] == []


def test_the_first_step_of_a_tied_model_allocates_nothing(calls):
    shared = CudaArray(sized((4, 3), "float32", 1))
    state = opt.setup(opt.Adam(), [shared, shared])
    calls()
    opt.update_(state, [shared, shared], on_device([sized((4, 3), "float32", seed).copy(order="F") for seed in (2, 3)]))
    found = calls()
    assert any(line.startswith("launch") for line in found)
    assert [line for line in found if line.startswith(("allocate", "free"))] == []


def test_calls_that_come_again_allocate_nothing_and_send_what_changed(calls):
    x, g, other = CudaArray(X.copy()), CudaArray(G.copy()), CudaArray(X.copy())
    state = opt.setup(opt.Adam(), x)

    def step(stream=None):
        opt.update_(state, opt.Duplicated(x, g), zero_grad=True, stream=stream)
        opt.lerp_(other, x, 0.1, stream=stream)
        return opt.norm([x, other], stream=stream), opt.norm([x, other], 1, stream=stream)

    step()
    calls()
    before = np.linalg.norm([x.host, other.host])
    x.host[:], other.host[:] = X, G
    again = step()
    found = calls()
    assert [line for line in found if line.startswith(("allocate", "free", "release", "load"))] == []
    assert sum(line.startswith("launch") for line in found) == 5  # the step, zeroing, lerp_, and two norms
    assert again[0] != before
    assert np.allclose(again, (np.linalg.norm([x.host, other.host]), np.abs([x.host, other.host]).sum()), rtol=1e-6)
    step(stream=0x50)
    assert calls("launch")[-1] == "launch 0 0x50"


def test_tables_of_one_stream_are_not_those_of_another(calls):
    """What is on its way on one stream is not there yet for the other."""
    x, y, z = (CudaArray(sized((50,), "float32", seed)) for seed in (1, 2, 3))
    opt.lerp_(x, y, 0.5, stream=0x50)
    opt.lerp_(x, z, 0.5, stream=0x60)
    calls()
    opt.lerp_(x, y, 0.5, stream=0x50)
    assert len(calls("launch")) == 1
    opt.lerp_(x, y, 0.5, stream=0x60)
    assert len(calls("launch")) == 2  # the addresses were others
