"""torch: tensors as leaves and gradients, beside NumPy arrays; Modules are in test_torch.py."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_tensors_that_require_grad_are_updated_and_a_stale_backward_is_caught():
    w = torch.nn.Parameter(torch.ones(3))
    state = opt.setup(opt.Descent(1.0), {"w": w})
    loss = (w * w).sum()
    version = w._version
    opt.update_(state, {"w": w}, {"w": torch.ones(3)})
    assert w._version > version and w.tolist() == [0, 0, 0] and w.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_and_missing_tensors_keep_their_version():
    model = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    state = opt.setup(opt.Descent(1.0), model)
    opt.freeze_(state["a"])
    before = {k: t._version for k, t in model.items()}
    opt.update_(state, model, {"a": torch.ones(2), "c": torch.ones(2)})
    assert [model[k]._version > before[k] for k in "abc"] == [False, False, True]


def test_accumulated_gradients_bump_the_version_where_they_are_applied():
    w = torch.ones(2, requires_grad=True)
    state = opt.setup(opt.AccumGrad(2), [w])
    bumped = []
    for gradient in (torch.ones(2), torch.ones(2), torch.ones(2), None, None, None):
        loss, version = (w * w).sum(), w._version
        opt.update_(state, [w], [gradient])
        bumped.append(w._version > version)
    assert bumped == [False, True, False, True, False, False]
    opt.update_(state, [w], [torch.ones(2)])
    loss = (w * w).sum()
    opt.update_(state, [w], [None])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_pure_update_of_parameters_returns_parameters():
    model = {"w": torch.nn.Parameter(torch.ones(3)), "x": torch.ones(2, requires_grad=True)}
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, {"w": torch.ones(3)})
    assert isinstance(new["w"], torch.nn.Parameter) and new["x"].requires_grad
    assert new["w"].tolist() == [0, 0, 0] and model["w"].tolist() == [1, 1, 1]


def test_lazy_conjugates_and_negatives_are_read_right():
    z = torch.tensor([1 + 2j, 3 - 1j])
    model = {"z": torch.zeros(2, dtype=torch.complex64), "x": torch.zeros(2), "s": torch.zeros(())}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"z": z.conj(), "x": z.conj().imag, "s": z.conj().imag[0]})
    assert model["z"].tolist() == [-1 + 2j, -3 - 1j] and model["x"].tolist() == [2, -1] and model["s"] == 2
    with pytest.raises(ValueError, match="resolve_conj"):
        opt.setup(opt.Descent(), {"z": z.conj()})


@pytest.mark.parametrize(
    "bad", [torch.eye(2).to_sparse(), torch.empty(2, 2, device="meta"), torch.zeros(2, 2).to(torch.float8_e5m2)]
)
def test_tensors_that_cannot_be_read_are_refused(bad):
    with pytest.raises(ValueError, match=r"a\.w"):
        opt.setup(opt.Adam(), {"a": {"w": bad}})
    model = {"w": torch.zeros(2, 2)}
    with pytest.raises((ValueError, TypeError), match='"w"'):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": bad})


def without_memory(kind: str) -> torch.Tensor:
    """A tensor of four elements that no memory holds."""
    if kind == "fake":
        with FakeTensorMode():
            return torch.ones(4)
    if kind == "zero":
        return torch._efficientzerotensor(4)
    x = torch.ones(8)
    half = x[4:] if kind == "let go, with an offset" else x[:4]
    x.untyped_storage().resize_(0)
    return half


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["fake", "zero", "let go", "let go, with an offset"])
def test_tensors_without_memory_are_refused(kind):
    model = {"w": torch.ones(4)}
    state = opt.setup(opt.Momentum(), model)
    for x, dx in ((without_memory(kind), torch.ones(4)), (model["w"], without_memory(kind))):
        with pytest.raises(ValueError, match=r'"w" is a .*Tensor without memory'):
            opt.update_(state, {"w": x}, {"w": dx})
    with pytest.raises(ValueError, match="without memory"):
        opt.norm([without_memory(kind)])
    assert model["w"].tolist() == [1, 1, 1, 1] and state["w"].state.v.tolist() == [0, 0, 0, 0]


def test_tensors_inside_of_functional_transforms_are_refused():
    for transform in (torch.func.functionalize, torch.func.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())):
        with pytest.raises(ValueError, match="without memory"):
            transform(lambda x: opt.setup(opt.Adam(), x) and x)(torch.ones(3, 2))


def test_one_model_may_mix_libraries():
    model = {"n": ones(2), "t": torch.ones(2)}
    opt.update_(opt.setup(opt.Descent(1.0), model), model, {"n": torch.ones(2), "t": np.ones(2)})
    assert model["n"].sum() == 0 and model["t"].sum() == 0
