"""What may never happen: a call that raises changes something, memory that overlaps, arrays read wrongly."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from support import bits, build, everything, layers, plain_rules, sized, slots, spec_id, to_torch, trained

import optimisers as opt

EVERY_RULE = pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)
USUAL = opt.OptimiserChain(opt.ClipNorm(1.0), opt.AdamW(0.01, lambda_=0.01))


def ones(*shape):
    return np.ones(shape, np.float32)


# ---------------------------------------------------------------------------- a call that raises changes nothing


@dataclass
class World:
    """Everything a faulty call can reach."""

    model: Any = field(default_factory=lambda: layers(3))
    grads: Any = field(default_factory=lambda: layers(3, "float32", 900))
    state: Any = None
    x: Any = field(default_factory=lambda: ones(4))
    one: Any = None

    def __post_init__(self):
        self.state = trained(USUAL, self.model)
        opt.freeze_(self.state["layers"][0]["bias"])
        self.one = opt.init(USUAL, self.x)
        opt.apply_(USUAL, self.one, self.x, ones(4))

    def everything(self):
        one = (repr(self.one.rule), repr(self.one.clock), self.one.frozen)
        return everything(self.model, self.state), one, bits(self.grads, self.x, slots(self.one))


@dataclass(frozen=True)
class Raises(opt.Rule):
    """A rule of the user that fails where it is told to."""

    where: str = "nowhere"

    def init(self, x):
        if self.where == "init":
            raise KeyError("user")
        return 0

    def apply(self, state, x, dx, *higher):
        if self.where == "apply" and x.size == 6:
            raise KeyError("user")
        return state + 1, dx


OTHER = opt.OptimiserChain(opt.ClipNorm(2.0), opt.AdamW(0.5, lambda_=0.5))
INF = [ones(4) * np.inf, ones(4) * np.nan]
FAULTS = {
    "update: wrong shape": lambda w: opt.update(w.state, w.model, {"layers": [None, None, {"bias": ones(1)}]}),
    "update: norm": lambda w: opt.update(w.state, w.model, {"layers": [None, None, {"bias": ones(5) * np.inf}]}),
    "update_: norm": lambda w: opt.update_(w.state, w.model, {"layers": [None, None, {"bias": ones(5) * np.nan}]}),
    "update: no state": lambda w: opt.update(w.model, w.model, w.grads),
    "update_: no gradients": lambda w: opt.update_(w.state, w.model),
    "update_: Duplicated and gradients": lambda w: opt.update_(w.state, opt.Duplicated(w.model, w.grads), w.grads),
    "update_: zero_grad of an argument": lambda w: opt.update_(w.state, w.model, w.grads, zero_grad=True),
    "update_: part of another": lambda w: opt.update_(w.state["layers"][0], w.model["layers"][1], None),
    "adjust_: nothing": lambda w: opt.adjust_(w.state),
    "adjust_: unknown": lambda w: opt.adjust_(w.state, eta=0.5, rho=0.5),
    "adjust_: out of range": lambda w: opt.adjust_(w.state, eta=0.5, beta=(0.5, 1.0)),
    "adjust_: wrong kind": lambda w: opt.adjust_(w.state, eta=0.5, beta="much"),
    "adjust_: not finite": lambda w: opt.adjust_(w.state, lambda_=0.1, eta=float("nan")),
    "adjust: out of range": lambda w: opt.adjust(w.state, eta=-1.0),
    "freeze_: model": lambda w: opt.freeze_(w.model),
    "freeze: part": lambda w: opt.freeze(w.state["layers"]),
    "thaw: part": lambda w: opt.thaw(w.state["layers"]),
    "setup: no rule": lambda w: opt.setup(0.1, w.model),
    "setup: leaf without a rule": lambda w: opt.setup({"layers.0": opt.Adam()}, w.model),
    "setup: user's init": lambda w: opt.setup(Raises("init"), w.model),
    "setup: wrong layout": lambda w: opt.setup(opt.Adam(), w.x, layout=opt.destructure(w.model)[1]),
    "apply_: gradient": lambda w: opt.apply_(OTHER, w.one, w.x, ones(3)),
    "apply_: parameter": lambda w: opt.apply_(OTHER, w.one, ones(3), ones(3)),
    "apply_: complex": lambda w: opt.apply_(OTHER, w.one, w.x, ones(4) * 1j),
    "apply_: infinite": lambda w: opt.apply_(OTHER, w.one, w.x, INF[0]),
    "apply_: not a number": lambda w: opt.apply_(OTHER, w.one, w.x, INF[1]),
    "apply_: other structure": lambda w: opt.apply_(opt.Adam(), w.one, w.x, ones(4)),
    "apply_: slot": lambda w: opt.apply_(OTHER, w.one, w.x, w.one.state[1].m),
    "lerp_: shape": lambda w: opt.lerp_(w.model, {"layers": [*w.grads["layers"][:2], {"weight": ones(2)}]}, 0.5),
    "lerp_: self": lambda w: opt.lerp_(w.model, w.x, 0.5),
    "flatten: shape": lambda w: opt.destructure(w.model)[1].flatten({"layers": [None, None, {"bias": ones(1)}]}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_call_that_raises_changes_nothing(fault):
    world = World()
    before = world.everything()
    with pytest.raises((ValueError, TypeError, FloatingPointError, KeyError)):
        FAULTS[fault](world)
    assert world.everything() == before


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.startswith("apply_")])
def test_errors_of_apply_begin_with_its_name(fault):
    with pytest.raises((ValueError, FloatingPointError), match=r"^apply_: "):
        FAULTS[fault](World())


@pytest.mark.parametrize("call", [opt.update_, opt.update])
def test_user_rule_that_raises_at_the_last_leaf_changes_nothing(call):
    model = layers(4)
    rule = opt.OptimiserChain(opt.Momentum(), opt.AccumGrad(2), Raises("nowhere"), opt.Adam())
    state = trained(rule, model, 3)
    opt.adjust_(state, where="apply")
    before, users = everything(model, state), [leaf["bias"].state[2] for leaf in state["layers"]]
    with pytest.raises(KeyError, match="user"):
        call(state, model, layers(4, "float32", 900))
    assert everything(model, state) == before and users == [leaf["bias"].state[2] for leaf in state["layers"]]


def test_gradient_of_higher_order_that_does_not_fit_changes_nothing():
    model = layers(2)
    state = trained(opt.OptimiserChain(opt.Momentum(), Raises("nowhere")), model)
    before = everything(model, state)
    grads = layers(2, "float32", 900)
    for higher in ({"layers": [None, {"bias": ones(1)}]}, {"layer": None}, [None, None]):
        with pytest.raises(ValueError, match="gradient"):
            opt.update_(state, model, grads, higher)
        assert everything(model, state) == before


@pytest.mark.parametrize("kind", ["read-only", "broadcast"])
def test_kept_gradients_that_cannot_be_zeroed_are_refused_before_anything_is_written(kind):
    model, grads = {"a": ones(2, 3), "b": ones(3)}, {"a": ones(2, 3), "b": ones(3)}
    if kind == "broadcast":
        grads["b"] = np.broadcast_to(np.float32(1), 3)
    grads["b"].flags.writeable = False
    state = opt.setup(opt.Momentum(1.0), model)
    before = everything(model, state), bits(grads)
    with pytest.raises(ValueError, match=r'(?s)"b".*(read-only|writ)'):
        opt.update_(state, opt.Duplicated(model, grads), zero_grad=True)
    assert (everything(model, state), bits(grads)) == before


def test_strided_kept_gradients_are_zeroed():
    model, grads = {"a": ones(2, 3)}, {"a": np.ones((3, 4), np.float32).T[::2]}
    opt.update_(opt.setup(opt.Descent(1.0), model), opt.Duplicated(model, grads), zero_grad=True)
    assert not model["a"].any() and not grads["a"].any()


# ------------------------------------------------------------------------------------------ memory that overlaps


def overlapping_call(fault):
    """A state, a model and gradients of which one overlaps what it must not; the two names."""
    model = {"a": ones(6), "b": 2 * ones(6)}
    state = opt.setup(opt.MixedPrecision(opt.Momentum(1.0), "float64"), model)
    opt.update_(state, model, {"a": ones(6), "b": ones(6)})
    base, grads = np.ones(10, np.float32), {"a": ones(6), "b": ones(6)}
    if fault == "master as gradient":
        grads["a"] = state["b"].state[0]
    elif fault == "parameters that overlap since":
        model |= {"a": base[:6], "b": base[4:]}
    elif fault == "parameters that are one since":
        model["b"] = model["a"]
    elif fault == "parameter that is a slot":
        model["b"] = model["b"].astype(np.float64)
        state = opt.setup(opt.Momentum(1.0), model)
        model["b"] = state["b"].state.v
    elif fault == "tensor of the same memory":
        model |= {"a": base[:6], "b": torch.from_numpy(base[4:])}
    return state, model, grads


@pytest.mark.parametrize(
    "fault",
    [
        "master as gradient",
        "parameters that overlap since",
        "parameters that are one since",
        "parameter that is a slot",
        "tensor of the same memory",
    ],
)
def test_overlap_is_refused_naming_both_and_changes_nothing(fault):
    state, model, grads = overlapping_call(fault)
    before = everything(model, state)
    with pytest.raises(ValueError, match=r'(?s)(?=.*"b")') as caught:
        opt.update_(state, model, grads)
    assert everything(model, state) == before
    assert '"a"' in str(caught.value) or "slot" in fault


@pytest.mark.parametrize("kept", ["frozen", "missing"])
def test_gradient_may_overlap_what_this_call_does_not_write(kept):
    model = {"a": ones(3), "b": np.arange(3, dtype=np.float32)}
    state = opt.setup(opt.Momentum(1.0), model)
    if kept == "frozen":
        opt.freeze_(state["b"])
    opt.update_(state, model, {"a": model["b"]} | ({"b": ones(3)} if kept == "frozen" else {}))
    assert np.array_equal(model["a"], [1, 0, -1]) and np.array_equal(model["b"], [0, 1, 2])


def test_gradient_that_overlaps_what_a_gate_lets_through_is_refused():
    """The second of two calls fires without a gradient of its own, and writes."""
    model = {"a": ones(3), "b": ones(3)}
    state = opt.setup({"a": opt.Descent(1.0), "b": opt.OptimiserChain(opt.AccumGrad(2), opt.Descent(1.0))}, model)
    opt.update_(state, model, {"b": ones(3)})
    before = everything(model, state)
    with pytest.raises(ValueError, match='gradient at "a" overlaps the parameter at "b"'):
        opt.update_(state, model, {"a": model["b"]})
    assert everything(model, state) == before


@EVERY_RULE
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_parameter_as_its_own_gradient_for_every_rule(spec, library):
    wrap, copied = (to_torch, torch.clone) if library == "torch" else (np.array, np.array)
    x, twin = wrap(sized((5, 7), "float32", 1)), wrap(sized((5, 7), "float32", 1))
    states = opt.setup(build(spec), [x]), opt.setup(build(spec), [twin])
    for _ in range(3):
        opt.update_(states[0], [x], [x])
        opt.update_(states[1], [twin], [copied(twin)])
    assert bits(x, slots(states[0][0])) == bits(twin, slots(states[1][0]))


def test_tied_parameter_as_its_own_gradients_is_copied_first():
    w = sized((3, 3), "float64", 1)
    twin = w.copy()
    model = {"a": w, "b": w.T}
    opt.update_(opt.setup(opt.Descent(0.5), model), model, {"a": w, "b": w.T})
    assert np.array_equal(w, twin - 0.5 * (twin + twin))


# ------------------------------------------------------------------------------------------ unusual arrays


@EVERY_RULE
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_empty_and_0d_arrays_neither_suffer_nor_disturb(spec, library):
    """Among them the others end with the bits they have without them; 0-d ends as one element does."""
    wrap = to_torch if library == "torch" else np.array
    model = {"none": sized((0,), "float32", 1), "w": sized((3, 5), "float32", 2), "point": sized((), "float32", 3)}
    model |= {"never": sized((2, 0, 3), "float32", 4), "v": sized((7,), "float32", 5)}
    model = {key: wrap(x) for key, x in model.items()}
    alone = {key: wrap(sized(shape, "float32", seed)) for key, shape, seed in [("w", (3, 5), 2), ("v", (7,), 5)]}
    alone["point"] = wrap(sized((), "float32", 3).reshape(1))
    states = opt.setup(build(spec), model), opt.setup(build(spec), alone)
    for step in range(3):
        grads = {key: wrap(sized(tuple(x.shape), "float32", 50 + step)) for key, x in model.items()}
        opt.update_(states[0], model, grads)
        opt.update_(states[1], alone, {key: grads[key].reshape(tuple(x.shape)) for key, x in alone.items()})
    for key, x in alone.items():
        assert bits(x) == bits(model[key].reshape(tuple(x.shape)))
    assert [tuple(model[key].shape) for key in ("none", "never", "point")] == [(0,), (2, 0, 3), ()]


def test_empty_arrays_with_vast_axes():
    model = {"x": np.empty((2**40, 0, 2**20), np.float32), "w": ones(2)}
    state = opt.setup(opt.Adam(), model)
    opt.update_(state, model, {"x": np.empty((2**40, 0, 2**20), np.float32), "w": ones(2)})
    assert state["x"].state.m.shape == (2**40, 0, 2**20) and opt.destructure(model)[0].shape == (2,)


def placed(a, layout):
    if layout == "misaligned":
        memory = np.zeros(a.nbytes + 1, np.uint8)
        view = np.frombuffer(memory.data, a.dtype, a.size, offset=1).reshape(a.shape)
    else:
        view = {"F": np.empty(a.shape, a.dtype, "F"), "strided": np.empty((11, 28), a.dtype)[1::2, ::-4]}[layout]
    view[...] = a
    return view


@EVERY_RULE
@pytest.mark.parametrize("layout", ["misaligned", "strided", "F"])
def test_every_rule_in_every_layout_with_stride_0_gradients(spec, layout):
    x, twin = placed(sized((5, 7), "float32", 1), layout), sized((5, 7), "float32", 1)
    states = opt.setup(build(spec), x), opt.setup(build(spec), twin)
    for step in range(3):
        thin = sized((5, 1), "float32", 50 + step)
        opt.update_(states[0], x, np.broadcast_to(thin, (5, 7)))
        opt.update_(states[1], twin, np.ascontiguousarray(np.broadcast_to(thin, (5, 7))))
    assert bits(x, slots(states[0])) == bits(twin, slots(states[1]))


@pytest.mark.parametrize("dtype", ["longdouble", "clongdouble", ">f4", ">f8", ">c16", "O"])
def test_arrays_of_numbers_that_cannot_be_trained_are_refused_not_skipped(dtype):
    if np.dtype(dtype) in (np.dtype("f8"), np.dtype("c16")):
        pytest.skip("no such type here")
    with pytest.raises((ValueError, TypeError), match=r'"layer\.w"'):
        opt.setup(opt.Adam(), {"layer": {"w": np.ones(3).astype(dtype), "b": ones(2)}})
