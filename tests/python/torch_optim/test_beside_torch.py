"""Beside torch.optim on training as it really goes: random options, schedules, gradients that are missing or zero,
parameters added, states handed from one library to the other."""

import copy
import io
import random

import pytest
import torch

import optimisers.torch as ot

MOMENTS = {"betas": ((0.9, 0.999), (0.5, 0.9), (0.0, 0.95)), "eps": (1e-8, 1e-3)}
OPTIONS = {
    "SGD": {"momentum": (0.0, 0.9), "dampening": (0.0, 0.0, 0.5, 1.0), "nesterov": (False, True)},
    "Adam": MOMENTS | {"amsgrad": (False, True), "decoupled_weight_decay": (False, True)},
    "AdamW": MOMENTS | {"amsgrad": (False, True)},
    "NAdam": MOMENTS | {"momentum_decay": (4e-3, 0.1), "decoupled_weight_decay": (False, True)},
    "RAdam": MOMENTS | {"decoupled_weight_decay": (False, True)},
    "Adamax": MOMENTS,
    "Adagrad": {"lr_decay": (0.0, 0.1), "initial_accumulator_value": (0.0, 0.1)},
    "Adadelta": {"rho": (0.9, 0.5)},
    "RMSprop": {"alpha": (0.99, 0.5), "momentum": (0.0, 0.9), "centered": (False, True), "eps": (1e-3,)},
    "Rprop": {"etas": ((0.5, 1.2), (0.9, 1.01)), "step_sizes": ((1e-6, 50), (1e-2, 1e-1))},
}
S = torch.optim.lr_scheduler
SCHEDULERS = {
    "constant": lambda o: None,
    "StepLR": lambda o: S.StepLR(o, 3, 0.5),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lambda t: 0.95),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 20),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 4),
    "CyclicLR": lambda o: S.CyclicLR(o, 1e-3, 0.1, step_size_up=4, cycle_momentum=cycles(o)),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.1, total_steps=50, cycle_momentum=cycles(o)),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.ConstantLR(o, 0.1, 3), S.ExponentialLR(o, 0.9)], [4]),
    "ReduceLROnPlateau": lambda o: S.ReduceLROnPlateau(o, patience=1),
}
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9, torch.complex128: 1e-9}


def cycles(optimizer):
    """torch's own SGD and RMSprop without a momentum cannot begin one in mid-training."""
    defaults = optimizer.defaults
    return "betas" in defaults or bool(defaults.get("momentum"))


def options(r, name):
    chosen = {key: r.choice(values) for key, values in OPTIONS[name].items()}
    chosen["lr"] = r.choice((1e-3, 1e-2, 0.1))
    chosen["maximize"] = r.random() < 0.3
    if name != "Rprop":
        chosen["weight_decay"] = r.choice((0.0, 1e-2, 0.5))
    if chosen.get("nesterov") and (not chosen["momentum"] or chosen["dampening"]):
        chosen["nesterov"] = False
    return chosen


def handed_over(r, theirs, ours):
    how = r.choice(("in", "out", "file"))
    if how == "in":
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    elif how == "out":
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    else:
        file = io.BytesIO()
        torch.save(ours.state_dict(), file)
        file.seek(0)
        ours.load_state_dict(torch.load(file, weights_only=True))


def step_both(r, pairs, optimizers):
    for theirs, ours in pairs:
        grad = torch.randn_like(theirs) * r.choice((0, 1e-3, 1, 10)) if r.random() < 0.8 else None
        theirs.grad, ours.grad = grad, None if grad is None else grad.clone()
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.filterwarnings("ignore:update. no array got a gradient", "ignore:Detected call of")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", OPTIONS)
def test_random_training_is_torchs(name, scheduler, seed):
    r = random.Random(f"{name} {scheduler} {seed}")
    torch.manual_seed(seed)
    dtype = r.choice(list(TOLERANCE))
    # torch keeps NAdam's product of momenta in float32
    tolerance = max(TOLERANCE[dtype], 1e-6 if name == "NAdam" else 0)
    pairs = [(torch.nn.Parameter(p), torch.nn.Parameter(p.clone())) for p in map(tensor(dtype), ((3, 2), (), (7,)))]
    chosen = options(r, name)
    groups = [[{"params": [a]}, {"params": [b, c], "lr": 5e-3}] for a, b, c in zip(*pairs, strict=True)]
    optimizers = [getattr(lib, name)(g, **chosen) for lib, g in zip((torch.optim, ot), groups, strict=True)]
    schedulers = [SCHEDULERS[scheduler](optimizer) for optimizer in optimizers]
    for t in range(40):
        step_both(r, pairs, optimizers)
        arguments = [r.random()] if scheduler == "ReduceLROnPlateau" else []
        for s in filter(None, schedulers):
            s.step(*arguments)
        # A file of ours has the state of what has not stepped yet, Rprop's step sizes for one; torch's has not.
        if r.random() < 0.15 and all(theirs in optimizers[0].state for theirs, _ in pairs):
            handed_over(r, *optimizers)
        if t == 20 and scheduler == "constant":
            pairs.append(tuple(torch.nn.Parameter(torch.ones(2, dtype=dtype)) for _ in range(2)))
            for optimizer, p in zip(optimizers, pairs[-1], strict=True):
                optimizer.add_param_group({"params": [p], "lr": 1e-3})
        for theirs, ours in pairs:
            assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance), t


def tensor(dtype):
    return lambda shape: torch.randn(shape, dtype=dtype)


def both(name, **chosen):
    params = [[torch.nn.Parameter(torch.ones(3))] for _ in range(2)]
    return params, [getattr(lib, name)(p, **chosen) for lib, p in zip((torch.optim, ot), params, strict=True)]


def test_what_has_not_stepped_begins_with_the_rate_there_is_then():
    params, (theirs, ours) = both("Rprop", lr=0.1)
    for optimizer in (theirs, ours):
        optimizer.param_groups[0]["lr"] = 0.01
    ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    for optimizer in (theirs, ours):
        optimizer.param_groups[0]["lr"] = 0.03
    ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    after_theirs, after_ours = steps(params, (theirs, ours), 2)
    assert torch.allclose(after_ours, after_theirs)


def test_step_sizes_begin_between_their_limits():
    theirs, ours = steps(*both("Rprop", lr=0.001, step_sizes=(0.01, 0.1)), 2)
    assert torch.allclose(ours, theirs)


def steps(params, optimizers, n):
    for _ in range(n):
        for (p,), optimizer in zip(params, optimizers, strict=True):
            p.grad = torch.tensor([1.0, -2.0, 0.5]) * p.detach()
            optimizer.step()
    return [p[0].detach() for p in params]


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_a_momentum_set_before_the_first_step_is_there(name):
    params, optimizers = both(name, lr=0.01)
    for optimizer in optimizers:
        optimizer.param_groups[0]["momentum"] = 0.9
    theirs, ours = steps(params, optimizers, 5)
    assert torch.allclose(ours, theirs)


def test_a_clock_that_others_carried_along_is_not_believed():
    """torch.optim keeps what it does not know, and counts on."""
    params, (theirs, ours) = both("AdamW", lr=0.01)
    steps(params, (theirs, ours), 3)
    for optimizer in (theirs, ours):
        optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    steps(params[:1], [theirs], 5)
    steps(params[1:], [ours], 5)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    after_theirs, after_ours = steps(params, (theirs, ours), 5)
    assert torch.allclose(after_ours, after_theirs)


def test_betas_that_are_tensors_are_read_at_each_step():
    betas = [(torch.tensor(0.9), torch.tensor(0.99)) for _ in range(2)]
    params = [[torch.nn.Parameter(torch.ones(3))] for _ in range(2)]
    optimizers = [
        lib(p, lr=0.01, betas=b, foreach=False)
        for lib, p, b in zip((torch.optim.AdamW, ot.AdamW), params, betas, strict=True)
    ]
    steps(params, optimizers, 3)
    for beta, _ in betas:
        beta.fill_(0.5)
    theirs, ours = steps(params, optimizers, 3)
    assert torch.allclose(ours, theirs)


def test_lazy_parameters_are_trained_once_they_have_a_shape():
    weights = []
    for library in (torch.optim, ot):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 1))
        optimizer = library.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).pow(2).sum().backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(weights[1], weights[0])
