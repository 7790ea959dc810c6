"""torch: Modules as models, gradients from .grad, Duplicated, and autograd's view of what an update does."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import bits

import optimisers as opt


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU())
        self.head = torch.nn.Linear(3, 2, bias=False)
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.fixed = torch.nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x)) * self.scale * self.fixed


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def backward(net: torch.nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    loss = (net(x) ** 2).sum()
    loss.backward()
    return loss


TRAINED = ["scale", "encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "head.weight"]


def test_parameters_are_trained_and_buffers_and_fixed_ones_are_not(net: Net) -> None:
    assert [str(path) for path, _ in opt.trainables(net, path=True)] == TRAINED
    assert opt.trainables(net)[0] is net.scale


def test_children_are_known_by_name_in_whatever_order_a_module_has_them(net: Net) -> None:
    other = copy.deepcopy(net)
    states = opt.setup(opt.Adam(), net), opt.setup(opt.Adam(), other)
    scale, encoder = other.scale, other.encoder
    del other.scale, other.encoder
    other.scale, other.encoder = scale, encoder  # now behind `fixed`, and behind `head`
    for step in range(2):
        for state, model in zip(states, (net, other), strict=True):
            backward(model, step)
            opt.update_(state, model, zero_grad=True)
    values = other.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())
    other.renamed = other.__dict__["_modules"].pop("head")
    with pytest.raises(ValueError, match=r"update: the model has lost its child 'head'.*'renamed'"):
        opt.update_(states[1], other)


def test_the_state_is_reached_as_the_module_is(net: Net) -> None:
    state = opt.setup(opt.Adam(), net)
    assert state.encoder[0].weight.shape == (3, 4)
    assert state.encoder[-2].bias is state["encoder"]["1"].bias
    assert state.head.bias is None and state.fixed is None
    assert list(state) == ["scale", "fixed", "encoder", "head"]
    with pytest.raises(KeyError):
        state.encoder[7]


@pytest.mark.parametrize("chain", [["Adam"], ["ClipNorm", "Momentum"]])
def test_gradients_from_the_parameters_equal_gradients_as_argument(net: Net, chain: list[str]) -> None:
    rule = opt.OptimiserChain(*[getattr(opt, name)() for name in chain])
    other = copy.deepcopy(net)
    state, other_state = opt.setup(rule, net), opt.setup(rule, other)
    for step in range(3):
        net.zero_grad()
        other.zero_grad()
        backward(net, step)
        backward(other, step)
        opt.update_(state, net)
        grads = {
            "encoder": {str(i): {n: p.grad for n, p in other.encoder[i].named_parameters()} for i in range(3)},
            "head": {"weight": other.head.weight.grad},
            "scale": other.scale.grad,
        }
        opt.update_(other_state, other, grads)
    assert bits(list(net.state_dict().values())) == bits(list(other.state_dict().values()))


def test_one_step_equals_torch(net: Net) -> None:
    other = copy.deepcopy(net.eval())  # batch statistics leave a bias with a gradient of nothing but rounding
    reference = torch.optim.Adam(other.parameters(), lr=0.01)
    state = opt.setup(opt.Adam(0.01), net)
    for step in range(3):
        backward(net, step)
        opt.update_(state, net, zero_grad=True)
        reference.zero_grad()
        backward(other, step)
        reference.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_an_absent_grad_is_a_missing_gradient(net: Net) -> None:
    state = opt.setup(opt.Momentum(), net)
    backward(net)
    net.head.weight.grad = None
    before = bits([net.head.weight.detach(), net.fixed.detach()])
    opt.update_(state, net)
    assert bits([net.head.weight.detach(), net.fixed.detach()]) == before
    assert (state.head.weight.state.v == 0).all()
    assert not (state.scale.state.v == 0).all()


def test_autograd_does_not_record_an_update_but_a_stale_backward_is_caught(net: Net) -> None:
    state = opt.setup(opt.Descent(), net)
    backward(net)
    stale = (net(torch.ones(8, 4)) ** 2).sum()
    versions = [net.head.weight._version, net.head.weight.grad._version]
    opt.update_(state, net, zero_grad="zeros")
    assert net.head.weight.is_leaf and net.head.weight.grad_fn is None and net.head.weight.requires_grad
    assert net.head.weight._version > versions[0] and net.head.weight.grad._version > versions[1]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def test_tied_parameters_take_their_grad_once() -> None:
    a, b = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    b.weight = a.weight
    net = torch.nn.Sequential(a, b)
    before = a.weight.detach().clone()
    state = opt.setup(opt.Descent(1.0), net)
    assert state[0].weight is state[1].weight
    net(torch.ones(1, 2)).sum().backward()
    opt.update_(state, net)
    torch.testing.assert_close(a.weight.detach(), before - a.weight.grad)
    g = torch.ones(2, 2)
    before = a.weight.detach().clone()
    opt.update_(state, net, {"0": {"weight": g}, "1": {"weight": g}})  # an explicit tree is summed
    torch.testing.assert_close(a.weight.detach(), before - 2)


@pytest.mark.filterwarnings("error")
def test_a_transposed_view_of_a_parameter_is_not_asked_for_its_grad() -> None:
    w = torch.ones(2, 3, requires_grad=True)
    model = {"view": w.T, "w": w}
    (w * 2).sum().backward()
    opt.update_(opt.setup(opt.Descent(0.5), model), model)
    assert (w == 0).all()


def test_pure_update_copies_the_module(net: Net) -> None:
    old_state = opt.setup(opt.Adam(0.1), net)
    backward(net)
    before = bits(list(net.state_dict().values()))
    state, new = opt.update(old_state, net)
    assert bits(list(net.state_dict().values())) == before
    assert type(new) is Net and isinstance(new.head.weight, torch.nn.Parameter)
    shared = {t.data_ptr() for t in net.state_dict().values()} & {t.data_ptr() for t in new.state_dict().values()}
    assert not shared
    opt.update_(old_state, net)
    assert bits([p.detach() for p in net.parameters()]) == bits([p.detach() for p in new.parameters()])
    backward(new)
    opt.update_(state, new)


def test_a_part_is_updated_alone_and_modules_stand_inside_dicts(net: Net) -> None:
    model = {"net": net, "extra": torch.nn.Linear(1, 1)}
    state = opt.setup(opt.Descent(), model)
    backward(net)
    before = bits(net.scale.detach())
    opt.update_(state["net"].encoder, net.encoder)
    assert bits(net.scale.detach()) == before
    _, new = opt.update(state, model, {"net": None, "extra": {"weight": torch.ones(1, 1)}})
    torch.testing.assert_close(new["extra"].weight, model["extra"].weight - 0.1)
    assert new["net"] is not net


def test_a_module_that_has_changed_is_refused(net: Net) -> None:
    state = opt.setup(opt.Descent(), net)
    net.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="parameters and child modules, had 4: 'extra' is new; call extend_"):
        opt.update_(state, net)
    with pytest.raises(ValueError, match="has the key 'nose'"):
        opt.update_(opt.setup(opt.Descent(), net), net, {"nose": None})


def test_numpy_arrays_keep_no_gradient() -> None:
    model = {"w": np.ones(2)}
    with pytest.raises(ValueError, match='parameter at "w" is a ndarray, which keeps no gradient'):
        opt.update_(opt.setup(opt.Descent(), model), model)


def test_a_plain_tensor_and_a_flat_vector_keep_theirs(net: Net) -> None:
    x = torch.ones(2, requires_grad=True)
    (3 * x).sum().backward()
    opt.update_(opt.setup(opt.Descent(0.5), x), x)
    assert (x == -0.5).all()
    flat, re = opt.destructure(net)
    flat = flat.detach().requires_grad_()
    (flat**2).sum().backward()
    state = opt.setup(opt.Descent(0.5), flat, layout=re)
    opt.update_(state, flat, zero_grad="zeros")
    assert (flat == 0).all() and (flat.grad == 0).all()
    opt.update_(state, flat, zero_grad=True)
    assert flat.grad is None


def test_duplicated_holds_accumulated_gradients() -> None:
    w = np.zeros((2, 3))
    g = np.ones((2, 3))
    pair = opt.Duplicated({"a": w, "b": w.T}, {"a": g, "b": g.T})
    state = opt.setup(opt.Descent(1.0), pair)
    assert opt.update_(state, pair, zero_grad=True)[1] is pair
    assert (w == -1).all() and (g == 0).all()  # once, not twice
    g[:] = 1
    _, new = opt.update(state, pair)
    assert (w == -1).all() and (new.model["b"] == -2).all() and new.grads is pair.grads


def test_duplicated_deeper_inside_is_refused() -> None:
    pair = opt.Duplicated(np.ones(2), np.ones(2))
    with pytest.raises(TypeError, match='Duplicated at "a"'):
        opt.setup(opt.Descent(), {"a": pair})
    with pytest.raises(TypeError, match="pass one of them"):
        opt.update_(opt.setup(opt.Descent(), pair), pair, np.ones(2))


def test_destructure_of_a_module_and_back(net: Net) -> None:
    flat, re = opt.destructure(net)
    rebuilt = re(flat.detach())
    assert type(rebuilt) is Net and rebuilt.head.weight.data_ptr() != net.head.weight.data_ptr()
    x = torch.ones(8, 4)
    net.eval()
    torch.testing.assert_close(re(flat.detach()).eval()(x), net(x))


def test_autograd_goes_through_destructure_and_re(net: Net) -> None:
    net.eval()
    x = torch.randn(8, 4)
    flat, re = opt.destructure(net)
    flat = flat.detach().requires_grad_()
    (re(flat)(x) ** 2).sum().backward()
    (net(x) ** 2).sum().backward()
    grads = [p.grad for p in opt.trainables(net)]
    torch.testing.assert_close(flat.grad, torch.cat([g.reshape(-1) for g in grads]))
    assert opt.destructure(net)[0].requires_grad
    total = sum((p**2).sum() for p in opt.trainables(net))
    assert torch.autograd.grad(total, net.scale)[0].tolist() == [2.0, 2.0]
    tree = {"scale": net.scale * 3}
    assert torch.autograd.grad(re.flatten(tree).sum(), net.scale)[0].tolist() == [3.0, 3.0]


def test_states_of_modules_copy_and_pickle(net: Net) -> None:
    state = opt.setup(opt.Momentum(), net)
    backward(net)
    opt.update_(state, net)
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert bits(other.encoder[0].weight.state) == bits(state.encoder[0].weight.state)


def test_a_module_without_parameters_warns() -> None:
    with pytest.warns(UserWarning, match="no trained array"):
        opt.setup(opt.Adam(), torch.nn.ReLU())


def test_a_torch_that_is_too_old_is_named() -> None:
    code = (
        "import torch, optimisers as opt\n"
        "del torch.Tensor.__dlpack_c_exchange_api__\n"
        "try: opt.setup(opt.Adam(), {'w': torch.ones(3)})\n"
        "except TypeError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = f'array at "w" is a tensor of torch {torch.__version__}, which has no DLPack C exchange API for tensors'
    assert expected in told
