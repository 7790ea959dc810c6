"""Parameters on the meta device: an optimiser made before there is memory, and what it says where there never is."""

import copy

import pytest
import torch
from torch_training import flat, network, train

import optimisers as opt
import optimisers.torch as ot


@pytest.fixture
def swapping():
    """Parameters stay the same objects, as DTensors of fully_shard do of themselves."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def on_meta():
    return network().to("meta")


def with_memory(model):
    model.to_empty(device="cpu")
    model.load_state_dict(network().state_dict())
    return model


MAKERS = {
    "AdamW": lambda m, library: library.AdamW(m.parameters(), lr=0.05),
    "SGD": lambda m, library: library.SGD(m.named_parameters(), lr=0.1, momentum=0.9),
    "clipped": lambda m, library: library.Adam(m.parameters(), **({"clip_grad_norm": 1e9} if library is ot else {})),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_optimiser_made_before_to_empty_is_torchs(make, swapping):
    runs = []
    for library in (torch.optim, ot):
        model = on_meta()
        optimizer = make(model, library)
        train(with_memory(model), optimizer, 7)
        runs.append(flat(model))
    assert torch.allclose(runs[1], runs[0], atol=1e-6)
    assert not torch.allclose(runs[1], flat(network()), atol=1e-3)


def test_a_module_is_taken_and_rules_by_part_wait_for_memory(swapping):
    model, plain = on_meta(), network()
    with pytest.raises(
        ValueError, match=r"Optimizer: 0\.weight is on the meta device, and rules by part .*after to_empty"
    ):
        ot.Optimizer(model, {"**.bias": opt.Descent(0.1), ...: opt.Adam(0.05)})
    optimizer = ot.Optimizer(model, opt.Adam(0.05))
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]
    train(with_memory(model), optimizer, 5)
    train(plain, ot.Optimizer(plain, opt.Adam(0.05)), 5)
    assert torch.equal(flat(model), flat(plain))


def test_lazy_modules_take_a_state_after_their_first_batch():
    def lazy():
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Tanh(), torch.nn.LazyLinear(1))
        return model, ot.AdamW(model, lr=0.1)

    whole, part, rest = lazy(), lazy(), lazy()
    train(*whole, 7)
    train(*part, 4)
    state = copy.deepcopy(part[1].state_dict())
    with pytest.raises(ValueError, match=r"has no memory for the state that is loaded; .* first batch"):
        rest[1].load_state_dict(state)
    rest[0](torch.ones(1, 4))
    rest[0].load_state_dict(part[0].state_dict())
    rest[1].load_state_dict(state)
    train(*rest, 3)
    assert torch.equal(flat(rest[0]), flat(whole[0]))


def test_the_state_is_there_as_soon_as_there_is_memory(swapping):
    """So that torch.distributed.checkpoint, which steps where it finds no state, finds some."""
    model = on_meta()
    optimizer = ot.AdamW(model.parameters())
    assert not optimizer.state
    with_memory(model)
    for p in model.parameters():
        assert float(optimizer.state[p]["step"]) == 0 and optimizer.state[p]["exp_avg"].shape == p.shape


def test_a_state_is_loaded_when_there_is_memory_and_refused_before(swapping):
    whole, part, model = network(), network(), on_meta()
    train(whole, ot.AdamW(whole.parameters(), lr=0.05), 12)
    first = ot.AdamW(part.parameters(), lr=0.05)
    train(part, first, 5)
    optimizer = ot.AdamW(model.named_parameters(), lr=0.7)
    with pytest.raises(ValueError, match=r"AdamW: 0\.weight has no memory for the state that is loaded; .*to_empty"):
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
    assert optimizer.param_groups[0]["lr"] == 0.7
    with_memory(model).load_state_dict(part.state_dict())
    optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
    train(model, optimizer, 7)
    assert torch.equal(flat(model), flat(whole))


def test_a_step_on_parameters_that_to_empty_left_behind_is_refused():
    """torch.optim says nothing, and nothing trains."""
    model = on_meta()
    optimizer = ot.AdamW(model.named_parameters())
    with_memory(model)
    with pytest.raises(ValueError, match=r"AdamW: 0\.weight is on the meta device at a step; .*set_swap_module_params"):
        train(model, optimizer, 1)
    assert torch.equal(flat(model), flat(network()))
