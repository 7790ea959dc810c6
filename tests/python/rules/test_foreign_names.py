"""Names and objects of other libraries are answered with ours."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from support import RULES, needed

import optimisers as opt
from optimisers import _names

ARGUMENTS = {
    "lr": "eta", "learning_rate": "eta", "betas": "beta", "b1": "beta", "b2": "beta", "beta_1": "beta",
    "eps": "epsilon", "momentum": "rho", "alpha": "rho", "weight_decay": r"WeightDecay\(.*AdamW\(lambda_",
    "amsgrad": "AMSGrad", "nesterov": "Nesterov", "maximize": "negate", "max_norm": "omega", "norm_type": "called p",
    "clip_value": "delta", "every_k_schedule": "called n", "params": "setup", "fused": "one sweep", "lambda": "lambda_",
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_other_libraries_are_answered_with_ours(name: str) -> None:
    for rule, cls in RULES.items():
        with pytest.raises(
            TypeError, match=rf"^{rule} has no argument '{name}'; its arguments are .*{ARGUMENTS[name]}"
        ):
            cls(**needed(rule), **{name: 0.5})
    state = opt.setup(opt.Adam(), np.ones(1))
    for target in (state, opt.Adam()):
        with pytest.raises(ValueError, match=ARGUMENTS[name]):
            opt.adjust(target, **{name: 0.5})


def test_an_unknown_argument_lists_those_there_are_and_all_that_are_wrong() -> None:
    with pytest.raises(TypeError, match=r"^Adam has no argument 'foo', 'bar'; its arguments are eta, beta, epsilon$"):
        opt.Adam(foo=1, bar=2)  # type: ignore[call-arg]
    assert opt.RMSProp(centered=True) == opt.RMSProp(centred=True)
    assert list(inspect.signature(opt.Adam).parameters) == ["eta", "beta", "epsilon"]


@pytest.mark.parametrize(
    "first", [torch.nn.Linear(1, 1).parameters(), torch.nn.Linear(1, 1), [torch.ones(1)], opt.schedules.constant(0.1)]
)
def test_parameters_in_place_of_the_learning_rate_are_answered(first: Any) -> None:
    with pytest.raises(TypeError, match=r"eta must be a number.*setup\(Adam"):
        opt.Adam(first)


NAMES = {
    "SGD": "Descent.*Momentum", "RMSprop": "RMSProp", "Adagrad": "AdaGrad", "Adadelta": "AdaDelta", "Adamax": "AdaMax",
    "adam": "Adam", "ADAM": "Adam", "adamw": "AdamW", "rmsprop": "RMSProp", "Optimizer": "setup", "Adaam": "Adam",
    "OptimizerChain": "OptimiserChain", "chain": "OptimiserChain", "clip_grad_norm_": 'ClipNorm.*scope="global"',
    "clip_by_global_norm": 'ClipNorm.*scope="global"', "clip_grad_value_": "ClipGrad", "apply_updates": "update_",
    "MultiSteps": "AccumGrad", "multi_transform": "setup", "inject_hyperparams": "adjust_", "lr_scheduler": "schedules",
    "add_decayed_weights": "WeightDecay", "LBFGS": "scipy", "tree_map": "map_trainables", "destructurs": "destructure",
    "trainabel": "trainable", "zero_grad": "zero_grad=True",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_other_libraries_are_answered_with_ours(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'{name}'; .*{NAMES[name]}"):
        getattr(opt, name)
    assert not hasattr(opt, name)


def test_what_is_like_nothing_is_a_plain_attribute_error() -> None:
    for name in ("xyzzy", "__wrapped__", "_adam"):
        with pytest.raises(AttributeError) as caught:
            getattr(opt, name)
        assert str(caught.value) == f"module 'optimisers' has no attribute '{name}'"


def test_what_is_ours_is_not_in_the_tables() -> None:
    ours = {_names._plain(name) for name in opt.__all__}
    assert ours & set(_names.NAMES) == {"step"}  # Step is what callbacks get, optimizer.step() is asked for
    fields = {field.name for cls in RULES.values() for field in cls.fields}
    assert not fields & set(_names.ARGUMENTS)


MODELS = {"dict": lambda: {"w": np.ones(2)}, "array": lambda: np.ones(2), "Module": lambda: torch.nn.Linear(2, 1)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_of_rules_is_answered_with_a_chain(model: str, container: Any) -> None:
    rules = container([opt.ClipNorm(), opt.Adam()])
    with pytest.raises(TypeError, match=r"write OptimiserChain\(ClipNorm\(...\), Adam\(...\)\)"):
        opt.setup(rules, MODELS[model]())
    for call in (opt.OptimiserChain, opt.MixedPrecision, lambda r: opt.init(r, np.ones(1))):
        with pytest.raises(TypeError, match="write OptimiserChain"):
            call(rules)
    with pytest.raises(TypeError, match="write OptimiserChain"):
        opt.setup({"part": rules, ...: opt.Adam()}, {"part": MODELS[model](), "x": np.ones(1)})
    state = opt.setup(rules, [np.ones(1), np.ones(1)])
    assert (state[0].rule, state[1].rule) == tuple(rules), "for a list it is a tree of rules"


class Transformation(tuple):  # as optax has it: a named tuple of two functions
    init = staticmethod(lambda params: ())
    update = staticmethod(lambda updates, state, params=None: (updates, state))


FOREIGN = {
    "torch class": (torch.optim.SGD, "torch.optim.*opt.Adam.*Descent"),
    "torch optimizer": (torch.optim.Adam([torch.ones(1, requires_grad=True)]), "torch.optim.*opt.Adam"),
    "like optax": (Transformation(), "optax.*opt.Adam.*OptimiserChain"),
    "string": ("rmsprop", "RMSProp"),
    "class": (opt.Adam, r"write Adam\(\)"),
    "number": (1e-3, "got float"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_rules_of_other_libraries_are_answered_with_ours(kind: str) -> None:
    rule, message = FOREIGN[kind]
    model = {"w": np.ones(2)}
    calls = [
        lambda: opt.setup(rule, model),
        lambda: opt.setup({"w": rule}, model),
        lambda: opt.setup(lambda path, leaf: rule, model),
        lambda: opt.OptimiserChain(opt.ClipNorm(), rule),
        lambda: opt.init(rule, np.ones(1)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"(?s){message}"):
            call()


def test_optax_transformations_are_answered() -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    for transformation in (optax.adam(1e-3), optax.chain(optax.clip(1.0), optax.sgd(0.1))):
        with pytest.raises(TypeError, match=r"optax transformation.*opt\.Adam"):
            opt.setup(transformation, {"w": np.ones(2)})
