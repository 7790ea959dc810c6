"""optimisers.torch as what programs and trainers of PyTorch expect of an optimiser."""

import copy
import gc
import inspect
import math
import weakref

import numpy as np
import pytest
import torch
from torch_training import flat, network, train

import optimisers as opt
import optimisers.torch as ot

BY_NAME = [cls for cls in vars(ot).values() if inspect.isclass(cls) and cls is not ot.Optimizer]
OF_ANY_SHAPE = [cls for cls in BY_NAME if cls is not ot.Muon]  # which has a model of matrices in test_matrices.py


def stepped(model, optimizer):
    train(model, optimizer, 1)
    return flat(model)


@pytest.mark.parametrize("cls", OF_ANY_SHAPE, ids=lambda c: c.__name__)
def test_every_class_trains_copies_and_shows_its_state(cls):
    model = network()
    optimizer = cls(model)
    before = flat(model)
    assert torch.equal(stepped(model, optimizer), before) == (cls is ot.ADOPT), "its first step moves nothing"
    twin = copy.deepcopy((model, optimizer))
    assert torch.equal(stepped(*twin), stepped(model, optimizer))
    for p in model.parameters():
        assert all(view.shape in (p.shape, ()) for view in optimizer.state[p].values())


@pytest.mark.parametrize("cls", OF_ANY_SHAPE, ids=lambda c: c.__name__)
def test_no_learning_rate_changes_no_parameter(cls):
    model = network()
    optimizer = cls(
        model, **({"lr": 0.0} | ({"weight_decay": 0.1} if cls.__name__ != "Rprop" else {"step_sizes": (0, 0)}))
    )
    before = flat(model)
    assert torch.equal(stepped(model, optimizer), before)


@pytest.mark.parametrize("cls", [c for c in OF_ANY_SHAPE if c is not ot.Rprop], ids=lambda c: c.__name__)
def test_a_rate_of_zero_in_mid_training_stops_at_once(cls):
    model = network()
    optimizer = cls(model)
    train(model, optimizer, 3)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = flat(model)
    train(model, optimizer, 2)
    assert torch.equal(flat(model), before)


def test_a_state_dict_from_before_the_first_step_begins_anew():
    model = network()
    optimizer = ot.AdamW(model.parameters())
    first = optimizer.state_dict()
    train(model, optimizer, 3)
    assert all(not value.any() for state in first["state"].values() for value in state.values())
    optimizer.load_state_dict(first)
    assert optimizer.state[model[0].weight]["step"] == 0


def test_the_registry_and_torch_optim_are_all_there():
    torchs = {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"}
    own = {c.__name__ for c in opt.RULES if any(f.name == "eta" for f in c.fields)}
    renamed = {"AdaMax", "AdaGrad", "RMSProp"}
    assert {cls.__name__ for cls in BY_NAME} == torchs | own - renamed


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"]
)
def test_arguments_and_defaults_are_torchs(name):
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    ours = inspect.signature(getattr(ot, name)).parameters
    assert theirs.keys() <= ours.keys()
    positional = [
        p.name
        for p in theirs.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("foreach", "capturable", "maximize", "differentiable")
    ]
    assert positional == [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    for key, parameter in theirs.items():
        if parameter.default is not inspect.Parameter.empty:
            assert ours[key].default == parameter.default, key


# ------------------------------------------------------------------------------------------------ steps


def test_a_parameter_without_gradient_is_left_alone_and_gradients_are_never_written():
    model = network()
    optimizer = ot.AdamW(model.parameters(), maximize=True)
    train(model, optimizer, 1)
    weight, bias = model[0].weight, model[0].bias
    weight.grad = None
    kept, before, step = bias.grad.clone(), weight.detach().clone(), optimizer.state[weight]["step"].clone()
    optimizer.step()
    assert torch.equal(weight, before)
    assert optimizer.state[weight]["step"] == step
    assert optimizer.state[bias]["step"] == step + 1
    assert torch.equal(bias.grad, kept)


def test_a_closure_is_run_with_gradients_and_its_loss_returned():
    model = network()
    optimizer = ot.SGD(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.requires_grad
    assert optimizer.step(lambda: None) is None


@pytest.mark.parametrize("lr", [0.05, torch.tensor(0.05)], ids=["float", "tensor"])
def test_hyperparameters_are_read_at_each_step(lr):
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        rate = lr.clone() if torch.is_tensor(lr) else lr
        optimizer = library.Adam(model.parameters(), lr=rate)
        train(model, optimizer, 2)
        if torch.is_tensor(rate):
            optimizer.param_groups[0]["lr"].fill_(0.01)  # as schedulers write to tensors
        else:
            optimizer.param_groups[0]["lr"] = 0.01
        optimizer.param_groups[0]["weight_decay"] = 0.3  # another chain
        train(model, optimizer, 3)
        optimizer.param_groups[0]["betas"] = (0.5, 0.9)
        train(model, optimizer, 3)
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-6)


def test_groups_have_their_own_values_and_can_be_added():
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        optimizer = library.AdamW([{"params": model[0].parameters(), "lr": 0.1, "weight_decay": 0.5}], lr=1e-3)
        train(model, optimizer, 3)
        optimizer.add_param_group({"params": model[2].parameters(), "betas": (0.5, 0.9)})
        train(model, optimizer, 3)
        assert optimizer.state[model[0].weight]["step"] == 6
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-6)


def test_what_is_written_to_the_state_is_used():
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        optimizer = library.Adam(model.parameters())
        train(model, optimizer, 2)
        state = optimizer.state[model[0].weight]
        state["exp_avg"] = torch.ones(8, 4)
        state["step"] = torch.tensor(7.0)
        optimizer.state[model[0].bias]["exp_avg_sq"].fill_(2.0)
        optimizer.state[model[2].bias]["step"] += 4
        train(model, optimizer, 2)
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-6)


def test_clipping_is_clip_grad_norms_and_the_norm_is_there():
    models = network(), network()
    reference, optimizer = (
        torch.optim.AdamW(models[0].parameters()),
        ot.AdamW(models[1].parameters(), clip_grad_norm=0.1),
    )
    for _ in range(4):
        for model, its in zip(models, (reference, optimizer), strict=True):
            its.zero_grad()
            model(torch.ones(3, 4)).pow(2).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(models[0].parameters(), 0.1)
        reference.step()
        optimizer.step()
        assert math.isclose(optimizer.grad_norm, norm, rel_tol=1e-5)
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-5)
    models[1][0].bias.grad.fill_(float("nan"))
    before = flat(models[1])
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert torch.equal(flat(models[1]), before)


def test_a_rule_of_patterns_makes_groups_with_names():
    model = network()
    optimizer = ot.Optimizer(model, {"**.bias": opt.Adam(0.1), ...: opt.AdamW(lambda_=0.3)}, clip_grad_norm=1.0)
    named = {name: group["rule"] for group in optimizer.param_groups for name in group["param_names"]}
    assert named == {n: opt.Adam(0.1) if "bias" in n else opt.AdamW(lambda_=0.3) for n, _ in model.named_parameters()}
    twin = network()
    chain = {
        "**.bias": opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.Adam(0.1)),
        ...: opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.AdamW(lambda_=0.3)),
    }
    state = opt.setup(chain, twin)
    for _ in range(3):
        train(model, optimizer, 1)
        torch.manual_seed(2)
        x, y = torch.randn(16, 4), torch.randn(16, 1)
        torch.nn.functional.mse_loss(twin(x), y).backward()
        opt.update_(state, twin, zero_grad=True)
    assert torch.equal(flat(model), flat(twin))


def test_an_adamw_stays_one_whatever_it_loads():
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        adam = library.Adam(model.parameters(), lr=0.1, weight_decay=0.5)
        train(model, adam, 2)
        optimizer = library.AdamW(model.parameters())
        optimizer.load_state_dict(adam.state_dict())
        assert optimizer.param_groups[0]["decoupled_weight_decay"]
        adam.load_state_dict(optimizer.state_dict())
        assert adam.param_groups[0]["decoupled_weight_decay"]
        train(model, optimizer, 3)
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-5)


def test_keywords_win_over_the_rule_for_a_module_too():
    model = network()
    for params in (model, model.parameters(), [{"params": model.parameters()}]):
        optimizer = ot.Optimizer(params, opt.Adam(), lr=0.5)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5]
        before = flat(model)
        train(model, optimizer, 1)
        assert (flat(model) - before).abs().max() > 0.4


def test_rules_written_in_python_and_master_copies_are_saved():
    class Halved(opt.Rule):
        def init(self, x):
            return 0

        def apply(self, state, x, dx):
            return state + 1, dx / (1 + state)

    def make():
        model = network().to(torch.bfloat16)
        rule = opt.MixedPrecision(opt.OptimiserChain(opt.Momentum(0.1), Halved()))
        return model, ot.Optimizer(model.parameters(), rule)

    def go(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(3, 4, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()

    whole, its = make()
    go(whole, its, 6)
    model, optimizer = make()
    go(model, optimizer, 3)
    other, loaded = make()
    other.load_state_dict(model.state_dict())
    loaded.load_state_dict(optimizer.state_dict())
    go(other, loaded, 3)
    assert torch.equal(flat(other), flat(whole))
    assert loaded.state[other[0].weight]["master"].dtype == torch.float32


def test_float32_state_of_bfloat16_parameters_is_not_cast_on_load():
    model = network().to(torch.bfloat16)
    optimizer = ot.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.rand_like(p)
    optimizer.step()
    saved = {k: v.clone() for k, v in optimizer.state[model[0].weight].items()}
    other = ot.AdamW(model.parameters())
    other.load_state_dict(optimizer.state_dict())
    for key, value in other.state[model[0].weight].items():
        assert value.dtype == torch.float32
        assert torch.equal(value, saved[key])


# --------------------------------------------------------------------------------------------- groupings


def test_groups_for_decay_and_layers():
    model = torch.nn.ModuleDict(
        {
            "emb": torch.nn.Embedding(5, 4),
            "blocks": torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)]),
            "head": torch.nn.Linear(4, 1),
        }
    )
    decays, rests = ot.decay_groups(model, 0.1, embeddings=False, no_decay=["head"])
    assert [n for n, _ in decays["params"]] == ["blocks.0.weight"]
    assert len(rests["params"]) == 6 and rests["weight_decay"] == 0
    rates = {n: g["lr"] for g in ot.layerwise_lr(model, 1.0, 0.5) for n, _ in g["params"]}
    assert [rates[n] for n in ("emb.weight", "blocks.0.bias", "blocks.1.weight", "head.weight")] == [
        0.125,
        0.25,
        0.5,
        1,
    ]
    train_like = ot.AdamW(ot.layerwise_lr(model, 1.0, 0.5, weight_decay=0.1))
    assert sorted({(g["lr"], g["weight_decay"]) for g in train_like.param_groups})[0] == (0.125, 0.1)
    assert np.isclose(sum(len(g["params"]) for g in train_like.param_groups), len(list(model.parameters())))


def test_an_optimiser_ends_with_its_last_name():
    """Its memory would otherwise wait for the garbage collector."""
    optimizer = ot.AdamW([torch.nn.Parameter(torch.ones(2))])
    known, state = weakref.ref(optimizer), optimizer.state
    gc.disable()
    try:
        del optimizer
        assert known() is None
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="gone"):
        state.clear()
