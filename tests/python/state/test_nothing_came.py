"""An update in which no array got a gradient, though some were expected, says so: once a state."""

import copy
import warnings

import numpy as np
import pytest
import torch

import optimisers as opt


def ones() -> np.ndarray:
    return np.ones(2, np.float32)


def silent(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


@pytest.mark.parametrize("tree", [{}, {"a": None, "b": None}, {"b": {}}, {"b": {"c": None}}, {"n": None}])
@pytest.mark.parametrize("update", [opt.update_, opt.update])
def test_a_tree_without_any_gradient_is_a_warning_once_a_state(update, tree):
    model = {"a": ones(), "b": {"c": ones()}, "n": 3}
    state = opt.setup(opt.Descent(0.5), model)
    with pytest.warns(
        UserWarning, match=r'update: no array got a gradient.*\(None, or no key\) for "a", "b.c"$'
    ) as caught:
        state, model = update(state, model, tree)
    assert caught[0].filename == __file__
    silent(lambda: update(state, model, tree))
    silent(lambda: opt.update_(copy.deepcopy(state), model, tree))


def test_positions_too():
    model = [ones(), ones()]
    with pytest.warns(UserWarning, match='for "0", "1"'):
        opt.update_(opt.setup(opt.Descent(0.5), model), model, [None, None])


def test_arrays_that_keep_no_gradient_yet_are_a_warning_that_names_backward():
    net = torch.nn.Linear(2, 1)
    state = opt.setup(opt.Adam(), net)
    with pytest.warns(UserWarning, match=r"every \.grad is None; call loss\.backward\(\)"):
        opt.update_(state, net)
    net(torch.ones(1, 2)).sum().backward()
    silent(lambda: opt.update_(state, net, zero_grad=True))
    flat, re = opt.destructure({"w": torch.ones(2)})
    flat.requires_grad_()
    with pytest.warns(UserWarning, match=r"loss\.backward"):
        opt.update_(opt.setup(opt.Adam(), flat, layout=re), flat)


def test_where_nothing_was_expected_nothing_is_said():
    model = {"a": ones(), "b": {"c": ones()}}
    state = opt.setup(opt.Descent(0.5), model)
    silent(lambda: opt.update_(state, model, None))
    silent(lambda: opt.update_(state, opt.Duplicated(model, None)))
    silent(lambda: opt.update_(state, model, {"b": {"c": ones()}}))
    opt.freeze_(state["a"])
    silent(lambda: opt.update_(state["a"], model["a"], None))
    opt.freeze_(state)
    silent(lambda: opt.update_(state, model, {}))
    opt.thaw_(state["b"])
    with pytest.warns(UserWarning, match='for "b.c"$'):
        opt.update_(state, model, {"a": None})
    many = {f"w{i:02}": ones() for i in range(40)}
    with pytest.warns(UserWarning, match=r'"w00", .*"w09", \.\.\.$'):
        opt.update_(opt.setup(opt.Descent(), many), many, {})


def test_a_warning_made_an_error_changes_nothing_and_is_raised_again():
    model = {"a": ones()}
    state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), opt.Descent(0.5)), model)
    before = repr(state["a"].clock)
    for _ in range(2):
        with pytest.raises(UserWarning, match="no array got a gradient"):
            silent(lambda: opt.update_(state, model, {}))
        assert repr(state["a"].clock) == before
    opt.update_(state, model, {"a": ones()})
    assert repr(state["a"].clock) != before


# --------------------------------------------------------------------------------------------------- training


def problem():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1)
    return net, opt.setup(opt.Descent(0.1), net), [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(5)]


def loss_of(net, x, y):
    return torch.nn.functional.mse_loss(net(x), y)


def calling_backward(net, x, y):
    loss = loss_of(net, x, y)
    loss.backward()
    return loss


def adding_in_place(net, x, y):
    for p in net.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return calling_backward(net, x, y)


def detached(net, x, y):
    return calling_backward(net, x, y).item()


@pytest.mark.parametrize("f", [loss_of, calling_backward, adding_in_place, detached])
@pytest.mark.parametrize("stale", [False, True])
def test_backward_is_called_where_the_function_has_not(f, stale):
    net, state, data = problem()
    plain, reference = copy.deepcopy(net), torch.optim.SGD
    optimiser = reference(plain.parameters(), lr=0.1)
    for batch in data:
        optimiser.zero_grad()
        loss_of(plain, *batch).backward()
        optimiser.step()
    if stale and f is loss_of:  # what was there before is added to, as torch does
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
    opt.train_(f, state, net, data, progress=False)
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_a_loss_without_a_graph_is_a_warning():
    net, state, data = problem()
    with pytest.warns(UserWarning, match=r"loss\.backward"):
        opt.train_step_(lambda *args: loss_of(*args).detach(), state, net, *data[0])
