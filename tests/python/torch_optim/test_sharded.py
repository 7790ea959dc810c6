"""DTensors under fully_shard, on 2 and 4 processes of this machine: bits, files and refusals."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import optimisers as opt
import optimisers.torch as ot

MAKERS = {
    "AdamW": lambda p: ot.AdamW(p, lr=0.05),
    "clipped": lambda p: ot.AdamW(p, lr=0.05, clip_grad_norm=0.01),
    "SGD": lambda p: ot.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "gathered": lambda p: ot.Optimizer(p, opt.OptimiserChain(opt.ClipNorm(0.05), opt.Adam(0.05)), gather=True),
}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))


def train(model, optimizer, steps):
    x, y = (torch.randn(8, n, generator=torch.Generator().manual_seed(n)) for n in (6, 3))
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def on_a_rank(rank, world, file):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    store = dist.FileStore(file, world)  # a port that is free now may be somebody's by then
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))

    def sharded(device="cpu", **policy):
        model = network().to(device)
        fully_shard(model[0], mesh=mesh, **policy)
        return fully_shard(model, mesh=mesh, **policy)

    for name, make in MAKERS.items():
        alone = network()
        single = make(alone.parameters())
        train(alone, single, 7)

        model = sharded(**({"offload_policy": CPUOffloadPolicy(pin_memory=False)} if name == "AdamW" else {}))
        optimizer = make(model.parameters())
        get_optimizer_state_dict(model, optimizer)  # advances nothing
        train(model, optimizer, 4)
        saved = get_optimizer_state_dict(model, optimizer)
        other = sharded("cpu" if name == "SGD" else "meta")
        resumed = make(other.parameters())
        if name != "SGD":
            other.to_empty(device="cpu")  # the usual way to models that fit no single process
        other.load_state_dict(model.state_dict())
        set_optimizer_state_dict(other, resumed, saved)
        train(model, optimizer, 3)
        train(other, resumed, 3)
        for whole, *parts in zip(alone.parameters(), model.parameters(), other.parameters(), strict=True):
            for part in parts:
                assert torch.equal(part.full_tensor(), whole), name
        state = optimizer.state[next(model.parameters())]
        key = next(k for k in state if k != "step")
        if name == "gathered":
            assert all(placement.is_replicate() for placement in state[key].placements)
        else:
            assert state[key].placements == next(model.parameters()).placements
        assert torch.equal(state[key].full_tensor(), single.state[next(alone.parameters())][key])
        if name == "clipped":
            assert abs(optimizer.grad_norm / single.grad_norm - 1) < 1e-12

    try:
        ot.Optimizer(sharded().parameters(), opt.OptimiserChain(opt.ClipNorm(1.0), opt.Adam()))
    except ValueError as error:
        assert "ClipNorm looks at a whole array" in str(error) and "gather=True" in str(error)
    else:
        raise AssertionError("a norm of an array that no process has was not refused")
    dist.barrier()
    dist.destroy_process_group()
    # Not through the interpreter's end, where a thread of torch's may abort the process ("terminate called without an
    # active exception"): 2 of 12 trainings with torch.optim.AdamW in its place did.
    os._exit(0)


@pytest.mark.parametrize("world", [2, 4])
def test_shards_have_the_bits_of_one_process(world, tmp_path):
    mp.spawn(on_a_rank, (world, str(tmp_path / "store")), nprocs=world)
