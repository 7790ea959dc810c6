"""minimize: bounds in SciPy's forms, and the projection onto them."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import optimisers as opt

A = np.array([3.0, -3.0, 0.25])


def towards(x: Any) -> Any:
    assert np.isfinite(x).all()
    return float(((x - A) ** 2).sum()), 2 * (x - A)


def bounded(bounds: Any, x0: Any = None, fun: Any = towards, **options: Any) -> Any:
    x0 = np.zeros(3) if x0 is None else x0
    return opt.minimize(fun, x0, opt.Descent(0.1), bounds=bounds, **options)


@pytest.mark.parametrize(
    ("bounds", "x"),
    [
        ((-1, 2), [2, -1, 0.25]),
        ([-1, 2], [2, -1, 0.25]),
        ((None, 2), [2, -3, 0.25]),
        ((-1, math.inf), [3, -1, 0.25]),
        ([(0, 1), (None, None), (None, 0)], [1, -3, 0]),
        (((0, 1), (-math.inf, math.inf), (-1, 0)), [1, -3, 0]),
        (np.array([[0, 1], [-math.inf, math.inf], [-1, 0]]), [1, -3, 0]),
        (SimpleNamespace(lb=-1, ub=[2, np.inf, np.inf]), [2, -1, 0.25]),
        (SimpleNamespace(lb=-math.inf, ub=math.inf), [3, -3, 0.25]),
        ([(1, 1), (2, 2), (0, 1)], [1, 2, 0.25]),
        (zip([0, -9, -1], [1, 9, 0], strict=True), [1, -3, 0]),
    ],
)
def test_every_form_of_bounds(bounds: Any, x: Any) -> None:
    found = bounded(bounds)
    assert found.success and np.abs(found.x - x).max() < 1e-5


def test_two_pairs_are_one_an_element() -> None:
    found = opt.minimize(
        lambda x: (x.sum(), np.ones(2)), np.zeros(2), opt.Descent(), bounds=((-3, 1), (-5, 2)), gtol=0, maxiter=60
    )
    assert found.x.tolist() == [-3, -5]


def test_no_function_sees_an_x_outside() -> None:
    seen = []

    def fun(x: Any) -> Any:
        seen.append(x)
        return towards(x)

    found = bounded([(0, 1), (-2, -1), (0.5, 0.75)], np.array([9.0, 9.0, 9.0]), fun, callback=seen.append)
    assert seen[0].tolist() == [1, -1, 0.75]
    low, high = np.array([0, -2, 0.5]), np.array([1, -1, 0.75])
    assert all(((low <= x) & (x <= high)).all() for x in [*seen, found.x, found.last])


def test_gtol_takes_no_notice_of_what_the_bounds_hold() -> None:
    found = bounded((-1, 2), np.array([2.0, -1.0, 0.25]))
    assert found.nit == 0 and found.success and np.abs(found.jac).max() == 4


def test_float32_bounds_are_rounded_inwards() -> None:
    x0 = np.zeros(2, np.float32)
    for low, high in ((-0.1, 0.3), (-0.3, 0.1), (-0.7, 0.9)):
        for sign in (1, -1):
            found = bounded((low, high), x0, lambda x, s=sign: (float(-s * x.sum()), np.full(2, -s, np.float32)))
            assert found.x.dtype == np.float32 and (low <= found.x.astype(float)).all()
            assert (found.x.astype(float) <= high).all()
            assert np.abs(found.x - (high if sign > 0 else low)).max() < 1e-7
    assert bounded((0.1, 0.1), x0, lambda x: (0.0, 0 * x)).x == pytest.approx(np.float32(0.1), abs=0)


def test_bounds_by_the_leaves_of_a_tree() -> None:
    x0 = {"w": np.zeros(2), "b": [np.zeros(1), np.zeros((1, 2))]}

    def fun(x: Any) -> Any:
        return -sum(float(a.sum()) for a in (x["w"], *x["b"])), {"w": -np.ones(2), "b": [-np.ones(1), -np.ones((1, 2))]}

    found = bounded({"w": [(0, 1), (0, 2)], "b": [None, (None, 3)]}, x0, fun, maxiter=50)
    assert (
        found.x["w"].tolist() == [1, 2] and found.x["b"][1].tolist() == [[3, 3]] and found.x["b"][0] == pytest.approx(5)
    )
    found = bounded((0, 1), x0, fun, gtol=0, maxiter=20)
    assert all((a == 1).all() for a in (found.x["w"], *found.x["b"]))
    found = bounded({"w": (0, 1)}, x0, fun, maxiter=50)
    assert (found.x["w"] == 1).all() and found.x["b"][0] == pytest.approx(5)
    assert (x0["w"] == 0).all()


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1, 0), r"bounds of x must have lower <= upper, got 1.0 and 0.0"),
        ([(0, 1), (0, 1), (2, 1)], r"x at 2 must have lower <= upper, got 2.0 and 1.0"),
        (SimpleNamespace(lb=[0, 0, 0], ub=[1, -1, 1]), "x at 1 must have lower"),
        ((math.nan, 1), "lower <= upper, got nan"),
        ((math.inf, math.inf), "lower <= upper, got inf"),
        ((None, -math.inf), "lower <= upper"),
        ([(0, 1)] * 2, r"shape \(3,\): expected one pair .* got 2 of them"),
        ([(0, 1)] * 4, "got 4 of them"),
        ([(0, 1), (0, 1), (0,)], "expected one pair"),
        ((np.zeros(3), np.ones(3)), "expected one pair"),
        (np.zeros((2, 3)), r"got an array of shape \(2, 3\)"),
        (5.0, "got float"),
        ("ab", "got str"),
        (SimpleNamespace(lb=np.zeros(2), ub=np.ones(2)), r"fit its shape \(3,\)"),
        (("a", "b"), "must be numbers"),
    ],
)
def test_wrong_bounds_are_refused_before_anything(bounds: Any, message: str) -> None:
    def fun(x: Any) -> Any:
        raise AssertionError("was called")

    x0 = np.zeros(3)
    with pytest.raises(ValueError, match=message):
        bounded(bounds, x0, fun)
    assert (x0 == 0).all()


def test_complex_numbers_have_no_bounds() -> None:
    with pytest.raises(TypeError, match="complex"):
        bounded((0, 1), np.zeros(2, complex))


def test_bounds_of_a_tree_name_the_leaf() -> None:
    x0 = {"a": {"w": np.zeros(2)}}
    with pytest.raises(ValueError, match=r'"a\.w" at 1 must have lower'):
        bounded({"a": {"w": [(0, 1), (1, 0)]}}, x0)
    with pytest.raises(ValueError, match="'c', which the model lacks"):
        bounded({"c": (0, 1)}, x0)
