"""minimize: what ends it, and how it says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import optimisers as opt


def bowl(x: Any) -> Any:
    return float((x**2).sum()), 2 * x


def following(*values: float) -> Any:
    """A function with these values, one after the other."""
    left = iter(values)
    return lambda x: (next(left), np.ones_like(x))


def run(fun: Any, **options: Any) -> Any:
    return opt.minimize(fun, np.array([4.0]), opt.Descent(0.25), **options)


def test_gtol_is_the_largest_element() -> None:
    found = run(bowl, gtol=1.0)  # x is 4, 2, 1, ½, its gradient twice that
    assert found.x == 0.5 and found.nit == 3 and found.success and "gtol" in found.message
    assert run(bowl).jac <= 1e-5 < 2 * run(bowl).jac
    assert run(lambda x: (0.0, 0 * x)).nit == 0
    assert run(lambda x: (0.0, 0 * x), gtol=0).nit == 0
    assert run(bowl, gtol=0, maxiter=40).nit == 40


def test_where_gtol_is_met_is_the_result() -> None:
    """1 + x² has equal values below 1e-8, where gradients still differ."""
    found = opt.minimize(lambda x: (1 + float(x[0] ** 2), 2 * x), np.array([4.0]), opt.Descent(0.25), gtol=1e-12)
    assert found.success and abs(found.jac[0]) <= 1e-12 and (found.x == found.last).all()
    values, slopes = iter([5.0, 6.0]), iter([1.0, 0.0])
    found = run(lambda x: (next(values), np.array([next(slopes)])))
    assert found.success and found.fun == 5.0 and found.x == 4.0


def test_ftol_is_the_change_relative_to_the_larger_or_one() -> None:
    assert run(following(300.0, 200.0, 190.0, 189.0), ftol=0.06).nit == 2
    assert run(following(300.0, 200.0, 210.0, 189.0), ftol=0.06).nit == 2
    assert run(following(3.0, 0.5, 0.45, 0.0), ftol=0.06).nit == 2
    found = run(following(3.0, 2.0, 2.0), ftol=0.0)
    assert found.nit == 2 and found.status == 0 and "ftol" in found.message


def test_xtol_is_the_largest_movement_relative_to_x_or_one() -> None:
    assert run(bowl, xtol=0.6).nit == 3  # to 2, 1 and ½, by as much
    found = opt.minimize(lambda x: (-x[0], -np.ones(1)), np.array([97.0]), opt.Descent(1.0), xtol=0.01015)
    assert found.nit == 2 and found.x == 99 and "xtol" in found.message and found.success


@pytest.mark.parametrize(
    ("values", "nit", "best"),
    [((5, 4, 4, 4, 3), 3, 4), ((5, 4, 6, 3, 3, 3, 3), 5, 3), ((5, 5, 5, 4), 2, 5), ((1, 2, 3, 0), 2, 1)],
)
def test_patience_counts_iterations_without_a_smaller_value(values: Any, nit: int, best: float) -> None:
    found = run(following(*map(float, values)), patience=2)
    assert (found.nit, found.fun, found.status) == (nit, best, 0) and "patience" in found.message


def test_of_equal_values_the_first_is_the_best() -> None:
    found = run(following(5.0, 4.0, 4.0, 4.0), patience=2)
    assert found.x == 4 - 0.25


def test_windows_of_accum_grad_are_no_standstill() -> None:
    rule = opt.OptimiserChain(opt.AccumGrad(4), opt.Descent(0.25))
    for options in ({"ftol": 1e-3}, {"xtol": 1e-3}, {"patience": 2}):
        found = opt.minimize(bowl, np.array([4.0]), rule, maxiter=200, **options)  # type: ignore[arg-type]
        assert abs(found.x[0]) < 0.1, options


def test_callback_in_both_forms() -> None:
    xs: list[Any] = []
    results: list[Any] = []

    def old(xk: Any) -> None:
        xs.append(xk)

    def new(*, intermediate_result: Any) -> None:
        results.append(intermediate_result)

    run(bowl, callback=old, maxiter=3)
    run(bowl, callback=new, maxiter=3)
    assert [x.tolist() for x in xs] == [[2.0], [1.0], [0.5]]
    assert [(r.x.tolist(), r.fun, r.nit, r.nfev) for r in results] == [
        ([2.0], 4.0, 1, 2), ([1.0], 1.0, 2, 3), ([0.5], 0.25, 3, 4),
    ]  # fmt: skip


def test_callback_gets_copies() -> None:
    def spoiling(x: Any) -> None:
        x[...] = math.nan

    assert run(bowl, callback=spoiling).success


@pytest.mark.parametrize("how", ["raises", "returns", "returns numpy"])
def test_callback_ends_it(how: str) -> None:
    calls = []

    def callback(x: Any) -> Any:
        calls.append(x)
        if len(calls) < 3:
            return None
        if how == "raises":
            raise StopIteration
        return True if how == "returns" else np.True_

    found = run(bowl, callback=callback)
    assert (found.nit, found.status, found.success, found.x[0]) == (3, 99, False, 0.5)
    assert "callback" in found.message and found.history.stopped == found.message


def test_an_array_that_a_callback_returns_ends_nothing() -> None:
    assert run(bowl, callback=lambda x: x, maxiter=5).nit == 5


# ------------------------------------------------------------ what is not finite


@pytest.mark.parametrize("what", ["value", "gradient", "inf"])
@pytest.mark.parametrize("at", [0, 3])
def test_what_is_not_finite_ends_it_and_is_not_applied(what: str, at: int) -> None:
    calls = []

    def fun(x: Any) -> Any:
        value, g = bowl(x)
        calls.append(x)
        if len(calls) == at + 1:
            return {"value": (math.nan, g), "inf": (math.inf, g), "gradient": (value, g * math.nan)}[what]
        return value, g

    with pytest.warns(UserWarning, match=f"minimize: .* at step {at + 1}; the step was not applied") as caught:
        found = run(fun)
    assert caught[0].filename == __file__
    assert (found.status, found.success, found.nit, found.nfev) == (2, False, at, at + 1)
    assert found.last == 4 / 2**at and found.x == 4 / 2 ** max(at - 1, 0)
    if at:
        assert found.fun == float(found.x[0] ** 2) and found.jac == 2 * found.x
    else:
        assert math.isnan(found.fun) and found.jac is None
    calls.clear()
    with pytest.raises(FloatingPointError, match=r"minimize: the (value is (nan|inf)|gradient is not finite)"):
        run(fun, non_finite="raise")


def test_jac_is_not_called_where_there_is_no_value() -> None:
    def jac(x: Any) -> Any:
        raise AssertionError

    with pytest.warns(UserWarning, match="value is nan"):
        assert run(lambda x: math.nan, jac=jac).status == 2


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_batches_that_are_not_finite_can_be_left_out(what: str) -> None:
    def fun(x: Any, batch: float) -> Any:
        value, g = bowl(x)
        return (value * batch, g) if what == "value" else (value, g * batch)

    found = opt.minimize(
        fun, np.array([4.0]), opt.Descent(0.25), batches=[1.0, math.nan, 1.0, 1.0], non_finite="skip", maxiter=3
    )
    assert found.x == 0.5 and found.nit == 3 and found.nfev == 4 and found.history.skipped == 1
    assert math.isfinite(found.fun) and np.isfinite(found.jac).all()


def test_a_batch_that_is_left_out_ends_nothing() -> None:
    told = []
    found = opt.minimize(
        lambda x, batch: (1.0, x * batch),
        np.array([4.0]),
        opt.Descent(0.25),
        batches=[1.0, math.nan, math.nan, 1.0],
        non_finite="skip",
        gtol=1e-5,
        ftol=0.5,
        patience=2,
        callback=told.append,
    )
    assert found.nit == 1 and "ftol" in found.message and len(told) == 1 and np.isfinite(found.jac).all()
