"""Laws of Modules that `re(flat)` and `map_trainables` rebuild: new Modules around what is not trained."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest

import optimisers as opt

torch = pytest.importorskip("torch")
nn = torch.nn


def normed() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1)
    )


def rebuilt(model: Any, way: str) -> Any:
    if way == "map_trainables":
        return opt.map_trainables(lambda x: x.detach().clone().requires_grad_(), model)
    flat, re = opt.destructure(model)
    return re(flat.detach().clone().requires_grad_())


WAYS = pytest.mark.parametrize("way", ["re", "map_trainables"])


@WAYS
def test_buffers_and_untrained_parameters_are_the_original_s(way: str) -> None:
    model = normed()
    model[4].bias.requires_grad_(False)
    new = rebuilt(model, way)
    buffers = dict(new.named_buffers())
    assert len(buffers) == 6 and all(buffers[name] is b for name, b in model.named_buffers())
    assert new[4].bias is model[4].bias
    assert all(a is not b for a, b in zip(model.modules(), new.modules(), strict=True))
    new.eval()
    assert all(m.training for m in model.modules())  # the Modules are other ones
    new.register_buffer("more", torch.ones(1))
    new[0].register_forward_hook(lambda *_: None)
    assert not hasattr(model, "more") and not model[0]._forward_hooks


def test_training_through_a_flat_vector_moves_running_statistics_as_without() -> None:
    model, direct = normed(), normed()
    model[2].p = direct[2].p = 0.0
    flat, re = opt.destructure(model)
    flat = flat.detach().requires_grad_()
    state, plain = opt.setup(opt.Adam(0.01), flat), opt.setup(opt.Adam(0.01), direct)
    for step in range(5):
        x = torch.linspace(-1, 1, 24).reshape(8, 3) * (step + 1)
        re(flat)(x).pow(2).mean().backward()
        direct(x).pow(2).mean().backward()
        opt.update_(state, flat, zero_grad=True)
        opt.update_(plain, direct, zero_grad=True)
    assert model[1].num_batches_tracked == 5
    for (name, b), want in zip(re(flat).eval().named_buffers(), direct.buffers(), strict=True):
        torch.testing.assert_close(b, want, msg=name)
    model.eval(), direct.eval()
    torch.testing.assert_close(re(flat)(x), direct(x))


class Attributes(nn.Module):
    """Things beside parameters, of which some refer to what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.log: list[Any] = []
        self.table = {"numpy": np.ones(2), "torch": torch.ones(2)}
        self.random = torch.Generator().manual_seed(1)
        self.numpy_random = np.random.default_rng(1)
        self.weights = [self.inner.weight, torch.ones(3)]
        self.method = self.inner.forward
        self.partial = functools.partial(self.inner.forward)
        self.parent = (self,)
        self.hidden = [nn.BatchNorm1d(2)]
        self.hidden[0].requires_grad_(False)


@WAYS
def test_other_attributes_are_shared_unless_they_refer_to_what_is_new(way: str) -> None:
    model = nn.Sequential(Attributes(), nn.Linear(2, 2))
    model[1].__dict__["first"] = model[0]
    new = rebuilt(model, way)
    old, made = model[0], new[0]
    assert made.log is old.log and made.table is old.table
    assert made.random is old.random and made.numpy_random is old.numpy_random
    assert made.weights[0] is made.inner.weight is not old.inner.weight and made.weights[1] is old.weights[1]
    assert made.method.__self__ is made.inner and made.partial.func.__self__ is made.inner
    assert made.parent[0] is made and new[1].first is made
    assert made.hidden[0].running_mean is old.hidden[0].running_mean and made.hidden[0].weight is old.hidden[0].weight


@WAYS
def test_ties_and_buffers_at_two_places_stay_one(way: str) -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.ModuleDict(
        {"a": norm, "b": nn.ModuleDict({"again": norm, "linear": nn.Linear(2, 2)}), "c": nn.Linear(2, 2)}
    )
    model["c"].weight = model["b"]["linear"].weight
    new = rebuilt({"net": model, "norm": norm}, way)
    assert new["norm"] is new["net"]["a"] is new["net"]["b"]["again"] is not norm
    assert new["norm"].running_var is norm.running_var
    assert new["net"]["c"].weight is new["net"]["b"]["linear"].weight is not model["c"].weight


@WAYS
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_modules_compute_with_the_new_weights(kind: Any, way: str) -> None:
    torch.manual_seed(0)
    model = kind(3, 4)
    x = torch.randn(5, 2, 3)
    want, untouched = copy.deepcopy(model), model(x)[0].detach()
    with torch.no_grad():
        for p in want.parameters():
            p.mul_(2)
    if way == "re":
        flat, re = opt.destructure(model)
        new = re(2 * flat)
    else:
        new = opt.map_trainables(lambda w: 2 * w.detach(), model)
    torch.testing.assert_close(new(x)[0], want(x)[0])
    assert torch.equal(model(x)[0], untouched)


def test_the_pure_update_copies_a_module_deeply() -> None:
    model = normed()
    model(torch.ones(4, 3)).sum().backward()
    _, new = opt.update(opt.setup(opt.Adam(), model), model)
    assert not {id(b) for b in new.buffers()} & {id(b) for b in model.buffers()}
