"""Modules that come back wrapped by torch.compile or a data-parallel class: paths and states are the inner one's."""

import pytest
import torch
from torch_training import flat, network

import optimisers as opt


def loss(model):
    return model(torch.ones(2, 4)).sum()


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "torch.compile": lambda m: torch.compile(m, backend="eager"),
    "DistributedDataParallel": torch.nn.parallel.DistributedDataParallel,
    "DataParallel": torch.nn.DataParallel,
    "both": lambda m: torch.compile(torch.nn.parallel.DistributedDataParallel(m), backend="eager"),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_state_of_the_plain_module_serves_the_wrapped_one_and_back(wrap, process_group):
    plain, twin = network(), network()
    wrapped = WRAPPERS[wrap](twin)
    states = opt.setup(opt.Adam(), plain), opt.setup(opt.Adam(), wrapped)
    assert [leaf.path for leaf in (states[0][2].weight, states[1][2].weight)] == [opt.KeyPath("2", "weight")] * 2
    for swapped in (False, True):  # each state has its turn with either form
        for state, model, form in zip(states, (plain, twin), (plain, wrapped if not swapped else twin), strict=True):
            model.zero_grad()
            loss(model).backward()
            opt.update_(state, form)
    assert torch.equal(flat(plain), flat(twin))
    assert opt.trainables(wrapped)[0] is opt.trainables(twin)[0]
    opt.update_(states[0], wrapped, {"0": {"bias": torch.ones(8)}})


def test_a_module_of_ones_own_that_is_called_the_same_is_a_level_of_its_own():
    class DataParallel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.Linear(2, 1)

    assert opt.setup(opt.Adam(), DataParallel()).module.weight.path == opt.KeyPath("module", "weight")
