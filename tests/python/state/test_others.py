"""States of torch.optim and optax go on here, and back, with exact moments and steps."""

import copy

import numpy as np
import pytest
import torch

import optimisers as opt

MADE = {
    "SGD": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.25},
    "Adam": {"lr": 0.1, "weight_decay": 0.25},
    "AdamW": {"lr": 0.1, "amsgrad": True},
    "NAdam": {"lr": 0.1},
    "RAdam": {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1},
    "Adamax": {"lr": 0.1},
    "Adagrad": {"lr": 0.1},
    "Adadelta": {"lr": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.1},
}

UNCOUNTED = ("Adagrad", "Adadelta", "RMSprop", "Rprop")  # whose steps do not depend on how many there were


def module():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))


def backward(model, seed):
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    model(torch.rand(5, 3, generator=generator)).pow(2).sum().backward()


@pytest.mark.parametrize("form", ["optimizer", "state_dict"])
@pytest.mark.parametrize("name", MADE)
def test_torch_goes_on_here_and_back_there(name, form):
    model = module()
    theirs = getattr(torch.optim, name)(model.parameters(), **MADE[name])
    for step in range(3):
        backward(model, step)
        theirs.step()
    same = copy.deepcopy(model)
    their_dict = copy.deepcopy(theirs.state_dict())
    if form == "optimizer":
        copied = getattr(torch.optim, name)(same.parameters(), **MADE[name])
        copied.load_state_dict(their_dict)
        state = opt.from_torch(copied, same)
    else:
        state = opt.from_torch(their_dict, same)
    for step in range(3, 6):
        backward(model, step)
        backward(same, step)
        theirs.step()
        opt.update_(state, same)
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=2e-5, atol=1e-6)
    again = getattr(torch.optim, name)(same.parameters(), **MADE[name])
    opt.to_torch(state, same, again)
    for a, b in zip(theirs.state.values(), again.state.values(), strict=True):
        assert set(a) == set(b)
        for key in a:
            if a[key] is not None and (key != "step" or name not in UNCOUNTED):
                assert torch.allclose(torch.as_tensor(a[key]), torch.as_tensor(b[key]), rtol=1e-4, atol=1e-6), key
    exact = opt.from_torch(again, same)
    for leaf, other in zip(leaves(state), leaves(exact), strict=True):
        for a, b in zip(arrays(leaf), arrays(other), strict=True):
            assert np.array_equal(a, b)


def leaves(state):
    return [state["0"].weight, state["0"].bias, state["1"].weight, state["1"].bias]


def arrays(leaf):
    return [array for stage in leaf._core.slots(leaf._index) for _, array in stage]


def test_what_does_not_fit_is_refused():
    model = module()
    with pytest.raises(TypeError, match="expected a torch optimizer"):
        opt.from_torch({"state": {}}, model)
    with pytest.raises(TypeError, match=r"torch\.optim\.ASGD"):
        opt.from_torch(torch.optim.ASGD(model.parameters()), model)
    theirs = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="not in the model"):
        opt.from_torch(theirs, module())
    with pytest.raises(ValueError, match="the model has 2"):
        opt.from_torch(theirs.state_dict(), torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="the optimizer means"):
        opt.to_torch(opt.setup(opt.Adam(0.5), model), model, theirs)
    with pytest.raises(ValueError, match="maximize"):
        opt.from_torch(torch.optim.Adam(model.parameters(), maximize=True), model)
