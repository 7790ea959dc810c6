"""Laws of zero_grad: what becomes of kept gradients after a step, and what is refused before one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import bits
from tied_layers import TIES, backward, two_layers

import optimisers as opt

torch = pytest.importorskip("torch")
nn = torch.nn


def branching() -> Any:
    torch.manual_seed(0)
    return nn.ModuleDict({"always": nn.Linear(3, 3), "sometimes": nn.Linear(3, 3)})


def test_true_is_what_torch_does_where_a_branch_is_not_always_used() -> None:
    ours, theirs = branching(), branching()
    state, reference = opt.setup(opt.Adam(0.05), ours), torch.optim.Adam(theirs.parameters(), 0.05)
    for step in range(20):
        x = torch.linspace(-1, 1, 12).reshape(4, 3) + step
        for m in (ours, theirs):
            y = m["always"](x)
            (m["sometimes"](y) if step % 5 == 0 else y).pow(2).sum().backward()
        opt.update_(state, ours, zero_grad=True)
        reference.step()
        reference.zero_grad()
        assert all(p.grad is None for p in ours.parameters())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_zeros_keeps_the_arrays() -> None:
    m = two_layers("data")
    state = opt.setup(opt.Adam(), m)
    backward(m)
    m["rest"].weight.grad = m["rest"].weight.grad.T.contiguous().T  # strided
    grads = [p.grad for p in m.parameters()]
    versions = [g._version for g in grads]
    opt.update_(state, m, zero_grad="zeros")
    assert all(p.grad is g and not g.any() for p, g in zip(m.parameters(), grads, strict=True))
    assert all(g._version > v for g, v in zip(grads, versions, strict=True))


@pytest.mark.parametrize("zero", [True, "zeros"])
@pytest.mark.parametrize("tie", TIES)
def test_all_places_of_a_tie_are_reached(tie: str, zero: Any) -> None:
    m = two_layers(tie)
    state = opt.setup(opt.Adam(), m)
    for _ in range(2):
        backward(m)
        opt.update_(state, m, zero_grad=zero)
        assert all(p.grad is None if zero is True else not p.grad.any() for p in m.parameters())


@pytest.mark.parametrize("zero", [True, "zeros"])
def test_frozen_leaves_are_reset_and_what_has_no_state_is_not(zero: Any) -> None:
    m = two_layers("data")
    state = opt.setup({"rest.weight": None, ...: opt.Adam()}, m)
    opt.freeze_(state["rest"]["bias"])
    backward(m)
    left, bias = m["rest"].weight.grad.clone(), m["rest"].bias.detach().clone()
    opt.update_(state, m, zero_grad=zero)
    assert torch.equal(m["rest"].weight.grad, left) and torch.equal(m["rest"].bias, bias)
    assert m["rest"].bias.grad is None if zero is True else not m["rest"].bias.grad.any()


@pytest.mark.parametrize("zero", [False, np.False_])
def test_without_it_gradients_stay(zero: Any) -> None:
    m = two_layers("data")
    backward(m)
    before = [p.grad.clone() for p in m.parameters()]
    opt.update_(opt.setup(opt.Adam(), m), m, zero_grad=zero)
    assert bits([p.grad for p in m.parameters()]) == bits(before)


def test_numpy_booleans_are_booleans() -> None:
    m = two_layers("data")
    backward(m)
    opt.update_(opt.setup(opt.Adam(), m), m, zero_grad=np.bool_(True))
    assert all(p.grad is None for p in m.parameters())


class Refuses:
    def __bool__(self) -> bool:
        raise KeyError("mine")


WRONG = [np.array([True, False]), Refuses(), 1, 0, None, "none", "zero", "", b"zeros", ["zeros"], float("nan")]


@pytest.mark.parametrize("wrong", WRONG, ids=[type(w).__name__ + str(i) for i, w in enumerate(WRONG)])
def test_anything_else_is_refused_before_anything_is_written(wrong: Any) -> None:
    model, grads = {"w": np.ones(2)}, {"w": np.ones(2)}
    state = opt.setup(opt.Adam(0.5), model)
    with pytest.raises((TypeError, ValueError), match=r"zero_grad must be False, True .* or .zeros., got"):
        opt.update_(state, opt.Duplicated(model, grads), zero_grad=wrong)
    assert (model["w"] == 1).all() and (grads["w"] == 1).all() and state["w"].clock.beta1_t == 1


def test_a_step_that_is_refused_resets_nothing() -> None:
    m = two_layers("data")
    state = opt.setup(opt.ClipNorm(10.0), m)
    backward(m)
    m["rest"].weight.grad[0, 0] = torch.inf
    for zero in (True, "zeros"):
        with pytest.raises(FloatingPointError):
            opt.update_(state, m, zero_grad=zero)
        assert all(p.grad.any() for p in m.parameters())
        with pytest.raises(TypeError, match="given as an argument"):
            opt.update_(state, m, {}, zero_grad=zero)


# ---- gradients that are awkward to write


class Locked(np.ndarray):
    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("units do not match")


def awkward() -> dict[str, tuple[Any, Any, Any]]:
    """A parameter, memory, and a gradient in it."""
    with torch.inference_mode():
        inference = torch.ones(4, 8)
        part = inference[:, ::2]
    ones, plenty = np.ones((4, 8)), np.arange(1.0, 8.0)
    half, complex_ones = np.ones((3, 2), np.float16), np.ones((3, 2), complex)
    return {
        "inference tensor": (torch.ones(4, 8), inference, inference),
        "strided inference tensor": (torch.ones(4, 4), inference, part),
        "ndarray subclass": (np.ones((4, 4)), ones, ones[:, ::2].view(Locked)),
        "reversed": (np.ones(4), plenty, plenty[5:1:-1]),
        "no axes": (np.ones(()), plenty, plenty[1:2].reshape(())),
        "empty": (np.ones((0, 3)), np.ones((0, 3)), np.ones((0, 3))),
        "integers": (np.ones(4), plenty.astype(int), None),
        "half": (np.ones(3, np.float16), half, half[:, 1]),
        "complex": (np.ones(3, complex), complex_ones, complex_ones[:, 0]),
    }


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("zero", [True, "zeros"])
def test_memory_of_any_kind_is_zeroed_where_it_lies_and_nothing_beside_it(kind: str, zero: Any) -> None:
    x, memory, g = awkward()[kind]
    g = memory[::2] if g is None else g
    pair = opt.Duplicated({"w": x}, {"w": g})
    want, left = np.asarray(x) - np.asarray(g), np.count_nonzero(np.asarray(memory)) - np.asarray(g).size
    opt.update_(opt.setup(opt.Descent(1.0), pair), pair, zero_grad=zero)
    assert np.array_equal(np.asarray(x), want) and not np.asarray(g).any()
    assert np.count_nonzero(np.asarray(memory)) == left


NOT_WRITABLE = {
    "read-only": lambda: np.broadcast_to(np.ones(()), (3,)).copy(),
    "broadcast": lambda: torch.ones(1).expand(3),
    "NumPy scalar": lambda: np.float64(1.0),
}


@pytest.mark.parametrize("kind", NOT_WRITABLE)
def test_what_cannot_be_zeroed_is_refused_before_the_step(kind: str) -> None:
    g = NOT_WRITABLE[kind]()
    if kind == "read-only":
        g.flags.writeable = False
    x = torch.ones(3) if kind == "broadcast" else np.ones(np.shape(g))
    pair = opt.Duplicated({"w": x, "v": np.ones(2)}, {"w": g, "v": np.ones(2)})
    state = opt.setup(opt.Adam(), pair)
    for zero in (True, "zeros"):
        with pytest.raises(ValueError, match='gradient at "w" cannot be set to zero: it is'):
            opt.update_(state, pair, zero_grad=zero)
    assert (pair.model["w"] == 1).all() and (pair.model["v"] == 1).all() and (pair.grads["v"] == 1).all()


def test_a_parameter_is_never_zeroed() -> None:
    model = {"a": np.ones(2), "b": np.ones(2)}
    state = opt.setup(opt.Descent(0.5), model)
    opt.freeze_(state["b"])
    for grads in ({"a": model["a"]}, {"a": model["b"]}, {"b": model["b"]}, {"b": model["b"][::-1]}):
        with pytest.raises(ValueError, match="memory of a parameter"):
            opt.update_(state, opt.Duplicated(model, grads), zero_grad="zeros")
    assert (model["a"] == 1).all() and (model["b"] == 1).all()


class OwnProperty(nn.Parameter):
    """A parameter that has its own idea of `.grad`."""

    refuses = True

    @property
    def grad(self) -> Any:
        return self.kept

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is None and self.refuses:
            raise KeyError("mine")
        self.kept = value


def test_a_class_that_refuses_none_is_asked_before_the_step() -> None:
    m = nn.Linear(2, 1)
    m.weight = OwnProperty(torch.ones(1, 2))
    m.weight.grad, m.bias.grad = torch.ones(1, 2), torch.ones(1)
    state, g = opt.setup(opt.Descent(1.0), m), m.weight.grad
    bias = m.bias.detach().clone()
    with pytest.raises(KeyError, match="mine"):
        opt.update_(state, m, zero_grad=True)
    assert m.weight.grad is g and m.bias.grad is not None
    assert (m.weight == 1).all() and torch.equal(m.bias, bias)
    m.weight.refuses = False
    opt.update_(state, m, zero_grad=True)
    assert m.weight.grad is None and m.bias.grad is None and (m.weight == 0).all()


def test_a_torch_function_mode_hears_nothing_of_it() -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") == "__set__":
                raise KeyError("mode")
            return function(*args, **(kwargs or {}))

    m = nn.Linear(2, 1)
    m(torch.ones(1, 2)).sum().backward()
    before = m.bias.detach().clone()
    with Mode():
        opt.update_(opt.setup(opt.Descent(1.0), m), m, zero_grad=True)
    assert m.weight.grad is None and m.bias.grad is None and torch.equal(m.bias, before - 1)
