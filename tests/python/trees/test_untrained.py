"""Models without a trained array, and what is passed in place of one: errors that say what was found."""

import array
import itertools
import warnings
from collections import UserDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import optimisers as opt

torch = pytest.importorskip("torch")
nn = torch.nn


@dataclass
class Marked:
    w: Any = field(metadata={"trainable": False})


def frozen_module() -> Any:
    module = nn.Linear(2, 1)
    return module.requires_grad_(False)


@pytest.mark.parametrize(
    "model, message",
    [
        ({"a": [np.arange(3)], "b": "text"}, r'1 integer array \(the first at "a\.0"\), 1 string .*astype'),
        ({"a": torch.arange(3), "b": np.ones(2, bool)}, r'2 integer arrays \(the first at "a"\); .*astype'),
        ([None, 1.5, {"c": 2.5}], r'2 numbers \(the first at "1"\); .*numpy\.array'),
        ([np.float64(1)], "1 number .*numpy.array"),
        (UserDict(a="text", b=print), "1 string .*, 1 builtin_function_or_method .*; pass a tree of float arrays"),
        (Marked(np.ones(2)), r'1 array that is marked as not trained \(the first at "w"\)'),
        (nn.Sequential(frozen_module()), r'2 parameter.* without requires_grad.* "0\.weight"\); .*requires_grad_\(\)'),
        ({"enc": opt.Adam(), "head": [opt.Descent()]}, "1 Adam .*; the arguments look swapped"),
    ],
)
def test_setup_says_what_it_found_in_place_of_arrays(model, message):
    with pytest.raises((TypeError, ValueError), match=f"setup: the model has no trained array, but {message}"):
        opt.setup(opt.Adam(), model)


@pytest.mark.parametrize(
    "model, message",
    [
        (opt.Adam(), r"got the rule Adam\(.*; the arguments look swapped: setup\(rule, model\)"),
        (None, "got None"),
        (1.5, r"got a float; .*numpy\.array"),
        (np.float32(1), r"got a float32; .*numpy\.array"),
        (np.arange(3), "got a ndarray; .*astype"),
        (print, "got a builtin_function_or_method"),
        ("model", "got a str"),
        (opt.setup(opt.Adam(), {"w": np.ones(1)}), "got a StateTree, which is the state of one"),
    ],
)
def test_what_is_no_model_is_refused_by_name(model, message):
    with pytest.raises(TypeError, match=f"setup: expected a model, {message}"):
        opt.setup(opt.Adam(), model)
    for call in (opt.destructure, opt.trainables, lambda m: opt.map_trainables(abs, m)):
        with pytest.raises(TypeError, match="expected a model, got"):
            call(model)
    for call in (opt.norm, lambda m: opt.lerp_(m, m, 0.5)):
        if model is not None:
            with pytest.raises(TypeError, match="expected a model, got"):
                call(model)


def test_arguments_that_are_swapped():
    net = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="swapped"):
        opt.setup(net, opt.Adam())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="swapped"):
        opt.setup(net, {"weight": opt.Adam(), ...: opt.Descent()})
    with pytest.raises(TypeError, match=r"swapped: map_trainables\(f, \.\.\., model\)"):
        opt.map_trainables(net.weight, abs)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [x]}])
def test_iterators_are_refused_everywhere(wrap):
    net = nn.Linear(2, 1)
    for make, message in (
        (net.parameters, r"a generator: pass list\(module\.parameters\(\)\) or, better, the module"),
        (net.named_parameters, r"a generator: pass dict\(module\.named_parameters\(\)\)"),
        (lambda: (p for p in [1]), "a generator, which can be walked over only once: pass a list"),
        (lambda: map(abs, [1]), "a map, which"),
        (lambda: itertools.chain(net.parameters()), "a chain, which"),
        (lambda: iter([net.weight]), "a list_iterator, which"),
        (lambda: {"w": net.weight}.values(), "a dict_values, which is no container; pass a list of the arrays"),
        (lambda: {net.weight}, "a set, which is no container; pass a list"),
    ):
        for call in (lambda m: opt.setup(opt.Adam(), m), opt.destructure, opt.trainables, opt.norm):
            with pytest.raises(TypeError, match=f"is {message}"):
                call(wrap(make()))
        with pytest.raises(TypeError, match=f"is {message}"):
            opt.lerp_(wrap(make()), net, 0.5)
    with pytest.raises((TypeError, ValueError), match=r"source at .* is a generator"):
        opt.lerp_([np.ones(1)], (x for x in [np.ones(1)]), 0.5)


def test_an_endless_iterator_is_no_model_but_may_stand_in_one():
    with pytest.raises(TypeError, match="the model is a count"):
        opt.setup(opt.Adam(), itertools.count())
    assert len(opt.trainables({"w": np.ones(1), "ids": itertools.count()})) == 1


def test_parameter_groups_of_torch_are_refused():
    net = nn.Linear(2, 1)
    for groups in (
        [{"params": list(net.parameters()), "lr": 0.1}],
        [{"params": net.parameters()}],
        ({"params": [net.weight]}, {"params": [net.bias], "weight_decay": 0.0}),
    ):
        with pytest.raises(ValueError, match=r"torch's parameter groups.*rules by part"):
            opt.setup(opt.Adam(), groups)
    opt.setup(opt.Adam(), [{"params": {"w": np.ones(2)}}, {"params": {"w": np.ones(2)}}])  # an ensemble, as flax has it


def test_a_model_with_nothing_in_it_is_a_warning():
    for model in ({}, [], (), {"a": [None]}, nn.ReLU(), UserDict()):
        with pytest.warns(UserWarning, match="no trained array"):
            opt.setup(opt.Adam(), model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert opt.destructure(model)[0].shape == (0,) and opt.trainables(model) == [] and opt.norm(model) == 0


def test_norm_of_what_has_no_floats_is_no_zero():
    with pytest.raises(ValueError, match="norm: the model has no trained array, but 1 integer array"):
        opt.norm({"w": np.arange(3)})
    assert opt.norm(None) == opt.norm({"w": None}) == opt.norm([np.zeros(2)]) == opt.norm([np.ones(0), 3]) == 0


def test_a_state_dict_is_a_warning():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for model in (net.state_dict(), {"net": net.state_dict()}, [net.state_dict()]):
        with pytest.warns(UserWarning, match=r"state_dict.*buffers .* are trained.*pass the Module itself"):
            opt.setup(opt.Adam(), model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.setup(opt.Adam(), dict(net.named_parameters()))


@pytest.mark.parametrize(
    "model, words",
    [
        (lambda: (x for x in [np.ones(2)]), r"^setup: the model is a generator, which can be walked"),
        (lambda: torch.nn.Linear(1, 1).named_parameters(), r"pass dict\(module.named_parameters\(\)\)"),
        (lambda: torch.nn.Linear(1, 1).parameters(), r"pass list\(module.parameters\(\)\)"),
        (lambda: torch.nn.Linear(1, 1).requires_grad_(False), r"2 parameters without requires_grad \(the first"),
        (lambda: [np.arange(2), np.arange(3)], r"2 integer arrays \(the first"),
        (lambda: {"a": array.array("d", [1.0])}, r'model at "a" is an array, expected'),
    ],
)
def test_what_is_there_instead_is_said_in_english(model, words):
    with pytest.raises((ValueError, TypeError), match=words):
        opt.setup(opt.Adam(), model())


def test_masked_integers_and_random_keys_are_called_what_they_are():
    model = {"w": np.ones(2), "n": np.ma.ones(2, int)}
    with pytest.raises(ValueError, match='"n" is an array of int64'):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": np.ones(2), "n": np.ones(2)})
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match='gradient at "w" is a PRNGKeyArray'):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": jax.random.key(0)})
    with pytest.raises(TypeError, match='gradient at "w" is an int'):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": 1})
