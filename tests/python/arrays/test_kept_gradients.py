"""Laws of gradients that arrays or `Duplicated` keep: which of a tied leaf's count, and how they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import bits
from tied_layers import TIES, backward, two_layers

import optimisers as opt

torch = pytest.importorskip("torch")
nn = torch.nn


def on_first_axes(m: Any, tie: str) -> Any:
    """What the gradients of the two places are together."""
    if tie == "the same Parameter":
        return m["e"].weight.grad.clone()
    second = m["h"].weight.grad
    return m["e"].weight.grad + (second.t() if tie == "transposed" else second)


@pytest.mark.parametrize("call", [opt.update_, opt.update])
@pytest.mark.parametrize("tie", TIES)
def test_gradients_of_a_leaf_are_summed_once_for_each_array(tie: str, call: Any) -> None:
    m = two_layers(tie)
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1e6, scope="global"), opt.Descent(0.125)), m)
    backward(m)
    want = m["e"].weight.detach() - 0.125 * on_first_axes(m, tie)
    grads = [p.grad for p in m.parameters()]
    _, new = call(state, m)
    assert torch.equal(new["e"].weight, want)
    second = new["h"].weight.t() if tie == "transposed" else new["h"].weight
    assert torch.equal(second, want) and second.data_ptr() == new["e"].weight.data_ptr()
    assert all(p.grad is g for p, g in zip(m.parameters(), grads, strict=True))


def test_gradients_of_three_places_are_summed_and_missing_ones_are_nothing() -> None:
    w = torch.zeros(2, 3)
    m = {k: w.detach().requires_grad_() for k in "abc"} | {"d": w.t().detach().requires_grad_()}
    m["b"].grad, m["d"].grad = torch.full((2, 3), 2.0), torch.arange(6.0).reshape(3, 2)
    opt.update_(opt.setup(opt.Descent(1.0), m), m)
    assert torch.equal(w, -2 - torch.arange(6.0).reshape(3, 2).t())


@pytest.mark.parametrize("part", ["e", "h", None])
def test_a_part_takes_the_gradients_of_its_own_places(part: str | None) -> None:
    m = two_layers("data")
    state = opt.setup(opt.Descent(1.0), m)
    backward(m)
    chosen = m if part is None else m[part]
    want = m["e"].weight.detach() - sum(m[p].weight.grad for p in ("e", "h") if part in (p, None))
    opt.update_(state if part is None else state[part], chosen, zero_grad=True)
    assert torch.equal(m["e"].weight, want)
    assert [m[p].weight.grad is None for p in ("e", "h")] == [part in (p, None) for p in ("e", "h")]


def same_memory(g: Any) -> dict[str, Any]:
    return {"one array": g, "view": g[:], "other shape and back": g.reshape(-1).reshape(g.shape)}


@pytest.mark.parametrize("how", ["one array", "view", "other shape and back", "transposed back"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_views_of_one_gradient_count_once(how: str, library: str) -> None:
    make = np.asarray if library == "numpy" else torch.tensor
    w, g = make(np.zeros((3, 3))), make(np.arange(9.0).reshape(3, 3))
    transposed = how == "transposed back"
    model = {"a": w, "b": w.T if transposed else w[:]}
    second = g.T if transposed else same_memory(g)[how]
    pair = opt.Duplicated(model, {"a": g, "b": second})
    opt.update_(opt.setup(opt.Descent(1.0), pair), pair)
    assert (w == -make(np.arange(9.0).reshape(3, 3))).all()


@pytest.mark.parametrize("how", ["copy", "shifted", "other strides", "conjugate"])
def test_gradients_that_are_not_the_same_elements_are_summed(how: str) -> None:
    memory = np.arange(10.0)
    if how == "conjugate":
        g = torch.tensor([1 + 2j, 3 - 1j])
        w, first, second = torch.zeros(2, dtype=torch.complex64), g, g.conj()
    else:
        w, first = np.zeros((3, 3)), memory[:9].reshape(3, 3)
        second = {"copy": first.copy(), "shifted": memory[1:].reshape(3, 3), "other strides": first.T}[how]
    want = -(first + second)
    pair = opt.Duplicated({"a": w, "b": w}, {"a": first, "b": second})
    opt.update_(opt.setup(opt.Descent(1.0), pair), pair)
    assert (w == want).all()


def test_one_lazily_conjugated_gradient_at_two_places_counts_once() -> None:
    for first, second in ((lambda g: g.conj(), lambda g: g.conj()), (lambda g: g, lambda g: g)):
        w, g = torch.zeros(2, dtype=torch.complex64), torch.tensor([1 + 2j, 3 - 1j]).conj()
        pair = opt.Duplicated({"a": w, "b": w[:]}, {"a": first(g), "b": second(g)})
        opt.update_(opt.setup(opt.Descent(1.0), pair), pair, zero_grad=True)
        assert torch.equal(w, -first(torch.tensor([1 + 2j, 3 - 1j]).conj()))
        assert not g.any()  # through the mark: what was read was a copy


def test_a_gradient_at_a_second_place_is_checked_like_the_first() -> None:
    w = np.zeros((2, 3))
    pair = opt.Duplicated({"a": w, "b": w.T}, {"a": np.ones((2, 3)), "b": np.ones((2, 3))})
    with pytest.raises(ValueError, match='gradient at "a" has shape'):
        opt.update_(opt.setup(opt.Descent(1.0), pair), pair)
    assert not w.any()


@pytest.mark.parametrize("rule", [opt.MixedPrecision(opt.Adam(0.5)), opt.Adam(0.5)])
def test_with_a_layout_the_gradients_of_a_leaf_are_summed_alike(rule: Any) -> None:
    w = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    model = {"a": w, "b": w.T, "c": np.ones(2, np.float32)}
    first, second = np.full((2, 3), 2.0), np.arange(6.0).reshape(3, 2)
    flat, re = opt.destructure(model)
    state = opt.setup(rule, flat, layout=re)
    pair = opt.Duplicated(flat, {"a": first, "b": second, "c": None})
    opt.update_(state, pair, zero_grad=True)
    tree = opt.setup(rule, model)
    opt.update_(tree, model, {"a": 2 + np.arange(6.0).reshape(3, 2).T, "c": None})
    assert bits([re(flat)["a"], re(flat)["c"]]) == bits([model["a"], model["c"]])
    assert not first.any() and not second.any()


@pytest.mark.parametrize("zero", [False, True])
def test_with_a_layout_one_array_at_two_places_counts_once(zero: bool) -> None:
    w, g = np.zeros(3), np.arange(3.0)
    flat, re = opt.destructure({"a": w, "b": {"c": w}, "d": np.zeros(1)})
    state = opt.setup(opt.Descent(1.0), flat, layout=re)
    opt.update_(state, opt.Duplicated(flat, {"a": g, "b": {"c": g}}), zero_grad=zero)
    assert flat.tolist() == [0, -1, -2, 0] and g.any() == (not zero)
    opt.update_(state, flat, {"a": np.ones(3), "b": {"c": np.ones(3)}})
    assert flat.tolist() == [-2, -3, -4, 0], "in a tree that is given, each place is a part of the sum"


# ---------------------------------------------------------------------------- marks that cannot be asked about


@pytest.mark.parametrize("error", [NotImplementedError, AttributeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("mark", ["is_conj", "is_neg"])
def test_a_mark_that_cannot_be_asked_about_is_an_error(mark: str, error: type[BaseException]) -> None:
    class Silent(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") == mark:
                raise error("no answer")
            return super().__torch_function__(func, types, args, kwargs or {})

    g = torch.tensor([1 + 1j, 2 + 2j])
    g = g.conj() if mark == "is_conj" else torch._neg_view(g)
    model = {"w": torch.zeros(2, dtype=torch.complex64)}
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(error, match="no answer"):
        opt.update_(state, model, {"w": g.as_subclass(Silent)})
    assert not model["w"].any()
    with pytest.raises(error, match="no answer"):
        opt.setup(opt.Descent(1.0), {"w": g.as_subclass(Silent)})
    opt.update_(state, model, {"w": g})
    assert torch.equal(model["w"], -g.resolve_conj().resolve_neg())
