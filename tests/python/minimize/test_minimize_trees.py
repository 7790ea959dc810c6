"""minimize on trees, flat vectors with a layout, and arrays of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import bits

import optimisers as opt


def tree() -> Any:
    return {"w": np.array([[1.0, 2.0]]), "b": [np.array([3.0], np.float32), "name", None], "n": 5}


def fun(x: Any) -> Any:
    w, b = x["w"], x["b"][0]
    return float((w**2).sum() + (b**2).sum()), {"w": 2 * w, "b": [2 * b, None, None]}


def test_a_tree_equals_a_loop_of_updates() -> None:
    x0, x = tree(), tree()
    state = opt.setup(opt.Adam(0.1), x)
    for _ in range(30):
        opt.update_(state, x, fun(x)[1])
    found = opt.minimize(fun, x0, opt.Adam(0.1), maxiter=30, xtol=1e-9)
    assert bits(found.last) == bits(x) and bits(x0) == bits(tree()) and found.x["b"][1:] == ["name", None]
    assert found.jac["w"].shape == (1, 2) and found.jac["b"][0].dtype == np.float32
    went_on = opt.minimize(fun, x0, None, state=opt.minimize(fun, x0, opt.Adam(0.1), maxiter=11), maxiter=19)
    assert bits(went_on.x) == bits(found.x)


def test_functions_and_callbacks_get_copies_of_trees() -> None:
    def spoiling(x: Any) -> Any:
        result = fun(x)
        x["w"][...] = 7
        return result

    def callback(x: Any) -> None:
        x["w"][...] = 7

    found = opt.minimize(spoiling, tree(), opt.Adam(0.1), maxiter=9, callback=callback)
    assert bits(found.x) == bits(opt.minimize(fun, tree(), opt.Adam(0.1), maxiter=9).x)


def test_rules_by_part_and_gradients_that_are_missing() -> None:
    x0 = {"a": np.ones(2), "b": np.ones(2)}
    found = opt.minimize(
        lambda x: (float(x["a"].sum()), {"a": np.ones(2), "b": None}), x0, {"a": opt.Descent(1.0), "b": None}, maxiter=2
    )
    assert found.x["a"].tolist() == [-1, -1] and found.x["b"].tolist() == [1, 1] and found.jac["b"].tolist() == [0, 0]


def test_tied_arrays_are_one() -> None:
    w = np.ones(2)
    found = opt.minimize(
        lambda x: (float((x[0] * x[1]).sum()), [x[1].copy(), x[0].copy()]), [w, w], opt.Descent(0.1), maxiter=1
    )
    assert found.last[0] is found.last[1] and found.last[0].tolist() == [0.8, 0.8]
    assert found.jac[0].tolist() == [1.6, 1.6]


def test_wrong_gradients_name_the_leaf() -> None:
    for gradient, message in (
        ({"w": np.ones(2), "b": None}, r'gradient of "w" has shape \(2,\), the array \(1, 2\)'),
        ({"w": np.ones((1, 2), complex)}, '"w" is complex128'),
        ({"v": np.ones(2)}, "'v'"),
        ({"w": None}, "the gradient is None"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            opt.minimize(lambda x, g=gradient: (1.0, g), tree(), opt.Adam())


def test_a_flat_vector_with_a_layout() -> None:
    model = {"w": np.array([3.0, 4.0]), "b": np.array([1.0])}
    flat, re = opt.destructure(model)
    state = opt.setup(opt.OptimiserChain(opt.ClipNorm(1.0), opt.Descent(0.1)), flat, layout=re)
    opt.freeze_(state["b"])
    found = opt.minimize(lambda x: (float(x @ x), 2 * x), flat, None, state=state, maxiter=1)
    assert re(found.last)["b"] == 1 and np.allclose(re(found.last)["w"], [3 - 0.06, 4 - 0.08])


# ------------------------------------------------------------ libraries


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensors_equal_arrays(dtype: Any, requires_grad: bool) -> None:
    def by_autograd(x: Any) -> Any:
        x = x.detach().requires_grad_()
        loss = ((x - 2) ** 2).sum()
        return loss, torch.autograd.grad(loss, x)[0]

    x0 = torch.tensor([0.5, -1.0], dtype=dtype, requires_grad=requires_grad)
    found = opt.minimize(by_autograd, x0, opt.Adam(0.1), maxiter=40, bounds=(None, 1.5), xtol=1e-9)
    assert found.x.dtype == dtype and x0.tolist() == [0.5, -1.0] and found.x.requires_grad == requires_grad
    assert found.jac.dtype == dtype and not found.jac.requires_grad and isinstance(found.fun, float)
    if dtype != torch.bfloat16:
        x = x0.detach().numpy().copy()
        same = opt.minimize(
            lambda x: (((x - 2) ** 2).sum(), 2 * (x - 2)), x, opt.Adam(0.1), maxiter=40, bounds=(None, 1.5), xtol=1e-9
        )
        assert found.x.detach().numpy().tobytes() == same.x.tobytes() and found.nit == same.nit
    else:
        assert (found.x <= 1.5).all() and (found.x > 0.5).all()


def test_a_module_is_minimised() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    data = torch.randn(20, 2)
    before = [p.detach().clone() for p in net.parameters()]

    def loss(module: Any) -> Any:
        value = ((module(data) - 1) ** 2).mean()
        return value, dict(
            zip(("weight", "bias"), torch.autograd.grad(value, [module.weight, module.bias]), strict=True)
        )

    found = opt.minimize(loss, net, opt.Adam(0.05), maxiter=200)
    assert found.fun < 1e-3 and isinstance(found.x, torch.nn.Linear) and found.x is not net
    assert all((p == q).all() for p, q in zip(net.parameters(), before, strict=True))


def test_jax_arrays_go_the_pure_way() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jnp = jax.numpy

    def value(x: Any) -> Any:
        return ((x["w"] - 2) ** 2).sum()

    x0 = {"w": jnp.zeros(3)}
    f = jax.value_and_grad(value)
    found = opt.minimize(f, x0, opt.Adam(0.1), maxiter=60, bounds={"w": (None, 1.5)}, xtol=1e-9)
    same = opt.minimize(
        lambda x: (float(((x["w"] - 2) ** 2).sum()), {"w": 2 * (x["w"] - 2)}),
        {"w": np.zeros(3, np.float32)},
        opt.Adam(0.1),
        maxiter=60,
        bounds={"w": (None, 1.5)},
        xtol=1e-9,
    )
    assert isinstance(found.x["w"], jax.Array) and (x0["w"] == 0).all() and found.nit == same.nit
    assert np.asarray(found.x["w"]).tobytes() == same.x["w"].tobytes()
    went_on = opt.minimize(
        f, x0, None, state=opt.minimize(f, x0, opt.Adam(0.1), maxiter=5, bounds={"w": (None, 1.5)}), maxiter=5
    )
    assert went_on.nit == 10


def test_jax_gradients_for_numpy_x() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    f = jax.jit(jax.value_and_grad(lambda x: ((x - 2) ** 2).sum()))
    found = opt.minimize(f, np.zeros(3, np.float32), opt.Descent(0.25))
    assert isinstance(found.x, np.ndarray) and found.success and np.abs(found.x - 2).max() < 1e-4
