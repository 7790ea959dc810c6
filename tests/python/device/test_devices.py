"""Updates of arrays on (emulated) CUDA devices: every value has the bits the same update gives on NumPy arrays."""

from typing import Any

import numpy as np
import pytest
from device_arrays import CudaArray, DLPackArray, emulation, host, needs_emulation, on_device
from support import (
    NUMPY_DTYPES,
    REFUSES_COMPLEX,
    SUMS,
    all_variants,
    arrays,
    bits,
    build,
    copied,
    is_complex,
    layers,
    sized,
    slots,
    spec_id,
    stages,
)

import optimisers as opt

pytestmark = needs_emulation


def state_bits(leaf: Any) -> tuple[str, str]:
    """Slots and clock of a leaf, on the host or a device."""
    return bits(slots(_OnHost(leaf))), repr(leaf.clock)


class _OnHost:
    def __init__(self, leaf: Any) -> None:
        self.state = host(leaf.state)


def both(rule: Any, x: np.ndarray, gradients: list[Any], **keywords: Any) -> tuple[Any, Any]:
    """The same updates on the host and on a device; asserts that parameters, slots and clocks have the same bits."""
    there = on_device(x.copy(order="K"))
    here = x.copy(order="K")
    states = opt.setup(rule, here), opt.setup(rule, there)
    for g in gradients:
        opt.update_(states[0], here, g, **keywords)
        opt.update_(states[1], there, None if g is None else on_device(g), **keywords)
        assert bits(here) == bits(there.host)
        assert state_bits(states[0]) == state_bits(states[1])
    return states


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("spec", all_variants(), ids=spec_id)
def test_every_rule_gives_the_bits_of_the_host(spec, dtype):
    if is_complex(dtype) and REFUSES_COMPLEX & set(stages(spec)):
        pytest.skip("this rule refuses complex arrays")
    if SUMS & set(stages(spec)):
        pytest.skip("this rule sums over its leaf, on the host only")
    both(build(spec), sized((67, 5), dtype, 1), [sized((67, 5), dtype, 2 + i) for i in range(4)])


CHAINS = {
    "clip and AdamW": opt.OptimiserChain(opt.ClipNorm(0.1), opt.AdamW(lambda_=0.1)),
    "interpreted": opt.OptimiserChain(opt.WeightDecay(), opt.ClipGrad(0.3), opt.NAdam(), opt.SignDecay()),
    "accumulated": opt.OptimiserChain(opt.AccumGrad(2), opt.ClipNorm(0.2), opt.Adam()),
    "nested": opt.OptimiserChain(opt.OptimiserChain(opt.Momentum(), opt.ClipNorm(0.01, p=1)), opt.AdaGrad()),
}


@pytest.mark.parametrize("rule", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("size", [0, 1, 511, 4097, 70_001])
def test_chains_give_the_bits_of_the_host(rule, size):
    both(rule, sized((size,), "float32", 1), [sized((size,), "float32", 2 + i) for i in range(5)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_mixed_precision_gives_the_bits_of_the_host(dtype):
    wide = "float64" if dtype in ("float32", "complex64") else "float32"
    states = both(
        opt.MixedPrecision(opt.Adam(0.01), wide), sized((300,), dtype, 1), [sized((300,), dtype, i) for i in range(4)]
    )
    masters = [host(state.state[0]) for state in states]
    assert masters[0].dtype == masters[1].dtype and bits(masters[0]) == bits(masters[1])


def views() -> dict[str, np.ndarray]:
    base = sized((40, 60), "float32", 1)
    misaligned = np.frombuffer(bytearray(401), np.uint8)[1:].view(np.float32)
    misaligned[:] = sized((100,), "float32", 2)
    return {
        "columns": base[:, 3:9],
        "transposed": base.T,
        "reversed": base[::-1],
        "steps": base[::3, ::7],
        "Fortran": np.asfortranarray(base),
        "scalar": base[3, 4:5].reshape(()),
        "misaligned": misaligned,
    }


@pytest.mark.parametrize("view", views())
def test_arrays_of_any_strides_are_updated_in_place(view):
    here, there, gradient = views()[view], views()[view], views()[view]
    rule = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam(0.1))
    states = opt.setup(rule, here), opt.setup(rule, CudaArray(there))
    for _ in range(3):
        opt.update_(states[0], here, gradient * 2)
        opt.update_(states[1], CudaArray(there), CudaArray(np.asarray(gradient * 2)))
    emulation("finish")
    assert bits(here) == bits(there) and state_bits(states[0]) == state_bits(states[1])
    if there.base is not None and view == "columns":  # what is around a view stays
        assert bits(there.base[:, :3]) == bits(views()[view].base[:, :3])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "bool"])
def test_gradients_of_other_dtypes_are_converted(dtype):
    both(opt.Momentum(0.3), sized((50,), "float32", 1), [(sized((50,), "float32", 2) * 9).astype(dtype)])


def test_broadcast_gradients_are_read():
    both(opt.Adam(), sized((7, 5), "float64", 1), [np.broadcast_to(np.float64(0.25), (7, 5))])


def test_missing_gradients_leave_arrays_alone():
    states = both(opt.Adam(), sized((9,), "float32", 1), [sized((9,), "float32", 2), None, sized((9,), "float32", 3)])
    assert states[1].clock.beta1_t == 0.9**2
    both(opt.AccumGrad(2), sized((9,), "float32", 1), [sized((9,), "float32", 2), None, None])


def test_a_parameter_may_be_its_own_gradient():
    here = sized((33,), "float32", 1)
    there = CudaArray(here.copy())
    rule = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Descent(0.5))
    states = opt.setup(rule, here), opt.setup(rule, there)
    opt.update_(states[0], here, here)
    opt.update_(states[1], there, there)
    assert bits(here) == bits(there.host)


@pytest.mark.parametrize("scope", ["leaf", "global"])
def test_trees_give_the_bits_of_the_host(scope):
    rule = opt.OptimiserChain(opt.Momentum(0.1), opt.ClipNorm(0.05, scope=scope), opt.WeightDecay(0.1))
    here = layers(5)
    there = on_device(copied(here))
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(3):
        gradients = layers(5, seed=100 + step)
        gradients["layers"][2] = None
        opt.update_(states[0], here, gradients)
        opt.update_(states[1], there, on_device(gradients))
    assert bits(here) == bits(host(there))


def test_parts_that_take_turns_come_to_norms_of_their_own():
    rule = opt.OptimiserChain(opt.AccumGrad(2), opt.ClipNorm(0.05, scope="global"), opt.Momentum(0.1))
    here = layers(3)
    there = on_device(copied(here))
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(12):
        gradients = layers(3, seed=100 + step)
        if step % 3 == 1:
            gradients["layers"][step % 2]["weight"] = None
        change = {"p": 1.0} if step == 5 else {"scope": "leaf"} if step == 8 else {"omega": 0.07}
        for state, model, g in (states[0], here, gradients), (states[1], there, on_device(gradients)):
            opt.adjust_(state, **change)
            opt.update_(state, model, g)
            part = step % 3
            opt.update_(state["layers"][part], model["layers"][part], g["layers"][part])
    assert bits(here) == bits(host(there))


def test_one_tree_may_be_on_host_and_devices():
    rule = opt.OptimiserChain(opt.ClipNorm(0.3), opt.Adam())
    here = {name: sized((20, 3), "float32", i) for i, name in enumerate("abc")}
    there = {"a": here["a"].copy(), "b": CudaArray(here["b"].copy()), "c": DLPackArray(here["c"], device=1)}
    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(3):
        g = {name: sized((20, 3), "float32", 10 * step + i) for i, name in enumerate("abc")}
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, {"a": g["a"], "b": CudaArray(g["b"]), "c": DLPackArray(g["c"], device=1)})
    assert bits(here) == bits(host(there))
    for name, where in {"a": "float32,", "b": "float32 cuda:0,", "c": "float32 cuda:1,"}.items():
        assert where in repr(states[1][name])


def test_ties_hold_on_devices():
    w = sized((4, 4), "float32", 1)
    here = {"w": w, "again": w, "turned": w.T}
    there = {name: CudaArray(a) for name, a in copied_with_ties(here).items()}
    states = opt.setup(opt.Adam(), here), opt.setup(opt.Adam(), there)
    assert states[1]["w"] is states[1]["turned"]
    g = {name: sized((4, 4), "float32", i) for i, name in enumerate(here)}
    opt.update_(states[0], here, g)
    opt.update_(states[1], there, on_device(g))
    assert bits(here) == bits(host(there))


def copied_with_ties(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    w = model["w"].copy()
    return {"w": w, "again": w, "turned": w.T}


def test_frozen_arrays_and_parts_of_a_model():
    model = on_device(layers(3))
    state = opt.setup(opt.Momentum(), model)
    opt.freeze_(state["layers"][0])
    before = bits(host(model))
    part, gradient = model["layers"][0], on_device(layers(3, seed=9)["layers"][0])
    opt.update_(state["layers"][0], part, gradient)
    assert bits(host(model)) == before
    opt.thaw_(state["layers"][0])
    opt.update_(state["layers"][0], part, gradient)
    changed = [bits(a) != bits(b) for a, b in zip(arrays(host(model)), arrays(layers(3)), strict=True)]
    assert changed == [True, True, False, False, False, False]


@pytest.mark.parametrize("one_for_all", [True, False])
def test_adjusting_reaches_every_row_and_no_clock(one_for_all):
    """More rows than one launch brings along, of two groups that take turns."""
    count = 1200
    here = [sized((1,), "float32", i) for i in range(count)]
    there = on_device(copied(here))

    def rule(path, leaf):
        return opt.OptimiserChain(opt.ClipGrad(0.5), opt.Adam()) if path[0] % 2 else opt.Momentum()

    states = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(2):
        g = [sized((1,), "float32", 7 * i + step) for i in range(count)]
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, on_device(g))
        for state in states:
            if one_for_all:
                opt.adjust_(state, 0.3 + step)
                continue
            for leaf in range(0, count, 5):
                opt.adjust_(state[leaf], 0.1 / (1 + leaf))
            opt.adjust_(state, beta=(0.8 - step / 10, 0.9))
    assert bits(here) == bits(host(there))
    assert [leaf.clock for leaf in states[0]] == [leaf.clock for leaf in states[1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: opt.adjust_(s, scale=0.25),
        lambda s: opt.adjust_(s, opt.OptimiserChain(opt.ClipGrad(0.1), opt.Momentum(0.2, rho=0.5))),
        lambda s: opt.adjust_(s, {opt.ClipGrad: {"delta": 0.125}}),
    ],
    ids=["scale", "rule", "class"],
)
def test_every_way_to_adjust_takes_effect_on_devices(change):
    here = layers(3)
    there = on_device(copied(here))
    states = [opt.setup(opt.OptimiserChain(opt.ClipGrad(0.5), opt.Momentum()), model) for model in (here, there)]
    for state in states:
        opt.adjust_(state["layers"][0], 0.5)
    for step in range(2):
        g = layers(3, "float32", 7 + step)
        opt.update_(states[0], here, g)
        opt.update_(states[1], there, on_device(g))
        for state in states:
            change(state)
    assert bits(here) == bits(host(there))


def test_adjusting_takes_effect_on_devices():
    x = sized((30,), "float32", 1)
    states = both(opt.Adam(), x, [sized((30,), "float32", 2)])
    here, there = x.copy(), CudaArray(x.copy())
    for state, array in zip(states, (here, there), strict=True):
        opt.adjust_(state, 0.5, beta=(0.5, 0.9))
        opt.update_(state, array, array)
    assert bits(here) == bits(there.host) and states[0].clock == states[1].clock
