"""Torch on a real GPU: the bits of the host, zero-copy state, modules, packing, moving, faults."""

import copy
import gc
import math
import os
import pickle

import numpy as np
import pytest
import torch
from gpu_support import close, cpu, cuda, needs_gpu, needs_two_gpus, same_bits
from support import (
    REFUSES_COMPLEX,
    SUMS,
    TORCH_DTYPES,
    all_variants,
    build,
    is_complex,
    layers,
    mapped,
    sized,
    spec_id,
    stages,
)
from support import to_torch as tensor

import optimisers as opt

pytestmark = needs_gpu
RULE = opt.OptimiserChain(opt.ClipNorm(0.5), opt.AdamW(0.1, lambda_=0.1))


def model_of(seed=0):
    return mapped(tensor, layers(4, seed=seed))


def through_pow(spec) -> bool:
    """ClipNorm of an order that takes a power, whose last bit is the machine's."""
    return dict(spec[1]).get("p", 2.0) in (3.5, -2.0)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("spec", all_variants(), ids=spec_id)
def test_every_rule_gives_the_bits_of_the_host(spec, dtype):
    if is_complex(dtype) and REFUSES_COMPLEX & set(stages(spec)):
        pytest.skip("this rule refuses complex arrays")
    if SUMS & set(stages(spec)):
        pytest.skip("this rule sums over its leaf, on the host only")
    here, there = tensor(sized((267, 15), dtype, 1)), tensor(sized((267, 15), dtype, 1)).cuda()
    states = opt.setup(build(spec), here), opt.setup(build(spec), there)
    for step in range(4):
        g = tensor(sized((267, 15), dtype, 2 + step))
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, g.cuda())
    if through_pow(spec):
        assert close(here, there, 1e-2 if g.element_size() == 2 else 1e-6)
    else:
        assert same_bits((here, tuple(states[0].state)), (there, tuple(states[1].state)))
    assert states[0].clock == states[1].clock


@pytest.mark.parametrize("scope", ["leaf", "global"])
@pytest.mark.parametrize("size", [0, 1, 4097, 1 << 22])
def test_chains_and_norms_give_the_bits_of_the_host(size, scope):
    rule = opt.OptimiserChain(opt.Momentum(0.1), opt.ClipNorm(0.01, scope=scope), opt.WeightDecay(0.1), opt.NAdam())
    here = {"a": tensor(sized((size,), "float32", 1)), "b": tensor(sized((33, 7), "float32", 2)).T}
    there = cuda(here)
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(3):
        g = {"a": tensor(sized((size,), "float32", 3 + step)), "b": tensor(sized((7, 33), "float32", 9 + step))}
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, cuda(g))
    assert same_bits(here, there)
    for p in (1, 2, float("inf")):
        assert opt.norm(there, p) == opt.norm(here, p)


def test_mixed_precision_and_accumulation():
    rule = opt.MixedPrecision(opt.OptimiserChain(opt.AccumGrad(2), opt.Adam(0.01)))
    here = tensor(sized((500,), "bfloat16", 1))
    there = here.cuda()
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(6):
        g = None if step == 3 else tensor(sized((500,), "bfloat16", 2 + step))
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, None if g is None else g.cuda())
    master = states[1].state[0]
    assert master.dtype == torch.float32 and master.is_cuda
    assert same_bits((here, states[0].state[0]), (there, master)) and states[0].clock == states[1].clock


def test_slots_are_tensors_of_the_state_itself():
    x = torch.ones(100, device="cuda")
    state = opt.setup(opt.Momentum(0.5, rho=0.0), x)
    v = state.state.v
    assert v.is_cuda and v.dtype == x.dtype and v.data_ptr() == state.state.v.data_ptr()
    opt.update_(state, x, torch.ones_like(x))
    assert (v == 0.5).all()
    v.fill_(3.0)
    assert (state.state.v == 3).all()
    del state
    gc.collect()
    assert (v == 3).all()


def test_modules_keep_their_gradients_and_versions():
    def step(net, x, state):
        loss = net(x).square().mean()
        loss.backward()
        opt.update_(state, net, zero_grad=True)
        return loss

    torch.manual_seed(0)
    here = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    there = copy.deepcopy(here).cuda()
    x = torch.randn(32, 8)
    states = opt.setup(opt.Adam(0.01), here), opt.setup(opt.Adam(0.01), there)
    losses = [(step(here, x, states[0]).item(), step(there, x.cuda(), states[1]).item()) for _ in range(20)]
    assert np.allclose(*zip(*losses, strict=True), rtol=1e-3) and losses[-1][1] < losses[0][1]
    assert all(p.grad is None for p in there.parameters())


def test_a_stale_backward_is_caught():
    w = torch.ones(3, device="cuda", requires_grad=True)
    loss = (w * w).sum()
    opt.update_(opt.setup(opt.Descent(), w), w, torch.ones(3, device="cuda"))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_pure_update_leaves_the_old_alone():
    model, gradients = cuda(model_of()), cuda(model_of(9))
    state = opt.setup(RULE, model)
    before = cpu(model)
    new_state, new = opt.update(state, model, gradients)
    assert same_bits(model, before) and not same_bits(new, before)
    opt.update_(state, model, gradients)
    assert same_bits(model, new) and new_state["layers"][0].bias.clock == state["layers"][0].bias.clock


def test_a_lazy_conjugate_is_computed():
    here = tensor(sized((50,), "complex64", 1))
    there, g = here.cuda(), tensor(sized((50,), "complex64", 2))
    opt.update_(opt.setup(opt.Adam(), here), here, g.conj())
    opt.update_(opt.setup(opt.Adam(), there), there, g.cuda().conj())
    assert same_bits(here, there)


def test_destructure_and_layout():
    here, there = model_of(), cuda(model_of())
    (flat, re), (device_flat, device_re) = opt.destructure(here), opt.destructure(there)
    assert device_flat.is_cuda and same_bits(flat, device_flat)
    assert same_bits(device_re.flatten(cuda(model_of(3))), re.flatten(model_of(3)))
    assert device_re(device_flat)["layers"][0]["weight"].data_ptr() == device_flat.data_ptr()
    states = opt.setup(RULE, flat, layout=re), opt.setup(RULE, device_flat, layout=device_re)
    opt.update_(states[0], flat, model_of(5))
    opt.update_(states[1], device_flat, cuda(model_of(5)))
    assert same_bits(flat, device_flat)


def test_lerp_gives_the_bits_of_the_host():
    here, there = model_of(), cuda(model_of())
    opt.lerp_(here, model_of(1), 0.3)
    opt.lerp_(there, cuda(model_of(1)), 0.3)
    assert same_bits(here, there)


AGAIN = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "to the host and back": lambda state: opt.to_device(opt.to_device(state, "cpu"), 0),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_copied_pickled_and_moved_states_go_on_alike(again):
    model = cuda(model_of())
    state = opt.setup(RULE, model)
    opt.update_(state, model, cuda(model_of(5)))
    other_model = opt.to_device(model, "cuda:0")
    other = again(state)
    opt.update_(state, model, cuda(model_of(6)))
    opt.update_(other, other_model, cuda(model_of(6)))
    assert same_bits(model, other_model)
    weight = other["layers"][0].weight.state[1].m
    assert weight.is_cuda and same_bits(weight, state["layers"][0].weight.state[1].m)


def test_a_module_moves_with_buffers_and_ties():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    net.tied = net[0].weight
    moved = opt.to_device(net, "cuda")
    assert all(t.is_cuda for t in moved.state_dict().values()) and moved.tied is moved[0].weight
    assert not any(t.is_cuda for t in net.state_dict().values())


class Halved(opt.Rule):
    """Keeps the sum of what came, and halves it."""

    def init(self, x):
        return torch.zeros_like(x)

    def apply(self, state, x, dx):
        assert x.is_cuda and dx.is_cuda
        if torch.isnan(dx).any():
            raise ArithmeticError("nan")
        return state + dx, dx / 2


def test_rules_written_in_python_compute_with_tensors():
    rule = opt.OptimiserChain(opt.Momentum(1.0), Halved(), opt.ClipGrad(0.2))
    x = torch.zeros(4, device="cuda")
    state = opt.setup(rule, x)
    opt.update_(state, x, torch.full((4,), 0.1, device="cuda"))
    assert torch.equal(x, torch.full((4,), -0.05, device="cuda")) and (state.state[1] == 0.1).all()
    before = cpu((x, state.state[0].v.clone()))
    with pytest.raises(ArithmeticError):
        opt.update_(state, x, torch.full((4,), torch.nan, device="cuda"))
    assert same_bits((x, state.state[0].v), before)


def test_a_gradient_elsewhere_is_an_error_with_its_path():
    model = {"a": {"w": torch.ones(3, device="cuda")}, "b": torch.ones(3)}
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(ValueError, match=r'gradient at "a\.w" is on the host, its parameter is on device 0'):
        opt.update_(state, model, {"a": {"w": torch.ones(3)}, "b": torch.ones(3)})
    with pytest.raises(ValueError, match='gradient at "b" is on device 0, its parameter is on the host'):
        opt.update_(state, model, {"b": torch.ones(3, device="cuda")})
    assert (model["a"]["w"] == 1).all() and (model["b"] == 1).all()


@needs_two_gpus
def test_leaves_on_two_gpus_are_one_tree():
    here = {"a": tensor(sized((300,), "float32", 1)), "b": tensor(sized((300,), "float32", 2))}
    there = {"a": here["a"].to("cuda:0"), "b": here["b"].to("cuda:1")}
    states = opt.setup(RULE, here), opt.setup(RULE, there)
    for step in range(3):
        g = {"a": tensor(sized((300,), "float32", 3 + step)), "b": tensor(sized((300,), "float32", 9 + step))}
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, {"a": g["a"].to("cuda:0"), "b": g["b"].to("cuda:1")})
    assert same_bits(here, there)
    assert same_bits(opt.to_device(states[1], 1)["a"].state[1].m, states[0]["a"].state[1].m)


def test_more_elements_than_32_bits_count():
    n = 2**31 + 4099
    if torch.cuda.mem_get_info()[0] < 20 * n // 3:
        pytest.skip("needs 15 GB of free device memory")
    x, g = torch.ones(n, dtype=torch.bfloat16, device="cuda"), torch.ones(n, dtype=torch.bfloat16, device="cuda")
    assert opt.norm(g) == math.sqrt(n)  # the sum of squares is exact in double
    opt.update_(opt.setup(opt.OptimiserChain(opt.ClipNorm(math.sqrt(n) / 2), opt.Descent(0.5)), x), x, g)
    assert all((part == 0.75).all() for part in x.split(2**28))
    opt.lerp_(x, g, 0.5)
    assert all((part == 0.875).all() for part in x.split(2**28))


def test_too_little_memory_leaves_everything_as_it_is():
    free, _ = torch.cuda.mem_get_info()
    x = torch.zeros(int(free * 0.45) // 4, device="cuda")
    small = torch.ones(10, device="cuda")
    state = opt.setup(opt.Adam(), small)
    with pytest.raises(opt.DeviceMemoryError, match="out of memory on device 0"):
        opt.setup(opt.Adam(), x)
    opt.update_(state, small, torch.ones(10, device="cuda"))
    assert (small < 1).all() and not x[:: len(x) // 7].any()


def test_a_forked_process_is_told():
    x = torch.ones(10, device="cuda")
    state = opt.setup(opt.Adam(), x)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(opt.DeviceError, match="forked"):
                opt.update_(state, x, x)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
