"""What optimisers.torch says to mistakes, in the words of param groups and parameters, and that nothing has changed."""

import copy
import warnings

import pytest
import torch
from torch_training import flat, network, train

import optimisers as opt
import optimisers.torch as ot


def test_mistakes_are_told(subtests=None):
    model = network()
    weight = model[0].weight
    for call, error, words in [
        (lambda: ot.AdamW([]), ValueError, "empty parameter list"),
        (lambda: ot.AdamW(weight), TypeError, "iterable"),
        (lambda: ot.AdamW([weight * 2]), ValueError, "non-leaf"),
        (lambda: ot.AdamW([{"params": [weight]}, {"params": [weight]}]), ValueError, "more than one parameter group"),
        (lambda: ot.AdamW([weight], lr=-1.0), ValueError, "AdamW: lr must be a number in"),
        (lambda: ot.AdamW([weight], betas=(1.0, 0.9)), ValueError, "AdamW: betas must be"),
        (lambda: ot.AdamW([weight], weight_decay=-1), ValueError, "AdamW: weight_decay must be"),
        (lambda: ot.AdamW([{"params": [weight], "weight_decy": 0.1}]), ValueError, "is 'weight_decay' meant"),
        (lambda: ot.SGD([weight], nesterov=True), ValueError, "Nesterov momentum requires"),
        (lambda: ot.AdamW([weight], differentiable=True), ValueError, "differentiable"),
        (lambda: ot.AdamW([weight], foreach=True, fused=True), RuntimeError, "fused and foreach"),
        (lambda: ot.Optimizer([weight], "Adam"), TypeError, "expected a rule"),
        (lambda: ot.AdamW([weight], lr=torch.ones(2)), ValueError, r"AdamW: lr must be .* of shape \(2,\)"),
        (lambda: ot.AdamW([weight], lr="1e-3"), TypeError, r"AdamW: lr must be .*'1e-3'; lr came as text: YAML"),
        (lambda: ot.AdamW([{"params": [weight], "eps": "1e-8"}]), TypeError, "eps came as text: YAML"),
        (lambda: ot.Optimizer([weight], opt.Adam(), lr="1e-3"), TypeError, "lr came as text: YAML"),
        (
            lambda: ot.AdamW([weight], weight_decay="0.01"),
            TypeError,
            "AdamW: weight_decay must be .* came as text: YAML",
        ),
        (lambda: ot.Optimizer([weight], opt.Adam(), weight_decay=0.1), TypeError, "nothing reads weight_decay"),
        (lambda: ot.Optimizer(ot.decay_groups(model, 0.1), opt.Adam()), ValueError, "which Adam does not read"),
        (lambda: ot.Optimizer(model, {...: opt.Adam()}, lr=0.5), TypeError, "lr beside rules by part"),
        (
            lambda: ot.AdamW([{"params": [weight], "rule": opt.Lion()}]),
            ValueError,
            r"AdamW: .* Optimizer\(groups, rule\)",
        ),
        (lambda: ot.AdamW([weight], clip_grad_norm=-1.0), ValueError, "AdamW: clip_grad_norm must be"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_a_negative_rate_set_later_is_refused_before_anything_is_written():
    model = network()
    optimizer = ot.AdamW(model.parameters())
    train(model, optimizer, 1)
    before = flat(model)
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.step()
    assert torch.equal(flat(model), before)


def test_sparse_gradients_are_refused_with_the_way_out():
    table = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = ot.AdamW(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="SparseAdam"):
        optimizer.step()


def test_a_parameter_of_another_shape_is_named():
    model = network()
    optimizer = ot.AdamW(model.named_parameters())
    train(model, optimizer, 1)
    before = flat(model)[32:]
    model[0].weight.data = torch.ones(2, 2)
    model[0].weight.grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"0\.weight has shape \(2, 2\), its state has \(8, 4\)"):
        optimizer.step()
    assert torch.equal(flat(model)[4:], before)


def test_a_checkpoint_that_does_not_fit_changes_nothing():
    model = network()
    optimizer = ot.AdamW(model.parameters())
    train(model, optimizer, 2)
    saved = optimizer.state_dict()
    swapped = copy.deepcopy(saved)
    swapped["state"][0], swapped["state"][1] = swapped["state"][1], swapped["state"][0]
    short = copy.deepcopy(saved)
    short["param_groups"][0]["params"].pop()
    sgd = torch.optim.SGD(network().parameters(), momentum=0.9)
    lacking = copy.deepcopy(saved)
    del lacking["state"][0]["exp_avg"]
    for wrong, words in ((swapped, "shape"), (short, "3 parameters"), (lacking, "exp_avg")):
        before = {k: v.clone() for k, v in optimizer.state[model[0].weight].items()}
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(wrong)
        assert all(torch.equal(optimizer.state[model[0].weight][k], v) for k, v in before.items())
    del sgd


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("RMSprop", {"alpha": 1.5}, "RMSprop: alpha must be"),
        ("Adadelta", {"rho": 1.1}, "Adadelta: rho must be"),
        ("Rprop", {"etas": (1.5, 0.5)}, "Rprop: etas must be"),
        ("Rprop", {"step_sizes": (1, 0)}, "Rprop: step_sizes must be"),
        ("Adagrad", {"lr_decay": -0.5}, "Adagrad: lr_decay must be .* got -0.5"),
        ("Adagrad", {"initial_accumulator_value": -1}, "Adagrad: initial_accumulator_value must be"),
        ("Adam", {"decoupled_weight_decay": True, "weight_decay": -1}, "Adam: weight_decay must be .* got -1"),
        ("Lion", {"weight_decay": -1}, "Lion: weight_decay must be"),
    ],
)
def test_messages_have_the_names_of_the_groups(name, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(ot, name)([torch.nn.Parameter(torch.ones(2))], **options)


def test_messages_have_the_names_of_the_parameters():
    model = torch.nn.Linear(2, 1)
    optimizer = ot.AdamW(model.named_parameters(), clip_grad_norm=1.0)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(FloatingPointError, match=r'AdamW: .*first at "weight"'):
        optimizer.step()


def test_steps_without_any_gradient_are_told_of_after_the_first():
    """The first is how schedulers are set going before the loop."""
    optimizer = ot.AdamW([torch.nn.Parameter(torch.ones(2))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    with pytest.warns(UserWarning, match="call loss.backward.* before; were the optimiser's parameters replaced"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_parameters_made_another_dtype_are_refused_and_a_new_optimiser_goes_on():
    model, twin = network(), network()
    optimizer, reference = ot.AdamW(model.parameters()), torch.optim.AdamW(twin.parameters())
    for its in ((model, optimizer), (twin, reference)):
        train(*its, 2)
        its[0].double()
    before = flat(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"is float64, .* make a new optimiser, which may load this one's state"):
        optimizer.step()
    assert torch.equal(flat(model), before)
    anew = ot.AdamW(model.parameters()), torch.optim.AdamW(twin.parameters())
    anew[0].load_state_dict(optimizer.state_dict())
    anew[1].load_state_dict(reference.state_dict())
    for net, its in zip((model, twin), anew, strict=True):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        its.step()
    assert torch.allclose(flat(model), flat(twin), atol=1e-6)


def test_a_class_without_state_lists_none_as_torchs():
    model = network()
    optimizer = ot.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 2)
    assert not optimizer.state and optimizer.state_dict()["state"] == {}
    optimizer.param_groups[0]["momentum"] = 0.9
    train(model, optimizer, 1)
    assert set(optimizer.state) == set(model.parameters())
