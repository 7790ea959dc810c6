"""scipy_method: the rules as methods of SciPy's minimize, by its contract."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import optimisers as opt

so = pytest.importorskip("scipy.optimize", reason="SciPy is not installed, whose contract this is about")

X0 = np.array([-1.2, 1.0, 0.5])


def both(x: Any, shift: float = 0.0) -> Any:
    return so.rosen(x - shift), so.rosen_der(x - shift)


def ours(options: Any = None, **given: Any) -> Any:
    method = opt.scipy_method(given.pop("rule", opt.Adam(0.02)))
    return so.minimize(given.pop("fun", both), given.pop("x0", X0), jac=True, method=method, options=options, **given)


def test_scipys_call_equals_ours() -> None:
    found = ours({"maxiter": 200})
    same = opt.minimize(both, X0, opt.Adam(0.02), maxiter=200)
    assert isinstance(found, so.OptimizeResult)
    assert (found.x == same.x).all() and (found.jac == same.jac).all() and found.fun == same.fun
    for name in ("nit", "nfev", "njev", "success", "status", "message"):
        assert found[name] == same[name]
    assert found.nit == 200 and not found.success and found.status == 1 and "nit: 200" in repr(found)


def test_jac_as_a_function_and_arguments() -> None:
    method = opt.scipy_method(opt.Adam(0.02), maxiter=300)
    a = so.minimize(both, X0, args=(0.5,), jac=True, method=method)
    b = so.minimize(
        lambda x, s: both(x, s)[0], X0, args=(0.5,), jac=lambda x, s: both(x, s)[1], method=method, options=None
    )
    assert (a.x == b.x).all() and a.nit == b.nit == 300
    assert ours({"maxiter": 20_000}, args=0.5).x == pytest.approx(1.5 * np.ones(3), abs=1e-4)


def test_a_number_is_evaluated_no_more_often_than_said() -> None:
    calls = []

    def fun(x: Any) -> Any:
        calls.append(x)
        return both(x)

    assert ours({"maxiter": 30}, fun=fun).nfev == len(calls) == 31


def test_float32_stays_and_integers_become_floats() -> None:
    assert ours({"maxiter": 5}, x0=X0.astype(np.float32)).x.dtype == np.float32
    assert ours({"maxiter": 5}, x0=np.array([1, 2])).x.dtype == np.float64
    assert ours({"maxiter": 5}, x0=[1, 2]).x.dtype == np.float64
    assert ours({"maxiter": 5}, x0=3.0, fun=lambda x: (x[0] ** 2, 2 * x)).x.shape == (1,)


@pytest.mark.parametrize("form", ["pairs", "new", "infinite"])
def test_bounds_as_scipy_has_them(form: str) -> None:
    bounds = {
        "pairs": [(None, 0.5), (None, None), (0, None)],
        "new": so.Bounds([-np.inf, -np.inf, 0], [0.5, np.inf, np.inf], keep_feasible=True),
        "infinite": [(-np.inf, 0.5), (-np.inf, np.inf), (0, np.inf)],
    }[form]
    found = ours({"maxiter": 20_000}, bounds=bounds)
    best = so.minimize(both, X0, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-8})
    assert found.success and np.abs(found.x - best.x).max() < 1e-4 and found.fun == pytest.approx(best.fun, rel=1e-6)


def test_tol_is_gtol_where_that_is_not_given() -> None:
    assert ours(tol=0.5).nit < ours({"maxiter": 20_000}).nit
    assert ours(tol=0.5, options={"gtol": 1e9}).nit == 0
    found = so.minimize(both, X0, jac=True, method=opt.scipy_method(opt.Adam(0.02), maxiter=10**5), tol=1e-3)
    assert found.success and np.abs(found.jac).max() <= 1e-3


def test_options_of_the_call_win() -> None:
    method = opt.scipy_method(opt.Adam(0.02), maxiter=7, patience=50)
    assert so.minimize(both, X0, jac=True, method=method).nit == 7
    assert so.minimize(both, X0, jac=True, method=method, options={"maxiter": 9}).nit == 9
    assert ours({"schedule": opt.schedules.linear(0.02, 0.0, 10), "maxiter": 10}).state.rule.eta == 0


def test_callbacks_as_scipy_has_them() -> None:
    xs: list[Any] = []
    results: list[Any] = []

    def new(intermediate_result: Any) -> None:
        results.append(intermediate_result)

    ours({"maxiter": 4}, callback=lambda xk: xs.append(xk))
    ours({"maxiter": 4}, callback=new)
    assert len(xs) == len(results) == 4
    assert all((r.x == x).all() and r.fun == so.rosen(x) for x, r in zip(xs, results, strict=True))

    def stop(xk: Any) -> None:
        raise StopIteration

    found = ours(callback=stop)
    assert found.nit == 1 and found.status == 99 and not found.success and "StopIteration" in found.message
    theirs = so.minimize(both, X0, jac=True, method="L-BFGS-B", callback=stop)
    assert (theirs.status, theirs.success) == (found.status, found.success)


def test_basinhopping_finds_the_lowest_of_many_minima() -> None:
    def bumpy(x: Any) -> Any:
        return float((0.1 * x**2 + np.cos(3 * x)).sum()), 0.2 * x - 3 * np.sin(3 * x)

    kwargs = {
        "method": opt.scipy_method(opt.Adam(0.05)),
        "jac": True,
        "options": {"maxiter": 400, "gtol": 1e-4},
        "bounds": [(-9, 9)] * 2,
    }
    found = so.basinhopping(bumpy, [6.0, -5.0], minimizer_kwargs=kwargs, niter=60, stepsize=2.5, seed=3)
    theirs = so.basinhopping(
        bumpy, [6.0, -5.0], minimizer_kwargs={**kwargs, "method": "L-BFGS-B", "options": {}}, niter=60, stepsize=2.5,
        seed=3,
    )  # fmt: skip
    assert found.fun == pytest.approx(theirs.fun, abs=1e-6) and found.fun < -1.7
    assert found.lowest_optimization_result.success


def test_going_on_from_a_result_of_scipys() -> None:
    part = pickle.loads(pickle.dumps(ours({"maxiter": 10})))
    whole = ours({"maxiter": 25})
    assert (ours({"maxiter": 15, "state": part}).last == whole.last).all()


def test_without_a_gradient_the_remedy_is_named() -> None:
    method = opt.scipy_method(opt.Adam())
    for jac in (None, False, "2-point"):
        with pytest.raises(ValueError, match=r"jac=True.*approx_fprime"):
            so.minimize(so.rosen, X0, jac=jac, method=method)
    found = so.minimize(so.rosen, X0, jac=lambda x: so.approx_fprime(x, so.rosen), method=method)
    assert found.fun < so.rosen(X0)


def test_what_rules_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="constraints"):
        ours(constraints=[{"type": "eq", "fun": lambda x: x[0]}])
    with pytest.raises(ValueError, match="constraints"):
        ours(constraints=so.LinearConstraint(np.eye(3), 0, 1))
    assert ours({"maxiter": 1}, constraints=[]).nit == 1
    with pytest.warns(RuntimeWarning, match="second derivatives"):
        ours({"maxiter": 1}, hess=so.rosen_hess)
    with pytest.warns(so.OptimizeWarning, match="unknown options: maxfun") as caught:
        ours({"maxiter": 1, "maxfun": 3})
    assert "minimize" in caught[0].filename
    with pytest.raises(TypeError, match=r"no option 'lr'"):
        opt.scipy_method(opt.Adam(), lr=0.1)
    with pytest.raises(TypeError, match=r"Adam\(\)"):
        opt.scipy_method(opt.Adam)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lower <= upper"):
        ours(bounds=[(1, 0)] * 3)


def test_what_is_not_finite_is_no_success() -> None:
    with pytest.warns(UserWarning, match="value is nan"):
        found = ours(fun=lambda x: (np.nan, x))
    assert not found.success and found.status == 2 and (found.x == X0).all()


def test_ctrl_c_leaves_scipy() -> None:
    def fun(x: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ours(fun=fun)


def test_disp_prints_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    ours({"maxiter": 3, "disp": True})
    assert "maxiter is reached" in capsys.readouterr().out
    ours({"maxiter": 3})
    assert capsys.readouterr().out == ""


def test_methods_print_and_pickle() -> None:
    method = opt.scipy_method(opt.Descent(0.001), maxiter=7)
    assert repr(method) == "scipy_method(Descent(eta=0.001), maxiter=7)"
    again = pickle.loads(pickle.dumps(method))
    assert repr(again) == repr(method) and so.minimize(both, X0, jac=True, method=again).nit == 7
