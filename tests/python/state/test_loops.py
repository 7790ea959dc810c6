"""train_: where batches come from, what ends it, going on later, interrupts, arrays that cannot be written."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import signal
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import bits, everything
from torch.utils.data import DataLoader, TensorDataset

import optimisers as opt
from optimisers import schedules

DATA = [(np.array([1.0]), np.array([2.0])), (np.array([-1.0]), np.array([-2.5])), (np.array([0.5]), np.array([1.0]))]


def value_and_grad(model: Any, x: Any, y: Any) -> Any:
    error = model["w"] * x - y
    return float(error @ error), {"w": 2 * x * error}


def new_model(rule: opt.Rule | None = None) -> Any:
    model = {"w": np.zeros(1)}
    return opt.setup(rule or opt.Momentum(0.1), model), model


def train(data: Any, f: Any = value_and_grad, made: Any = None, **options: Any) -> Any:
    state, model = made or new_model()
    return opt.train_(f, state, model, data, progress=False, **options), state, model


def ones(model: Any, *batch: Any) -> Any:
    return 1.0, {"w": np.ones(1)}


# ------------------------------------------------------------ batches


def test_a_batch_may_be_a_list() -> None:
    history, _, model = train([list(batch) for batch in DATA])
    other, _, same = train(DATA)
    assert history.losses == other.losses and bits(model) == bits(same)


def test_a_data_loader_of_torch_is_data() -> None:
    net = torch.nn.Linear(3, 1)

    def loss(net: Any, x: Any, y: Any) -> Any:
        value = torch.nn.functional.mse_loss(net(x), y)
        value.backward()
        return value

    loader = DataLoader(TensorDataset(torch.randn(8, 3), torch.randn(8, 1)), batch_size=4)
    history = opt.train_(loss, opt.setup(opt.Adam(), net), net, loader, epochs=2, progress=False)
    assert len(history) == 4 and history.epochs == [2, 4]


STEPWISE = {
    "list": lambda: DATA,
    "cycle": lambda: itertools.cycle(DATA),
    "long generator": lambda: (DATA[i % 3] for i in range(99)),
    "function": lambda: lambda step: DATA[step % 3],
    "function without argument": lambda: (lambda it: lambda: next(it))(itertools.cycle(DATA)),
    "object": lambda: type("Data", (), {"__iter__": lambda self: iter(DATA)})(),
}


@pytest.mark.parametrize("kind", STEPWISE)
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps_say_how_many_of_any_data(kind: str, steps: int) -> None:
    history, _, model = train(STEPWISE[kind](), steps=steps)
    other, _, same = train([DATA[i % 3] for i in range(steps)])
    assert history.losses == other.losses and len(history) == steps and bits(model) == bits(same)
    if kind in ("list", "object"):
        whole = steps if kind == "list" or steps % 3 else steps - 1
        assert history.epochs == list(range(3, whole + 1, 3))


def test_no_batch_is_read_that_is_not_trained_with() -> None:
    read = []
    data = (read.append(i) or DATA[i] for i in range(3))
    train(data, steps=2)
    assert read == [0, 1] and next(data) == DATA[2]


def test_data_without_a_batch_is_an_error_that_says_so() -> None:
    generator = (batch for batch in DATA)
    assert len(train(generator)[0]) == 3
    for used_up in (generator, iter([])):
        with pytest.raises(ValueError, match="no batch: a generator can be read only once"):
            train(used_up)
    with pytest.raises(ValueError, match="no batch: it is empty"):
        train([])
    once = iter(DATA)
    again = type("Once", (), {"__iter__": lambda self: once})()
    with pytest.raises(ValueError, match=r"left in epoch 2, after 3 steps.*only once"):
        train(again, epochs=2)
    history = opt.History()
    with pytest.raises(ValueError, match="left after 3 of 5 steps, which were applied"):
        train(iter(DATA), steps=5, history=history)
    assert len(history) == 3


@pytest.mark.parametrize(
    "data, options, error",
    [
        (DATA, {"steps": 0}, ValueError),
        (DATA, {"steps": 2.5}, TypeError),
        (DATA, {"steps": 2, "epochs": 2}, TypeError),
        (lambda step: DATA[0], {}, TypeError),
        (lambda step: DATA[0], {"epochs": 2}, TypeError),
        (3, {}, TypeError),
        (DATA, {"start": -1}, ValueError),
        (DATA, {"history": [1.0]}, TypeError),
        (DATA, {"callbacks": 3}, TypeError),
        (DATA, {"callbacks": ["stop"]}, TypeError),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_a_step(data: Any, options: Any, error: Any) -> None:
    state, model = new_model()
    before = everything(model, state)
    with pytest.raises(error, match="train_"):
        opt.train_(value_and_grad, state, model, data, progress=False, **options)
    assert everything(model, state) == before


# ------------------------------------------------------------ callbacks


@pytest.mark.parametrize(
    "answer", [None, False, 0, 1, 0.5, "text", [1], {"loss": 1}, np.ones(3), np.float64(1)], ids=str
)
def test_only_true_stops(answer: Any) -> None:
    history, *_ = train(DATA, callbacks=lambda info: answer)
    assert len(history) == 3 and history.stopped is None


@pytest.mark.parametrize("answer", [True, np.True_])
def test_true_stops_and_one_callback_needs_no_list(answer: Any) -> None:
    for callbacks in (lambda info: answer, [lambda info: None, lambda info: answer]):
        history, *_ = train(DATA, callbacks=callbacks)
        assert len(history) == 1 and "at step 1" in history.stopped


# ------------------------------------------------------------ not finite


def turning_bad(what: str, at: int) -> Any:
    calls = itertools.count()

    def f(model: Any, x: Any, y: Any) -> Any:
        loss, g = value_and_grad(model, x, y)
        if next(calls) == at:
            loss, g = (math.nan, g) if what == "loss" else (loss, {"w": np.array([np.inf])})
        return loss, g

    return f


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("rule", [opt.Momentum(0.1), opt.OptimiserChain(opt.ClipNorm(1.0), opt.Adam(0.1))], ids=str)
def test_what_is_not_finite_is_not_applied(what: str, rule: opt.Rule) -> None:
    other, other_state, same = train(DATA[:1], made=new_model(rule))
    with pytest.warns(UserWarning, match="at step 2; the step was not applied, training ends") as caught:
        history, state, model = train(DATA, turning_bad(what, 1), new_model(rule))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert history.losses == other.losses and "at step 2" in history.stopped and len(history.stopped) < 120
    assert everything(model, state) == everything(same, other_state)
    state, model = new_model(rule)
    with pytest.raises(FloatingPointError):
        train(DATA, turning_bad(what, 1), (state, model), non_finite="raise")
    assert everything(model, state) == everything(same, other_state)
    with pytest.warns(UserWarning, match="1 steps were left out"):
        history, state, model = train(DATA, turning_bad(what, 1), new_model(rule), non_finite="skip")
    other, other_state, same = train([DATA[0], DATA[2]], made=new_model(rule))
    assert history.losses == other.losses and history.skipped == 1 and history.stopped is None
    assert everything(model, state) == everything(same, other_state)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_kept_gradients_of_a_step_left_out_are_not_added_to_the_next(what: str) -> None:
    def run(data: list[float], bad: int) -> Any:
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(net.weight)
        calls = itertools.count()

        def f(net: Any, x: float) -> Any:
            value = (net(torch.ones(1)) * x).sum()
            value = value * (math.nan if next(calls) == bad else 1.0)
            value.backward()
            return value if what == "loss" else value.detach().nan_to_num()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = opt.train_(f, opt.setup(opt.Descent(0.1), net), net, data, progress=False, non_finite="skip")
        return history.skipped, net.weight.detach()

    skipped, weight = run([1.0, 2.0, 3.0], 1)
    assert skipped == 1 and torch.equal(weight, run([1.0, 3.0], -1)[1])


def test_a_single_step_refuses_gradients_that_are_not_finite() -> None:
    state, model = new_model()
    before = everything(model, state)
    for f in (turning_bad("loss", 0), turning_bad("gradient", 0)):
        with pytest.raises(FloatingPointError):
            opt.train_step_(f, state, model, *DATA[0])
        assert everything(model, state) == before


# ------------------------------------------------------------ going on


@pytest.mark.parametrize("by", ["history", "pickled history", "start"])
def test_two_trainings_are_one(by: str) -> None:
    def schedule() -> Any:
        return opt.Adjusting(eta=schedules.warmup_cosine(0.1, 9, warmup=3))

    seen: list[Any] = []
    whole, state, model = train(DATA, epochs=3, callbacks=schedule())
    first, *parts = train(DATA, callbacks=schedule())
    on: dict[str, Any] = {
        "history": {"history": first},
        "pickled history": {"history": pickle.loads(pickle.dumps(first))},
        "start": {"start": 3},
    }[by]
    parts = pickle.loads(pickle.dumps(parts))  # state and model come from a file
    second, *parts = train(DATA, made=parts, epochs=2, callbacks=[schedule(), lambda i: seen.append(i.step)], **on)
    assert bits(parts[1]) == bits(model) and everything(*parts[::-1]) == everything(model, state)
    assert seen == [4, 5, 6, 7, 8, 9]
    if by == "start":
        assert first.losses + second.losses == whole.losses and second.start == 3
        third, *_ = train(DATA, made=parts, history=second, callbacks=lambda i: seen.append(i.step))
        assert third is second and seen[-3:] == [10, 11, 12]
    else:
        assert second is on["history"] and (second.losses, second.epochs) == (whole.losses, whole.epochs)


def test_a_history_stopped_before_goes_on() -> None:
    stopped, *made = train(DATA, callbacks=lambda info: info.step == 2)
    assert stopped.stopped
    history, *_ = train(DATA, made=made, history=stopped)
    assert history.stopped is None and len(history) == 5


def test_schedules_go_by_applied_steps() -> None:
    rule = opt.OptimiserChain(opt.AccumGrad(3), opt.Descent())
    asked: list[int] = []

    def eta(step: int) -> float:
        asked.append(step)
        return 0.1 / (1 + step)

    seen: list[tuple[int, int]] = []
    callbacks = [opt.Adjusting(eta=eta), lambda info: seen.append((info.step, info.applied))]
    history, state, model = train([()] * 7, ones, new_model(rule), callbacks=callbacks)
    assert asked == [0, 0, 0, 1, 1, 1, 2] and [a for _, a in seen] == [0, 0, 1, 1, 1, 2, 2]
    np.testing.assert_allclose(model["w"], -(0.1 + 0.1 / 2))
    assert history.applied == 2 and state["w"].rule[1].eta == 0.1 / 3
    asked.clear()
    train([()] * 4, ones, (state, model), callbacks=callbacks, history=pickle.loads(pickle.dumps(history)))
    assert asked == [2, 2, 3, 3]
    asked.clear()
    train([()], ones, (state, model), callbacks=callbacks, start=11)
    assert asked == [3]


def test_schedules_go_by_every_step_where_some_leaves_do_not_gather() -> None:
    model = {"w": np.zeros(1), "b": np.zeros(1)}
    state = opt.setup({"w": opt.OptimiserChain(opt.AccumGrad(2), opt.Descent()), "b": opt.Descent()}, model)
    applied: list[int] = []
    opt.train_(lambda m: (1.0, None), state, model, [()] * 3, callbacks=lambda i: applied.append(i.applied))
    assert applied == [1, 2, 3]


def test_adjusting_sets_what_differs_from_what_was_set() -> None:
    state, model = new_model(opt.Momentum(0.5))
    adjusting = opt.Adjusting(eta=schedules.stepwise(0.1, {3: 0.2}), rho=lambda step: 0.5)
    revisions, etas = [], []

    def look(info: opt.Step) -> None:
        revisions.append(state._core.revision)
        etas.append(state["w"].rule.eta)
        if info.step == 2:
            opt.adjust_(state, 9.0)  # somebody else's: it is set again

    train([()] * 4, ones, (state, model), callbacks=[adjusting, look])
    assert etas == [0.1, 0.1, 0.1, 0.2]
    assert revisions[1] == revisions[0], "nothing changed: nothing was done"
    again = pickle.loads(pickle.dumps(opt.Adjusting(eta=schedules.constant(0.3))))
    assert repr(again) == "Adjusting(eta=constant(value=0.3))"
    for wrong in ({"eta": 0.1}, {"scale": schedules.constant(0.5)}):
        with pytest.raises(TypeError, match="Adjusting"):
            opt.Adjusting(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name of its field"):
        opt.Adjusting(schedules.constant(0.3))


# ------------------------------------------------------------ interrupts


@pytest.mark.parametrize("where", ["gradient", "callback", "data", "signal in gradient", "signal in callback"])
def test_an_interrupt_returns_the_history_so_far(where: str) -> None:
    def interrupt(at: str, step: int) -> None:
        if step == 2 and where == at:
            raise KeyboardInterrupt
        if step == 2 and where == f"signal in {at}":
            os.kill(os.getpid(), signal.SIGINT)

    steps = itertools.count()

    def f(model: Any, *batch: Any) -> Any:
        interrupt("gradient", next(steps))
        return value_and_grad(model, *batch)

    def data() -> Any:
        for i, batch in enumerate(DATA * 2):
            interrupt("data", i)
            yield batch

    history, state, model = train(data(), f, callbacks=lambda info: interrupt("callback", info.step))
    assert len(history) == 2 and "interrupted at step 3" in history.stopped
    _, other_state, same = train(DATA[:2])
    assert everything(model, state) == everything(same, other_state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_during_an_update_waits_until_it_is_recorded() -> None:
    class Interrupted(opt.Rule):
        calls = 0

        def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
            Interrupted.calls += 1
            if Interrupted.calls == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return state, dx

    history, _, model = train([()] * 5, ones, new_model(opt.OptimiserChain(opt.Descent(1.0), Interrupted())))
    assert model["w"] == -2.0 and len(history) == 2 and "interrupted" in history.stopped


# ------------------------------------------------------------ arrays that cannot be written


def test_models_of_jax_arrays_are_trained() -> None:
    model = {"w": jnp.zeros(1, jnp.float32), "frozen": 3}
    state = opt.setup(opt.Adam(0.1), model)
    f = jax.value_and_grad(lambda w, x, y: ((w * x - y) ** 2).sum())
    infos: list[Any] = []

    def loss(model: Any, x: Any, y: Any) -> Any:
        value, g = f(model["w"], x, y)
        return value, {"w": g}

    eta = opt.Adjusting(eta=schedules.linear(0.1, 0.0, 9))
    callbacks = [eta, lambda info: infos.append((info.state, info.model))]
    history = opt.train_(loss, state, model, DATA, epochs=2, progress=False, callbacks=callbacks)
    assert model["w"] == 0 and state["w"].clock.beta1_t == 1, "the old ones are as they were"
    assert history.model is infos[-1][1] and history.state is infos[-1][0]
    here = {"w": np.zeros(1, np.float32)}
    there = opt.setup(opt.Adam(0.1), here)
    in_place = opt.train_(value_and_grad, there, here, DATA, epochs=2, progress=False, callbacks=eta)
    assert in_place.model is here and in_place.state is there
    np.testing.assert_allclose(np.asarray(history.model["w"]), here["w"], rtol=1e-5)
    assert isinstance(history.model["w"], jax.Array) and history.state["w"].rule == there["w"].rule


def test_read_only_arrays_are_trained_too_and_keep_a_step_left_out() -> None:
    model = {"w": np.zeros(1)}
    model["w"].flags.writeable = False
    with pytest.warns(UserWarning, match="left out"):
        history, _, _ = train(
            DATA, turning_bad("gradient", 1), (opt.setup(opt.Momentum(0.1), model), model), non_finite="skip"
        )
    _, _, same = train([DATA[0], DATA[2]])
    assert model["w"] == 0 and history.model["w"] == same["w"] and history.skipped == 1
