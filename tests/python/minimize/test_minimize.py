"""minimize: equal to a loop of updates, the best is returned, nothing that is given is written."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest

import optimisers as opt
from optimisers import schedules

X0 = np.array([-1.2, 1.0, 0.5])


def rosen(x: Any) -> Any:
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[:-1] = -400 * x[:-1] * a - 2 * b
    g[1:] += 200 * a
    return (100 * a**2 + b**2).sum(), g


def bowl(x: Any, a: float = 0.0) -> Any:
    return float(((x - a) ** 2).sum()), 2 * (x - a)


def test_minimize_equals_a_loop_of_updates() -> None:
    x, values = X0.copy(), []
    state = opt.setup(opt.Adam(0.01), x)
    for _ in range(50):
        value, g = rosen(x)
        values.append(value)
        opt.update_(state, x, g)
    found = opt.minimize(rosen, X0, opt.Adam(0.01), maxiter=50)
    assert (found.last == x).all() and found.history.losses == values
    assert (found.state.state.m == state.state.m).all() and found.state.clock == state.clock
    assert (found.nit, found.nfev, found.njev, found.status, found.success) == (50, 51, 51, 1, False)
    assert "maxiter" in found.message and X0.tolist() == [-1.2, 1.0, 0.5]


def test_a_minimum_is_found() -> None:
    found = opt.minimize(rosen, X0, opt.Adam(0.02), maxiter=10_000)
    assert found.success and found.status == 0 and "gtol" in found.message
    assert np.abs(found.x - 1).max() < 1e-4 and np.abs(found.jac).max() <= 1e-5
    assert found.fun == rosen(found.x)[0] and (found.jac == rosen(found.x)[1]).all()


def test_the_best_is_returned_and_not_the_last() -> None:
    seen: list[Any] = []
    found = opt.minimize(bowl, np.array([1.0]), opt.Descent(1.1), maxiter=5, callback=lambda x: seen.append(x))
    values = [1.0] + [float(x[0] ** 2) for x in seen]  # each step leads further away
    assert values == sorted(values) and len(values) == 6
    assert found.fun == 1.0 and found.x == [1.0] and found.jac == [2.0]
    assert found.last == seen[-1] and found.nit == 5


def test_no_step_evaluates_once() -> None:
    found = opt.minimize(bowl, X0, opt.Descent(), maxiter=0)
    assert (found.nit, found.nfev, found.status) == (0, 1, 1)
    assert (found.x == X0).all() and found.fun == bowl(X0)[0] and found.x is not X0


@pytest.mark.parametrize("jac", [True, lambda x, a: bowl(x, a)[1]])
def test_arguments_go_to_both_functions(jac: Any) -> None:
    fun = bowl if jac is True else lambda x, a: bowl(x, a)[0]
    for args in ((2.0,), 2.0):
        found = opt.minimize(fun, np.zeros(2), opt.Descent(0.25), jac=jac, args=args)
        assert found.success and np.abs(found.x - 2).max() < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_the_dtype_stays(dtype: str) -> None:
    x0 = np.array([1.0, -2.0], dtype)
    given = []

    def fun(x: Any) -> Any:
        given.append(x.dtype)
        wide = np.complex128 if dtype.startswith("complex") else np.float64
        return (abs(x) ** 2).sum(), (2 * x).astype(wide)

    found = opt.minimize(fun, x0, opt.Adam(0.05), maxiter=5, xtol=1e-12)
    assert {found.x.dtype, found.jac.dtype, found.last.dtype, *given} == {np.dtype(dtype)}
    assert isinstance(found.fun, float) and found.fun < 5


def test_what_fun_does_with_x_is_not_seen() -> None:
    kept: list[Any] = []

    def spoiling(x: Any) -> Any:
        result = rosen(x)
        kept.append(x)
        x[...] = np.nan
        return result

    found, plain = (opt.minimize(f, X0, opt.Adam(0.01), maxiter=20) for f in (spoiling, rosen))
    assert (found.x == plain.x).all() and (found.last == plain.last).all() and found.fun == plain.fun
    parted = opt.minimize(
        lambda x: spoiling(x)[0], X0, opt.Adam(0.01), jac=lambda x: spoiling(x)[1], maxiter=20, gtol=0
    )
    assert (parted.x == plain.x).all() and (parted.last == plain.last).all()
    assert len({id(x) for x in kept}) == len(kept)


def test_one_buffer_for_all_gradients_is_enough() -> None:
    buffer = np.empty(3)

    def fun(x: Any) -> Any:
        value, buffer[...] = rosen(x)
        return value, buffer

    found, plain = (opt.minimize(f, X0, opt.Descent(0.004), maxiter=20) for f in (fun, rosen))
    assert (found.jac == plain.jac).all() and (found.jac == rosen(found.x)[1]).all()


def test_schedules_set_hyperparameters() -> None:
    etas = schedules.exponential(0.1, 0.5)
    for schedule in (etas, lambda step: 0.1 * 0.5**step, opt.Adjusting(eta=etas)):
        found = opt.minimize(lambda x: (0.0, np.ones(1)), np.zeros(1), opt.Descent(), schedule=schedule, maxiter=3)
        assert found.last == -(0.1 + 0.05 + 0.025)
    plateau = schedules.reduce_on_plateau(0.5, patience=0)
    found = opt.minimize(lambda x: (0.0, np.ones(1)), np.zeros(1), opt.Descent(1.0), schedule=plateau, maxiter=4)
    assert found.last == -(1 + 1 + 0.5 + 0.25)


# ------------------------------------------------------------ functions that are noisy


def noisy(x: Any, batch: Any) -> Any:
    return float(((x - batch) ** 2).sum()), 2 * (x - batch)


def test_each_batch_is_one_step_and_one_argument() -> None:
    batches = [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]]  # the last has the largest value
    got = []

    def fun(x: Any, batch: Any, a: float) -> Any:
        got.append((batch, a))
        return noisy(x, np.array(batch))

    found = opt.minimize(fun, np.zeros(2), opt.Descent(0.1), batches=batches, args=(7.0,))
    assert got == [(batch, 7.0) for batch in batches]
    assert (found.nit, found.nfev, found.status) == (3, 3, 1) and "batches" in found.message
    x = np.zeros(2)
    for batch in batches:
        before, x = x, x - 0.1 * noisy(x, np.array(batch))[1]
    assert (found.x == x).all() and found.fun == noisy(before, np.array(batches[-1]))[0]
    assert (found.jac == noisy(before, np.array(batches[-1]))[1]).all()


def test_no_batch_is_read_that_is_not_taken() -> None:
    batches = iter(np.arange(10.0))
    found = opt.minimize(noisy, np.zeros(1), opt.Descent(0.1), batches=batches, maxiter=4)
    assert found.nit == 4 and next(batches) == 4.0 and "maxiter" in found.message


def test_gradients_of_single_batches_end_nothing() -> None:
    found = opt.minimize(noisy, np.zeros(1), opt.Descent(0.1), batches=[0.0, 1.0, 1.0])
    assert found.nit == 3
    assert opt.minimize(noisy, np.zeros(1), opt.Descent(0.1), batches=[0.0, 1.0], gtol=1e-5).nit == 0


# ------------------------------------------------------------ going on


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": schedules.cosine(0.05, 0.0, 60)},
        {"bounds": [(-1, 0.8), (None, None), (0, 2)]},
        {"patience": 7},
        {"ftol": 1e-4},
        {"xtol": 1e-3},
    ],
)
def test_a_call_in_parts_has_the_bits_of_one(options: Any, pickled: bool) -> None:
    rule = opt.OptimiserChain(opt.ClipNorm(3.0), opt.Momentum(0.02, 0.95))
    whole = opt.minimize(rosen, X0, rule, maxiter=60, **options)
    part = opt.minimize(rosen, X0, rule, maxiter=20, **options)
    for steps in (1, 15, 24):
        if part.status != 0:
            part = opt.minimize(
                rosen, X0, rule, state=pickle.loads(pickle.dumps(part)) if pickled else part, maxiter=steps, **options
            )
    assert (part.x == whole.x).all() and (part.last == whole.last).all() and (part.jac == whole.jac).all()
    assert (part.fun, part.nit, part.status) == (whole.fun, whole.nit, whole.status)
    assert part.history.losses == whole.history.losses and part.state.clock == whole.state.clock


def test_going_on_changes_nothing_of_the_earlier_result() -> None:
    first = opt.minimize(rosen, X0, opt.Adam(0.01), maxiter=5)
    before = pickle.dumps(first)
    a, b = (opt.minimize(rosen, X0, None, state=first, maxiter=5) for _ in range(2))
    assert pickle.dumps(first) == before and (a.last == b.last).all() and a.nit == 10 and a.nfev == 12


def test_a_call_in_parts_with_batches() -> None:
    batches = np.random.default_rng(0).normal(size=(30, 3))
    whole = opt.minimize(noisy, X0, opt.Adam(0.1), batches=batches, patience=6)
    part = opt.minimize(noisy, X0, opt.Adam(0.1), batches=batches[:4], patience=6)
    part = opt.minimize(noisy, X0, opt.Adam(0.1), batches=batches[4:], patience=6, state=part)
    assert whole.status == 0 and "patience" in whole.message
    assert (part.x == whole.x).all() and part.nit == whole.nit and part.message == whole.message


def test_a_state_of_ones_own_brings_what_is_frozen() -> None:
    x0 = {"w": np.ones(2), "b": np.ones(1)}
    state = opt.freeze_(opt.setup(opt.Descent(0.1), x0)["b"])
    whole = opt.setup(opt.Descent(0.1), x0)
    opt.freeze_(whole["b"])
    found = opt.minimize(
        lambda x: (float((x["w"] ** 2).sum()), {"w": 2 * x["w"], "b": np.ones(1)}), x0, None, state=whole, maxiter=3
    )
    assert found.x["b"] == 1 and (found.x["w"] < 1).all() and (x0["w"] == 1).all()
    with pytest.raises(ValueError, match="part"):
        opt.minimize(bowl, np.ones(1), None, state=state)


# ------------------------------------------------------------ interrupts


@pytest.mark.parametrize("where", ["fun", "callback"])
def test_ctrl_c_returns_the_best_so_far(where: str) -> None:
    calls = iter(range(1, 100))

    def interrupt(x: Any) -> None:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    def fun(x: Any) -> Any:
        if where == "fun":
            interrupt(x)
        return bowl(x)

    options: Any = {"callback": interrupt} if where == "callback" else {}
    found = opt.minimize(fun, X0, opt.Descent(0.1), maxiter=50, **options)
    assert found.status == 3 and not found.success and "interrupted" in found.message
    assert found.nit == (4 if where == "fun" else 5) and found.fun == bowl(found.x)[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    went_on = opt.minimize(bowl, X0, None, state=found, maxiter=50 - found.nit)
    assert (went_on.x == opt.minimize(bowl, X0, opt.Descent(0.1), maxiter=50).x).all()


# ------------------------------------------------------------ the result


def test_the_result_is_a_dict_with_attributes() -> None:
    found = opt.minimize(bowl, X0, opt.Descent(), maxiter=3)
    assert found["fun"] == found.fun and set(found) == {
        "message", "success", "status", "fun", "x", "jac", "nit", "nfev", "njev", "history", "state", "last",
    }  # fmt: skip
    found.note = "mine"
    assert found["note"] == "mine" and "nit: 3" in repr(found) and "fun" in dir(found)
    del found.note
    with pytest.raises(AttributeError, match="hess_inv"):
        _ = found.hess_inv
    again = pickle.loads(pickle.dumps(found))
    assert again.fun == found.fun and (again.x == found.x).all() and type(again) is type(found)
