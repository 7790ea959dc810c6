"""optimisers.torch beside torch.optim: the same trajectories and states, for every class both have, in every option."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch_training import flat, network, train

import optimisers.torch as ot

OPTIONS = {
    "SGD": [
        {}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1, "maximize": True},
        {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}, {"maximize": True},
    ],
    "Adam": [
        {}, {"weight_decay": 0.1}, {"amsgrad": True}, {"amsgrad": True, "weight_decay": 0.1}, {"maximize": True},
        {"decoupled_weight_decay": True, "weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3},
    ],
    "AdamW": [{}, {"amsgrad": True}, {"weight_decay": 0.0}, {"weight_decay": 0.3, "lr": 0.1}],
    "NAdam": [
        {}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"momentum_decay": 0.1},
    ],
    "RAdam": [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "Adamax": [{}, {"weight_decay": 0.1}],
    "Adagrad": [{}, {"lr_decay": 0.1}, {"weight_decay": 0.1}, {"initial_accumulator_value": 0.5}],
    "Adadelta": [{}, {"weight_decay": 0.1}, {"lr": 0.3}],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9}, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}],
    "Rprop": [{}, {"lr": 0.1, "etas": (0.6, 1.3), "step_sizes": (1e-3, 0.2)}],
}  # fmt: skip
CASES = [pytest.param(n, o, id=n + "".join(f",{k}={v}" for k, v in o.items())) for n, os in OPTIONS.items() for o in os]
SCHEDULES = {
    "constant": None,
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=40),
}
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-10, torch.complex64: 3e-5}


def data(dtype):
    """Parameters, and 25 gradients of which the second parameter's are missing in every third step."""
    torch.manual_seed(1)
    start = [torch.randn(3, 5, dtype=dtype), torch.randn(7, dtype=dtype)]
    return start, [[torch.randn(3, 5, dtype=dtype), torch.randn(7, dtype=dtype) if t % 3 else None] for t in range(25)]


def trained(cls, options, dtype, schedule):
    start, grads = data(dtype)
    params = [torch.nn.Parameter(p.clone()) for p in start]
    optimizer = cls(params, **options)
    scheduler = schedule(optimizer) if schedule else None
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return params, optimizer


def distance(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name, options", CASES)
def test_trajectory_and_state_are_torchs(name, options, dtype, schedule):
    if schedule == "OneCycleLR" and not {"betas", "momentum"} & set(inspect.signature(getattr(ot, name)).parameters):
        pytest.skip(f"OneCycleLR cycles a momentum, {name} has none")
    if schedule == "OneCycleLR" and name in ("SGD", "RMSprop") and not options.get("momentum"):
        pytest.skip(
            "OneCycleLR sets a momentum where there was none: torch starts a buffer in mid-training, covered below"
        )
    theirs, reference = trained(getattr(torch.optim, name), options, dtype, SCHEDULES[schedule])
    ours, optimizer = trained(getattr(ot, name), options, dtype, SCHEDULES[schedule])
    # torch keeps NAdam's product of momenta in float32, so that its float64 steps have float32's accuracy.
    tolerance = 1e-7 if name == "NAdam" and dtype == torch.float64 else TOLERANCE[dtype]
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a.detach(), b.detach()) < tolerance
    for a, b in zip(ours, theirs, strict=True):
        kept = {key: value for key, value in reference.state[b].items() if value is not None and key != "mu_product"}
        assert kept.keys() == optimizer.state[a].keys()
        for key, value in kept.items():
            assert optimizer.state[a][key].shape == value.shape
            assert distance(optimizer.state[a][key], value) < 10 * tolerance, key


def through_a_file(*parts):
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "saved_by, loaded_by", [(torch.optim, ot), (ot, torch.optim), (ot, ot)], ids=["in", "out", "own"]
)
@pytest.mark.parametrize("name, options", CASES)
def test_a_checkpoint_goes_on_in_the_other_library(name, options, saved_by, loaded_by):
    whole = network()
    train(whole, getattr(torch.optim, name)(whole.parameters(), **options), 12)
    model = network()
    optimizer = getattr(saved_by, name)(model.parameters(), **options)
    train(model, optimizer, 5)
    weights, state = through_a_file(model, optimizer)
    resumed = network()
    resumed.load_state_dict(weights)
    other = getattr(loaded_by, name)(resumed.parameters(), lr=123.0)  # hyperparameters come from the file
    other.load_state_dict(state)
    train(resumed, other, 7)
    assert torch.allclose(flat(resumed), flat(whole), atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
def test_resumed_and_copied_runs_have_the_bits_of_the_whole_one(name, options):
    whole = network()
    train(whole, getattr(ot, name)(whole.parameters(), **options), 12)
    model = network()
    optimizer = getattr(ot, name)(model.parameters(), **options)
    train(model, optimizer, 5)
    pairs = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    weights, state = through_a_file(model, optimizer)
    third = network()
    third.load_state_dict(weights)
    pairs.append((third, getattr(ot, name)(third.parameters(), **options)))
    pairs[-1][1].load_state_dict(state)
    for twin, its in [*pairs, (model, optimizer)]:
        train(twin, its, 7)
        assert torch.equal(flat(twin), flat(whole))


def test_momentum_that_begins_in_mid_training_is_torchs():
    """OneCycleLR gives a momentum to an SGD that has none; the native state gets another structure."""
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        optimizer = library.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, 3)
        optimizer.param_groups[0]["momentum"] = 0.9
        train(model, optimizer, 5)
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-6)


def test_a_shallow_copy_shares_parameters_and_groups_and_has_a_state_of_its_own():
    """torch's shares the state too: two that step in turn then count each other's steps."""
    model, whole = network(), network()
    optimizer = ot.AdamW(model.parameters(), lr=0.05)
    train(model, optimizer, 5)
    train(whole, ot.AdamW(whole.parameters(), lr=0.05), 12)
    twin = copy.copy(optimizer)
    weights = copy.deepcopy(model.state_dict())
    assert twin.param_groups is optimizer.param_groups
    train(model, optimizer, 7)
    assert torch.equal(flat(model), flat(whole))
    model.load_state_dict(weights)
    assert all(
        float(twin.state[p]["step"]) == 5 and float(optimizer.state[p]["step"]) == 12 for p in model.parameters()
    )
    train(model, twin, 7)
    assert torch.equal(flat(model), flat(whole))
