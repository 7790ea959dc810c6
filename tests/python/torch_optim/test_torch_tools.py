"""optimisers.torch under torch's own tools: schedulers, scalers, hooks, torch.compile, steps in the backward pass."""

import pytest
import torch
from torch_training import flat, network, train

import optimisers.torch as ot

SCHEDULERS = {
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=4), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        [4],
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05, anneal_epochs=5),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_drive_it(name):
    models = network(), network()
    for library, model in zip((torch.optim, ot), models, strict=True):
        optimizer = library.AdamW(model.parameters(), lr=0.02)
        scheduler = SCHEDULERS[name](optimizer)
        for _ in range(10):
            train(model, optimizer, 1)
            scheduler.step(1.0) if name == "ReduceLROnPlateau" else scheduler.step()
    assert torch.allclose(flat(models[1]), flat(models[0]), atol=1e-5)


def test_a_grad_scaler_skips_what_overflowed():
    model = network()
    optimizer = ot.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model(torch.ones(2, 4)).sum()).backward()
    twin = network()
    reference = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin(torch.ones(2, 4)).sum().backward()
    reference.step()
    scaler.step(optimizer)
    scaler.update()
    assert torch.allclose(flat(model), flat(twin))
    model[0].bias.grad.fill_(float("inf"))
    before = flat(model)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(flat(model), before)
    assert scaler.get_scale() == 2.0


def test_hooks_around_steps_and_files_run():
    model = network()
    optimizer = ot.AdamW(model.parameters())
    seen = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("before"))
    optimizer.register_step_post_hook(lambda *a: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, d: seen.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda o, d: seen.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    train(model, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "saved", "loading", "loaded"]


def test_a_compiled_step_stays_eager_and_right():
    model, twin = network(), network()
    optimizer, reference = ot.AdamW(model.parameters()), torch.optim.AdamW(twin.parameters())
    step = torch.compile(optimizer.step, backend="eager")
    compiled = torch.compile(model, backend="eager")
    for _ in range(3):
        for net, its in ((compiled, optimizer), (twin, reference)):
            its.zero_grad()
            net(torch.ones(2, 4)).sum().backward()
        step()
        reference.step()
    assert torch.allclose(flat(model), flat(twin), atol=1e-6)


def test_steps_in_the_backward_pass():
    model, twin = network(), network()
    optimizers = {p: ot.Adam([p]) for p in model.parameters()}

    def step_and_forget(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step_and_forget)
    reference = torch.optim.Adam(twin.parameters())
    for _ in range(3):
        model(torch.ones(2, 4)).sum().backward()
        reference.zero_grad()
        twin(torch.ones(2, 4)).sum().backward()
        reference.step()
    assert torch.allclose(flat(model), flat(twin), atol=1e-6)


def test_parameters_that_take_the_place_of_others_take_their_state():
    """As device movers and sharding do: other objects of the same shape in the groups."""
    model, twin = network(), network()
    optimizer, reference = ot.Adam(model.parameters()), torch.optim.Adam(twin.parameters())
    train(model, optimizer, 2)
    train(twin, reference, 2)
    for name in ("0", "2"):
        layer = model.get_submodule(name)
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    optimizer.param_groups[0]["params"] = list(model.parameters())
    train(model, optimizer, 2)
    train(twin, reference, 2)
    assert torch.allclose(flat(model), flat(twin), atol=1e-6)
    assert set(optimizer.state) == set(model.parameters())
