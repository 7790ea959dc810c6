"""minimize: what it refuses, with the remedy, before anything or with nothing changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import everything

import optimisers as opt


def bowl(x: Any) -> Any:
    return float((x**2).sum()), 2 * x


def never(x: Any) -> Any:
    raise AssertionError("was called")


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        (np.array([1, 2]), r"array of int64.*x0\.astype\(float\)"),
        (np.array([True]), r"array of bool.*x0\.astype\(float\)"),
        ([1.0, 2.0], r"a list of numbers; pass numpy\.array\(x0, float\)"),
        ((1, 2), r"a tuple of numbers; pass numpy\.array\(x0, float\)"),
        (3.0, r"x0 is a float; pass an array, numpy\.array\(\[x0\], float\)"),
        (3, r"x0 is a int; pass an array"),
        (np.zeros(2, np.longdouble), "minimize: .*convert it with astype"),
        (np.array(["a"]), "minimize: expected a model"),
        (np.broadcast_to(np.ones(1), 4), "overlaps itself"),
        ("abc", "minimize"),
        (None, "minimize"),
        ({"w": 1.0}, "minimize: .*numbers are not trained"),
    ],
)
def test_x0_that_no_step_can_move(x0: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        opt.minimize(never, x0, opt.Adam())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maxiter": -1}, "maxiter must be >= 0, got -1"),
        ({"maxiter": 1e3}, r"maxiter must be an integer, got 1000\.0"),
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"gtol": -1e-5}, "gtol must be >= 0"),
        ({"ftol": float("nan")}, "ftol must be >= 0"),
        ({"xtol": "small"}, "xtol must be a number, got 'small'"),
        ({"callback": 3}, "callback must be a function, got 3"),
        ({"schedule": 0.1}, r"schedule must be a function .* a constant is the rule's own eta"),
        (
            {"schedule": opt.Adjusting(rate=lambda step: 0.1)},
            r'no rule has a field "rate"; fields are beta, epsilon, eta',
        ),
        ({"jac": None}, "jac must be a function"),
        ({"jac": False}, "jac must be a function"),
        ({"jac": "2-point"}, "approx_fprime"),
        ({"non_finite": "ignore"}, '"stop" or "raise"'),
        ({"non_finite": "skip"}, "goes with batches"),
        ({"batches": 3}, "batches must give one batch after the other, got int"),
        ({"batches": []}, "no batches"),
        ({"state": 3}, "state must be the result of an earlier call"),
        ({"state": {"x": 1}}, "state must be the result of an earlier call"),
    ],
)
def test_arguments_out_of_range(options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        opt.minimize(never, np.ones(2), opt.Adam(), **options)


def test_fun_and_rule_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="fun must be a function of x, got int"):
        opt.minimize(3, np.ones(2), opt.Adam())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Adam\(\)"):
        opt.minimize(never, np.ones(2), opt.Adam)
    with pytest.raises(TypeError, match="rule"):
        opt.minimize(never, np.ones(2), None)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (1.0, r"fun must return \(value, gradient\), got a float; with jac="),
        (None, r"got a NoneType"),
        ((1.0, np.zeros(2), 3), "got 3 things"),
        ((None, np.zeros(2)), "must be one real number, got a NoneType"),
        (("1", np.zeros(2)), "one real number, got a str"),
        ((np.zeros(2), np.zeros(2)), r"one real number, got a ndarray of shape \(2,\)"),
        ((1j, np.zeros(2)), "one real number, got a complex"),
        ((1.0, np.zeros(3)), r"gradient of x has shape \(3,\), the array \(2,\)"),
        ((1.0, np.zeros((2, 1))), r"has shape \(2, 1\)"),
        ((1.0, 0.0), r"has shape \(\)"),
        ((1.0, np.zeros(2, complex)), r"complex128, the array float64; pass g\.real"),
        ((1.0, None), "the gradient is None"),
        ((1.0, "ab"), "array of numbers, got a str"),
        ((1.0, np.array([1, None])), "gradient of x is an array of object"),
        ((1.0, {"x": np.zeros(2)}), "gradient of x is a dict"),
    ],
)
def test_what_fun_may_not_return(result: Any, message: str) -> None:
    x0 = np.ones(2)
    state = opt.setup(opt.Adam(), x0)
    before = everything(x0, state)
    with pytest.raises((TypeError, ValueError), match=message):
        opt.minimize(lambda x: result, x0, None, state=state)
    assert everything(x0, state) == before


@pytest.mark.parametrize("gradient", [[2.0, 4.0], [2, 4], (2, 4), np.array([2, 4]), np.array([2, 4], np.float32)])
@pytest.mark.parametrize("value", [5, np.float32(5), np.array(5.0), np.array([5.0]), True * 5])
def test_what_scipy_takes_is_taken(gradient: Any, value: Any) -> None:
    found = opt.minimize(lambda x: (value, gradient), np.array([1.0, 2.0]), opt.Descent(0.25), maxiter=1)
    assert found.last.tolist() == [0.5, 1.0] and found.fun == 5.0 and found.jac.tolist() == [2.0, 4.0]
    found = opt.minimize(lambda x: (value, 2), np.array([1.0]), opt.Descent(0.25), maxiter=1)
    assert found.last.tolist() == [0.5]


def test_what_fun_raises_is_passed_on_with_nothing_changed() -> None:
    class FailedError(Exception):
        pass

    calls = []

    def fun(x: Any) -> Any:
        calls.append(x)
        if len(calls) == 3:
            raise FailedError
        return bowl(x)

    x0 = np.ones(2)
    state = opt.setup(opt.Adam(), x0)
    before = everything(x0, state)
    with pytest.raises(FailedError):
        opt.minimize(fun, x0, None, state=state)
    calls.clear()
    with pytest.raises(FailedError):
        opt.minimize(bowl, x0, None, state=state, callback=lambda x: fun(x) and None)
    assert everything(x0, state) == before


def test_a_result_of_another_x_or_rule() -> None:
    found = opt.minimize(bowl, np.ones(2), opt.Adam(), maxiter=1)
    with pytest.raises(ValueError, match="x0 has not the shapes"):
        opt.minimize(bowl, np.ones(3), opt.Adam(), state=found)
    with pytest.raises(ValueError, match="x0 has not the shapes and dtypes"):
        opt.minimize(bowl, np.ones(2, np.float32), opt.Adam(), state=found)
    with pytest.raises(ValueError, match=r"set up with Adam.* the rule is Adam\(eta=0\.5.*adjust_"):
        opt.minimize(bowl, np.ones(2), opt.Adam(0.5), state=found)
    opt.adjust_(found.state, 0.5)
    assert opt.minimize(bowl, np.ones(2), None, state=found, maxiter=1).nit == 2


def test_read_only_strided_and_empty_x0() -> None:
    x0 = np.ones(4)
    x0.flags.writeable = False
    plain = opt.minimize(bowl, np.ones(4), opt.Adam(0.1), maxiter=9).x
    for x in (x0, np.ones(8)[::2], np.ones((4, 2))[:, 0]):
        assert (opt.minimize(bowl, x, opt.Adam(0.1), maxiter=9).x == plain).all()
    assert opt.minimize(bowl, np.ones(0), opt.Adam()).success
    assert opt.minimize(bowl, np.array(1.0), opt.Adam(0.1), maxiter=9).x == plain[0]
    assert opt.minimize(bowl, np.ones((2, 2), order="F"), opt.Adam(0.1), maxiter=9).x.shape == (2, 2)
