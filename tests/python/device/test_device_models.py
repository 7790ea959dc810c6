"""Models and states on (emulated) devices as wholes: pure updates, packing, walks, copies, pickles, to_device."""

import copy
import pickle

import numpy as np
import pytest
import torch
from device_arrays import CudaArray, DLPackArray, host, needs_emulation, on_device
from support import bits, copied, layers, sized

import optimisers as opt

pytestmark = needs_emulation

RULE = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam(0.1))


def trained(steps=2, rule=RULE):
    """A model and its state on the host, and the same on device 0."""
    here = layers(2)
    there = on_device(copied(here))
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(steps):
        opt.update_(states[0], here, layers(2, seed=50 + step))
        opt.update_(states[1], there, on_device(layers(2, seed=50 + step)))
    return here, there, *states


def goes_on_alike(model, state, here, reference, wrap):
    """Whether one more step of the state has the bits of one of the reference."""
    opt.update_(reference, here, layers(2, seed=90))
    opt.update_(state, model, wrap(layers(2, seed=90)))
    return bits(host(model)) == bits(here)


# ------------------------------------------------------------------------------------------- pure forms


def test_pure_update_returns_new_arrays_of_the_same_kind():
    here, there, reference, state = trained()
    before = bits(host(there)), bits(host(state["layers"][0].weight.state))
    new_state, new = opt.update(state, there, on_device(layers(2, seed=90)))
    assert before == (bits(host(there)), bits(host(state["layers"][0].weight.state)))
    opt.update_(reference, here, layers(2, seed=90))
    assert bits(host(new)) == bits(here) and isinstance(new["layers"][0]["bias"], CudaArray)
    assert new_state["layers"][0].bias.clock == reference["layers"][0].bias.clock


def test_pure_update_needs_arrays_that_can_be_copied():
    class Uncopied(CudaArray):
        copy = property()

    x = Uncopied(sized((3,), "float32", 1))
    with pytest.raises(TypeError, match="cannot copy Uncopied arrays"):
        opt.update(opt.setup(opt.Adam(), x), x, x)


def test_pure_adjust_and_freeze_copy_slots():
    _, there, _, state = trained()
    frozen, adjusted = opt.freeze(state), opt.adjust(state, 0.5)
    slots = bits(host(state["layers"][1].weight.state))
    opt.update_(adjusted, there, on_device(layers(2, seed=90)))
    assert bits(host(state["layers"][1].weight.state)) == slots == bits(host(frozen["layers"][1].weight.state))


def test_init_and_apply_give_the_bits_of_the_host():
    x, g = sized((40,), "float32", 1), sized((40,), "float32", 2)
    here, there = opt.init(RULE, x), opt.init(RULE, CudaArray(x))
    for _ in range(3):
        _, want = opt.apply_(RULE, here, x, g)
        _, got = opt.apply_(RULE, there, CudaArray(x), CudaArray(g))
        assert isinstance(got, opt.DeviceArray) and bits(host(got)) == bits(want)
    collecting = opt.AccumGrad(2)
    state = opt.init(collecting, CudaArray(x))
    assert opt.apply_(collecting, state, CudaArray(x), CudaArray(g))[1] is None
    assert bits(host(opt.apply_(collecting, state, CudaArray(x), CudaArray(g))[1])) == bits(g)


# --------------------------------------------------------------------------------- copies and pickles


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copied_and_pickled_states_go_on_alike(again):
    here, there, reference, state = trained()
    other = again(state)
    assert goes_on_alike(there, other, here, reference, on_device)


def test_pickles_keep_master_copies_clocks_and_devices():
    rule = opt.MixedPrecision(opt.Adam(0.01))
    here, there = sized((50,), "bfloat16", 1), DLPackArray(sized((50,), "bfloat16", 1), device=1)
    states = [opt.setup(rule, here), opt.setup(rule, there)]
    for step in range(4):
        g = sized((50,), "bfloat16", 2 + step)
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, DLPackArray(g, device=1))
        states[1] = pickle.loads(pickle.dumps(states[1]))
        assert bits(here) == bits(there.host) and states[0].clock == states[1].clock
    assert states[1].state[0].device == "cuda:1"


# --------------------------------------------------------------------------------------- destructure


def test_destructure_packs_and_rebuilds_on_the_device():
    here = {"a": sized((3, 4), "float32", 1).T, "b": sized((5,), "float64", 2), "n": 3}
    there = on_device(here)
    flat, re = opt.destructure(here)
    device_flat, device_re = opt.destructure(there)
    assert isinstance(device_flat, opt.DeviceArray) and bits(host(device_flat)) == bits(flat)
    again = device_re(device_flat)
    assert again["n"] == 3 and bits(host({k: again[k] for k in "ab"})) == bits({k: here[k] for k in "ab"})
    address = device_flat.__cuda_array_interface__["data"][0]
    assert again["b"].__cuda_array_interface__["data"][0] == address + 8 * 12  # a view; a is a converted copy
    gradients = {"a": here["a"] * 2, "b": None}
    assert bits(host(device_re.flatten(on_device(gradients)))) == bits(re.flatten(gradients))
    with pytest.raises(ValueError, match=r"\(17,\)"):
        device_re(CudaArray(np.zeros(16)))
    with pytest.raises(TypeError, match="re: expected an array on a CUDA device"):
        device_re(flat)


def test_flatten_sums_tied_gradients_on_the_device():
    w = CudaArray(sized((3, 3), "float32", 1))
    model = {"w": w, "again": w, "turned": CudaArray(w.host.T)}
    g = {name: sized((3, 3), "float32", i) for i, name in enumerate(model)}
    flat, re = opt.destructure(model)
    assert flat.shape == (9,)
    want = (g["w"] + g["again"]) + g["turned"].T
    assert bits(host(re.flatten(on_device(g)))) == bits(want.ravel())


def test_a_layout_trains_the_vector_as_if_it_were_the_tree():
    here, there, reference, _ = trained(0)
    flat, re = opt.destructure(there)
    state = opt.setup(RULE, flat, layout=re)
    opt.update_(reference, here, layers(2, seed=70))
    opt.update_(state, flat, re.flatten(on_device(layers(2, seed=70))))
    assert bits(host(re(flat))) == bits(here)
    opt.update_(reference, here, layers(2, seed=71))
    opt.update_(state, flat, on_device(layers(2, seed=71)))
    assert bits(host(re(flat))) == bits(here)
    opt.update_(reference, here, layers(2, seed=72))
    opt.update_(pickle.loads(pickle.dumps(state)), flat, on_device(layers(2, seed=72)))
    assert bits(host(re(flat))) == bits(here)


def test_one_vector_is_on_one_device():
    x = sized((3,), "float32", 1)
    with pytest.raises(ValueError, match="on the host and cuda:0; one vector cannot be on several"):
        opt.destructure([x, CudaArray(x.copy())])
    with pytest.raises(ValueError, match="on cuda:0 and cuda:1"):
        opt.destructure([DLPackArray(x), DLPackArray(x, device=1)])
    _, re = opt.destructure([CudaArray(x)])
    with pytest.raises(ValueError, match='array at "0" is on another device'):
        re.flatten([x])


# --------------------------------------------------------------------------------------- norm and lerp_


@pytest.mark.parametrize("p", [1, 2, 3.5, -2, float("inf"), float("-inf")])
def test_norm_has_the_bits_of_the_host(p):
    tree = {"a": sized((130, 70), "float32", 1), "b": [sized((5,), "complex128", 2), sized((9, 9), "float16", 3).T]}
    assert opt.norm(on_device(tree), p) == opt.norm(tree, p)


def test_norm_spans_devices_and_refuses_what_is_no_order():
    a, b = sized((3000,), "float32", 1), sized((3000,), "float32", 2)
    assert opt.norm([a, CudaArray(b), DLPackArray(a, device=1)]) == opt.norm([a, b, a.copy()])
    with pytest.raises(ValueError, match="p must be"):
        opt.norm(CudaArray(a), 0)


def test_lerp_has_the_bits_of_the_host():
    here, there, _, _ = trained()
    source = layers(2, seed=30)
    for _ in range(2):
        opt.lerp_(here, source, 0.3)
        assert opt.lerp_(there, on_device(source), 0.3) is there
    assert bits(here) == bits(host(there))
    with pytest.raises(ValueError, match=r"lerp_: .*device"):
        opt.lerp_(there, source, 0.3)
    assert bits(here) == bits(host(there))


def test_kept_gradients_are_set_to_zero():
    model = {"w": CudaArray(sized((4, 6), "float32", 1)), "b": DLPackArray(sized((3,), "bfloat16", 1), device=1)}
    g = {"w": CudaArray(sized((6, 4), "float32", 2).T), "b": DLPackArray(sized((3,), "bfloat16", 3), device=1)}
    pair = opt.Duplicated(model, g)
    state = opt.setup(opt.Descent(0.5), pair)
    opt.update_(state, pair, zero_grad=True)
    assert not any(host(a).any() for a in g.values())
    assert bits(model["w"].host) == bits(sized((4, 6), "float32", 1) - np.float32(0.5) * sized((6, 4), "float32", 2).T)
    read_only = opt.Duplicated(model, {"w": CudaArray(model["w"].host * 1, read_only=True), "b": None})
    with pytest.raises(ValueError, match='gradient at "w" cannot be set to zero: it is read-only'):
        opt.update_(state, read_only, zero_grad=True)


def test_kept_gradients_of_a_tied_array_count_once_for_each_array():
    g = sized((3, 4), "float32", 1), sized((4, 3), "float32", 2)
    for second, want in ((CudaArray(g[1]), -(g[0] + g[1].T)), (None, -g[0])):
        w, first = CudaArray(np.zeros((3, 4), np.float32)), CudaArray(g[0] * 1)
        pair = opt.Duplicated({"a": w, "b": w.transpose((1, 0))}, {"a": first, "b": second or first.transpose((1, 0))})
        opt.update_(opt.setup(opt.Descent(1.0), pair), pair, zero_grad=True)
        assert bits(w.host) == bits(want)
        assert not any(host(a).any() for a in pair.grads.values())


# --------------------------------------------------------------------------------------------- to_device


@pytest.mark.parametrize("way", [["cpu"], ["cuda:1", "cpu"], [1, "cuda", "cpu"], [torch.device("cuda", 1), "cpu"]])
def test_states_go_on_alike_wherever_they_move(way):
    here, there, reference, state = trained()
    there = opt.to_device(there, "cpu")
    assert bits(there) == bits(here)
    opt.freeze_(state["layers"][0].bias)
    opt.freeze_(reference["layers"][0].bias)
    for place in way:
        state = opt.to_device(state, place)
    assert "cuda" not in repr(state) and state["layers"][0].bias.frozen
    assert goes_on_alike(there, state, here, reference, lambda g: g)


def test_a_moved_state_takes_arrays_of_its_device_alone():
    x = DLPackArray(sized((5,), "float32", 1), device=1)
    state = opt.to_device(opt.setup(opt.Adam(), CudaArray(x.host.copy())), 1)
    assert state.state.m.device == "cuda:1"
    opt.update_(state, x, x.copy())
    with pytest.raises(ValueError, match="set up on device 1"):
        opt.update_(state, CudaArray(x.host), CudaArray(x.host))


def test_models_move_with_their_ties_and_all_arrays():
    w = CudaArray(sized((3, 4), "float32", 1))
    steps = CudaArray(np.arange(5))
    model = {"w": w, "tied": [w, CudaArray(w.host.T)], "steps": steps, "same": steps, "name": "net", "none": None}
    moved = opt.to_device(model, "cpu")
    assert moved["w"] is moved["tied"][0] and moved["steps"] is moved["same"] and moved["name"] == "net"
    assert isinstance(moved["w"], np.ndarray) and np.shares_memory(moved["w"], moved["tied"][1])
    assert bits(moved["w"], moved["tied"][1], moved["steps"]) == bits(w.host, w.host.T, steps.host)
    moved["w"][:] = 0
    assert w.host.all()
    there = opt.to_device(opt.DeviceArray.copy(opt.setup(opt.Momentum(), w).state.v), "cuda:1")
    assert there.device == "cuda:1" and not host(there).any()


def test_what_stays_on_the_host_is_copied_too():
    model = {"net": torch.nn.BatchNorm1d(3), "x": np.ones(2), "words": np.array(["a"]), "state": None}
    model["state"] = opt.setup(opt.Adam(), model["x"])
    moved = opt.to_device(model, "cpu")
    old, new = model["net"].state_dict(), moved["net"].state_dict()
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    assert not any(old[key].data_ptr() == new[key].data_ptr() for key in old)
    assert isinstance(moved["net"].weight, torch.nn.Parameter) and moved["net"].weight.requires_grad
    assert not np.shares_memory(moved["x"], model["x"]) and moved["words"] is not model["words"]
    opt.update_(moved["state"], moved["x"], np.ones(2))
    assert not model["state"].state.m.any()


def test_numpy_arrays_need_cupy_on_a_device():
    with pytest.raises(TypeError, match="CuPy, which has, is not installed"):
        opt.to_device({"w": np.ones(2)}, "cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", -1, None, True, "cpu:0"], ids=repr)
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match='to_device: expected "cpu", "cuda"'):
        opt.to_device({"w": np.ones(2)}, device)


def test_devices_that_are_not_there_are_refused():
    state = opt.setup(opt.Adam(), CudaArray(np.ones(2)))
    for x in (state, state.state.m):
        with pytest.raises(ValueError, match="no device cuda:7; there are 2"):
            opt.to_device(x, "cuda:7")


def test_a_part_of_a_state_does_not_move():
    state = opt.setup(opt.Adam(), {"enc": {"w": CudaArray(np.ones(2))}})
    with pytest.raises(ValueError, match='"enc" is a part of a state tree; convert the whole tree'):
        opt.to_device(state["enc"], "cpu")
