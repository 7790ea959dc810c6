"""train_, its callbacks and history, and the schedules."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import torch
from support import everything

import optimisers as opt
from optimisers import schedules

DATA = [(np.array([1.0]), np.array([2.0])), (np.array([-1.0]), np.array([-2.0]))]


def value_and_grad(model: Any, x: Any, y: Any) -> Any:
    error = model["w"] * x - y
    return float(error @ error), {"w": 2 * x * error}


def new_model(eta: float = 0.1) -> Any:
    model = {"w": np.zeros(1)}
    return opt.setup(opt.Descent(eta), model), model


def test_training_equals_a_loop_of_updates() -> None:
    (state, model), (other_state, other) = new_model(), new_model()
    history = opt.train_(value_and_grad, state, model, DATA, epochs=3, progress=False)
    losses = []
    for _ in range(3):
        for batch in DATA:
            loss, g = value_and_grad(other, *batch)
            losses.append(loss)
            opt.update_(other_state, other, g)
    assert history.losses == losses and history.epochs == [2, 4, 6] and history.stopped is None
    assert (model["w"] == other["w"]).all()
    assert repr(history).startswith("History(6 steps, 3 epochs, last loss")


def test_a_loss_alone_means_gradients_kept_by_the_arrays() -> None:
    net = torch.nn.Linear(1, 1)

    def loss(net: Any, x: Any) -> Any:
        value = (net(x) ** 2).sum()
        value.backward()
        return value

    state = opt.setup(opt.Descent(0.1), net)
    history = opt.train_(loss, state, net, [torch.ones(4, 1)] * 20, progress=False)
    assert history.losses[-1] < 1e-3 * history.losses[0]
    assert net.weight.grad is None


def test_a_loss_alone_is_refused_where_arrays_keep_no_gradients() -> None:
    state, model = new_model()
    with pytest.raises(TypeError, match=r"returned a loss without gradients.*return \(loss, grads\)"):
        opt.train_(lambda model, x, y: value_and_grad(model, x, y)[0], state, model, DATA, progress=False)
    with pytest.raises(TypeError, match="a loss without gradients"):
        opt.train_step_(lambda model: 1.0, state, model)
    assert model["w"] == 0 and state["w"].clock == opt.setup(opt.Descent(), np.ones(1)).clock


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_is_not_applied(bad: float) -> None:
    state, model = new_model()

    def turning_bad(model: Any, x: Any, y: Any) -> Any:
        loss, g = value_and_grad(model, x, y)
        return (bad if model["w"][0] else loss), g

    with pytest.warns(UserWarning, match="at step 2; the step was not applied"):
        history = opt.train_(turning_bad, state, model, DATA, progress=False)
    assert len(history) == 1 and "at step 2" in str(history.stopped)
    before = everything(model, state)
    with pytest.raises(FloatingPointError, match="not applied"):
        opt.train_(turning_bad, state, model, DATA, progress=False, non_finite="raise")
    with pytest.raises(FloatingPointError):
        opt.train_step_(turning_bad, state, model, *DATA[0])
    assert everything(model, state) == before


def test_callbacks_see_every_step_and_can_stop() -> None:
    state, model = new_model()
    seen = []

    def third(info: opt.Step) -> bool:
        seen.append((info.step, info.epoch, info.loss, len(info.history)))
        return info.step == 3

    history = opt.train_(value_and_grad, state, model, DATA, epochs=5, callbacks=[third], progress=False)
    assert [s[:2] for s in seen] == [(1, 0), (2, 0), (3, 1)]
    assert [s[2] for s in seen] == history.losses and [s[3] for s in seen] == [1, 2, 3]
    assert history.stopped == "third at step 3" and history.epochs == [2]


def test_early_stop_waits_for_its_patience() -> None:
    losses = iter([5.0, 4.0, 4.5, 4.5, 3.0, 3.0, 3.0, 3.0, 3.0])
    state, model = new_model()
    stop = opt.EarlyStop(3)
    history = opt.train_(lambda m: (next(losses), None), state, model, [()] * 9, callbacks=[stop], progress=False)
    assert len(history) == 8
    watched = opt.EarlyStop(1, min_delta=1.0, monitor=lambda info: -info.step / 2)
    assert len(opt.train_(lambda m: (1.0, None), state, model, [()] * 9, callbacks=[watched], progress=False)) == 2
    with pytest.raises(ValueError, match="patience"):
        opt.EarlyStop(-1)


def test_adjusting_sets_hyperparameters_before_each_step() -> None:
    state, model = new_model()
    etas = []
    opt.train_(
        lambda m: (1.0, {"w": np.ones(1)}),
        state,
        model,
        [()] * 4,
        callbacks=[
            opt.Adjusting(eta=schedules.stepwise(1.0, {2: 0.25})),
            lambda info: etas.append(state["w"].rule.eta),
        ],
        progress=False,
    )
    assert etas == [1.0, 1.0, 0.25, 0.25] and model["w"] == -2.5


def test_wrong_arguments_are_refused() -> None:
    state, model = new_model()
    with pytest.raises(TypeError, match="got an iterator"):
        opt.train_(value_and_grad, state, model, iter(DATA), epochs=2)
    with pytest.raises(ValueError, match="epochs"):
        opt.train_(value_and_grad, state, model, DATA, epochs=0)
    with pytest.raises(ValueError, match="non_finite"):
        opt.train_(value_and_grad, state, model, DATA, non_finite="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one real number"):
        opt.train_step_(lambda m: ("loss", None), state, model)
    with pytest.raises(TypeError, match="tuple of length 3"):
        opt.train_step_(lambda m: (1.0, None, None), state, model)


def test_progress_bar_is_shown_if_tqdm_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    state, model = new_model()
    opt.train_(value_and_grad, state, model, DATA, epochs=2)
    assert "4/4" in capfd.readouterr().err


def test_nothing_is_shown_without_tqdm(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without_tqdm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tqdm)
    state, model = new_model()
    assert len(opt.train_(value_and_grad, state, model, DATA)) == 2
    assert capfd.readouterr().err == ""


def test_history_plots() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    ax = opt.History([2.0, 1.0, 0.5], [2, 3]).plot()
    assert ax.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5] and len(ax.lines) == 2
    assert ax.get_ylabel() == "loss"
