"""What is passed by mistake: an error that names the call, what came, and what was expected."""

import numpy as np
import pytest
import torch

import optimisers as opt


@pytest.mark.parametrize("p", ["two", None, 2j, [2]])
def test_norm_wants_a_number(p):
    with pytest.raises(opt.InvalidTypeError, match="norm: p must be a real number, got"):
        opt.norm({"w": np.ones(2)}, p)


@pytest.mark.parametrize("w", ["half", None])
def test_lerp_wants_a_number(w):
    with pytest.raises(opt.InvalidTypeError, match="lerp_: w must be a real number, got"):
        opt.lerp_({"w": np.ones(2)}, {"w": np.ones(2)}, w)


def test_numbers_of_other_kinds_are_numbers():
    assert opt.norm(np.array([3.0, 4.0]), np.float32(2)) == opt.norm(np.array([3.0, 4.0]), True + 1) == 5


@pytest.mark.parametrize("flat", [None, 3, "x", [1.0, 2.0], {}])
def test_re_wants_a_vector(flat):
    _, re = opt.destructure({"w": np.ones(2)})
    with pytest.raises(opt.InvalidTypeError, match="re: expected a NumPy array, got"):
        re(flat)


@pytest.mark.parametrize("stream", [-1, 2**70, 0.5, "s"])
def test_streams_are_handles(stream):
    x = np.ones(2)
    state = opt.setup(opt.Adam(), x)
    for call in (
        lambda: opt.update_(state, x, x, stream=stream),
        lambda: opt.norm(x, stream=stream),
        lambda: opt.lerp_(x, x.copy(), 0.5, stream=stream),
    ):
        with pytest.raises((opt.InvalidValueError, opt.InvalidTypeError), match="stream: expected a "):
            call()
    assert x.tolist() == [1, 1]


def test_each_walk_names_itself():
    model = {"a": np.ones(2)}
    with pytest.raises(
        ValueError, match=r"^map_trainables: the model has 0 keys, had 1: 'a' has gone; it must not change"
    ):
        opt.map_trainables(lambda x: (model.clear(), x)[1], model)
    flat, re = opt.destructure(model := {"a": np.ones(2)})
    model.clear()
    with pytest.raises(ValueError, match=r"^destructure: the model has 0 keys.*call destructure again"):
        re(flat)


def test_a_numpy_scalar_is_the_gradient_of_a_bare_array_of_no_axes():
    """Not a flat vector of the wrong shape: it is the tree of the model's shape."""
    flat, re = opt.destructure(np.array(1.0))
    state = opt.setup(opt.Descent(0.5), flat, layout=re)
    opt.update_(state, flat, np.float64(1.0))
    opt.update_(state, flat, np.array(1.0))
    opt.update_(state, flat, np.ones(1))
    assert flat.tolist() == [-0.5]


@pytest.mark.parametrize("names", [["step"], ["zero_grad", "zero_grad=True"], ["state_dict", "save"], ["param_groups"]])
def test_methods_of_torch_optimisers_are_answered_on_states(names):
    name, ours = names[0], names[-1] if len(names) > 1 else {"step": "update_"}.get(names[0], "setup")
    for model in ({"w": np.ones(2)}, np.ones(2), [np.ones(1)]):
        with pytest.raises(AttributeError, match=f"{name}.*; {name}: use .*{ours}"):
            getattr(opt.setup(opt.Adam(), model), name)
    state = opt.setup(opt.Adam(), {"step": np.ones(2), "w": np.ones(1)})
    assert state.step.shape == (2,)
    with pytest.raises(AttributeError, match=r"no 'clip' at its root; there are 'step', 'w'$"):
        _ = state.clip


def test_gradients_by_dotted_names_are_told_what_takes_them():
    """What torch.func.grad gives for named_parameters()."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 1))
    gradients = {name: torch.ones_like(p) for name, p in net.named_parameters()}
    with pytest.raises(ValueError, match=r"the key '0.weight', .*there are '0'; .*setup\(rule, dict\(module"):
        opt.update_(opt.setup(opt.Descent(0.5), net), net, gradients)
    with pytest.raises(ValueError, match=r"the key 'x.y', which the model lacks; its keys there are 'w'$"):
        opt.update_(opt.setup(opt.Descent(0.5), {"w": np.ones(1)}), {"w": np.ones(1)}, {"x.y": np.ones(1)})
    before, parameters = net[0].weight.detach().clone(), dict(net.named_parameters())
    opt.update_(opt.setup(opt.Descent(0.5), parameters), parameters, gradients)
    assert torch.equal(net[0].weight, before - 0.5)
