"""What libraries are told of arrays they lent to an (emulated) device: until when they are read, on which streams."""

import numpy as np
import pytest
import stand_in_cupy as cp
import torch
from device_arrays import CudaArray, DLPackArray, host, needs_emulation
from lent_arrays import JaxArray, torch_on_device
from support import bits, sized

import optimisers as opt

pytestmark = needs_emulation
X, G = sized((50,), "float32", 1), sized((50,), "float32", 2)


# ------------------------------------------------------------------------------------------------------- JAX


def test_lerp_lets_go_of_jax_arrays_once_the_device_is_done(calls):
    """JAX frees what nobody holds, whichever streams still read it."""
    x, source = CudaArray(X.copy()), JaxArray(G)
    calls()
    opt.lerp_(x, source, 0.5, stream=0x50)
    assert calls("launch", "wait")[-1] == "wait 0 0x50" and source.lent == 0
    assert bits(x.host) == bits((X + G) / 2)


def test_packing_lets_go_of_jax_arrays_once_the_device_is_done(calls):
    model = [CudaArray(X.copy())]
    _, restructure = opt.destructure(model)
    gradient = JaxArray(G)
    calls()
    packed = restructure.flatten([gradient])
    assert calls("launch", "wait")[-1] == "wait 0 0x0" and gradient.lent == 0
    assert bits(host(packed)) == bits(G)


@pytest.mark.parametrize("of", ["gradient", "array"])
def test_a_rule_applied_to_jax_arrays_holds_them(calls, monkeypatch, of):
    monkeypatch.setattr("optimisers._arrays.jax_from", lambda array, like: array)  # JAX has no such device here
    x = CudaArray(X.copy()) if of == "gradient" else JaxArray(X)
    g = JaxArray(G) if of == "gradient" else CudaArray(G)
    lent = g if of == "gradient" else x
    state = opt.init(opt.Adam(), x)
    assert lent.lent == 0
    state, dx = opt.apply_(opt.Adam(), state, x, g)
    assert lent.lent == 1
    calls()
    opt.wait(state)
    assert calls("wait")[0] == "wait 0 0x0" and lent.lent == 0
    _, there = opt.apply_(opt.Adam(), opt.init(opt.Adam(), X), X, G)
    assert bits(host(dx)) == bits(there)


def test_arrays_held_are_waited_for_on_a_stream_that_is_alive(calls, monkeypatch):
    x = CudaArray(X.copy())
    state = opt.setup(opt.Adam(), x)
    gradient = JaxArray(G)
    opt.update_(state, x, gradient, stream=0x50)
    monkeypatch.setenv("OPTIMISERS_EMULATED_DESTROYED", "0x50")
    calls()
    opt.update_(state, x, CudaArray(G), stream=0x60)
    assert calls("await", "wait")[:2] == ["await 0 0x60", "wait 0 0x60"] and gradient.lent == 0
    gradient = JaxArray(G)
    opt.update_(state, x, gradient, stream=0x60)
    monkeypatch.setenv("OPTIMISERS_EMULATED_DESTROYED", "0x60")
    del state
    assert calls("wait")[-1] == "wait 0 0x0" and gradient.lent == 0


def test_in_a_capture_jax_arrays_are_waited_for_by_the_host(monkeypatch):
    """JAX takes any number for a stream's handle, DLPack's -1 too."""
    x, held, gradient = CudaArray(X.copy()), JaxArray(G), JaxArray(G)
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, held)
    monkeypatch.setenv("OPTIMISERS_EMULATED_CAPTURE", "1")
    opt.update_(state, x, gradient)
    opt.update_(state, x, gradient)
    opt.lerp_(x, gradient, 0.5)
    assert gradient.lender.streams == [None, None, None]
    assert held.lent == 1  # nothing can be waited for
    monkeypatch.delenv("OPTIMISERS_EMULATED_CAPTURE")
    opt.wait(state)
    assert held.lent == gradient.lent == 0


# ----------------------------------------------------------------------------------------------------- torch


def test_torch_gradients_of_another_librarys_arrays_are_ordered(calls):
    x, g = CudaArray(X.copy()), torch.from_numpy(G.copy())
    state = opt.setup(opt.Adam(), x)
    with torch_on_device(stream=0x70) as there:
        there.append(g)
        calls()
        opt.update_(state, x, g)
        found = calls("follow", "launch")
        assert found[0] == "follow 0 0x0" and found[-1] == "follow 0 0x70" and len(found) > 2
        opt.lerp_(x, g, 0.5)
        found = calls("follow", "launch")
        assert found[0] == "follow 0 0x0" and found[-1] == "follow 0 0x70" and len(found) > 2
        opt.norm([x, g])
        assert calls("follow", "launch")[0] == "follow 0 0x0"


def test_torch_parameters_beside_another_librarys_are_ordered(calls):
    model = [CudaArray(X.copy()), torch.from_numpy(X.copy())]
    with torch_on_device(stream=0x70) as there:
        there.append(model[1])
        state = opt.setup(opt.Adam(), model)
        calls()
        opt.update_(state, model, [CudaArray(G), CudaArray(G)])
        found = calls("follow", "launch")
        assert found[0] == "follow 0 0x0" and found[-1] == "follow 0 0x70"
    assert bits(model[0].host) == bits(model[1].numpy())


def test_torch_is_not_followed_where_the_stream_is_its_own_or_given(calls, monkeypatch):
    x, g = torch.from_numpy(X.copy()), torch.from_numpy(G.copy())
    told = []
    monkeypatch.setattr("optimisers._arrays.record_stream", lambda tensors, stream: told.append((tensors, stream)))
    with torch_on_device(stream=0x70) as there:
        there += [x, g]
        state = opt.setup(opt.Adam(), x)
        opt.update_(state, x, g)
        opt.lerp_(x, g, 0.5)
        assert not calls("follow")
        assert not told
        opt.update_(state, x, g, stream=0x50)
        opt.lerp_(x, g, 0.5, stream=0x50)
        assert [([id(t) for t in tensors], stream) for tensors, stream in told] == [([id(x), id(g)], 0x50)] * 2
        assert not calls("follow")


def test_cupys_stream_goes_on_behind_lerp_and_zeroing_on_another_one(calls, cupy):
    cp.current.ptr = 0x60
    opt.lerp_(CudaArray(X.copy()), cp.array(G), 0.5)
    assert calls("launch", "follow")[-1] == "follow 0 0x60"
    x, g = CudaArray(X.copy()), cp.array(G)
    state = opt.setup(opt.Adam(), x)
    calls()
    opt.update_(state, opt.Duplicated(x, g), zero_grad=True)
    assert calls("launch", "follow")[-1] == "follow 0 0x60" and not g.host.any()


# --------------------------------------------------------------------------------------------------- streams


def test_a_stream_given_is_not_used_again(calls):
    x = CudaArray(X.copy())
    state = opt.setup(opt.Adam(), x)
    opt.update_(state, x, CudaArray(G), stream=0x50)
    calls()
    opt.update_(state, x, CudaArray(G))
    assert calls("launch")[-1] == "launch 0 0x0"


def test_arrays_that_name_different_streams_are_all_ordered(calls):
    """Work goes to the first one's stream, behind the others; the last one's is not behind what writes the first."""
    model = [CudaArray(X.copy(), stream=stream) for stream in (0x40, 0x50)]
    state = opt.setup(opt.Adam(), model)
    calls()
    opt.update_(state, model, [CudaArray(G), CudaArray(G)])
    found = calls("follow", "launch")
    assert found[-1] == "launch 0 0x40" and "follow 0 0x40" in found


def test_arrays_handed_out_outlive_the_stream_they_were_made_on(calls, cupy, monkeypatch):
    cp.current.ptr = 0x60
    model = [cp.array(X), DLPackArray(X)]
    state = opt.setup(opt.Adam(), model)
    opt.update_(state, model, [cp.array(G), DLPackArray(G)])
    slot = state[1].state.m
    cp.current.ptr = 0x70
    monkeypatch.setenv("OPTIMISERS_EMULATED_DESTROYED", "0x60")
    calls()
    slot.__dlpack__(stream=0x80)
    assert calls() == ["await 0 0x80"]
    assert slot.__cuda_array_interface__["stream"] == 1 and calls() == ["await 0 0x0"]
    copy = slot.copy()
    opt.norm(slot, stream=0x90)
    assert "await 0 0x90" in calls()
    assert bits(host(copy)) == bits(np.float32(1 - 0.9) * G)
