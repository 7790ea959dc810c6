"""Numbers of a clock that are of the whole state: Prodigy's d is one for all leaves, whoever takes part in a call."""

import pickle

import numpy as np
import pytest
from support import build, fingerprint, follow, sized, spec_id, variants

import optimisers as opt
import reference

RULE = opt.Prodigy(d0=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("spec", variants("Prodigy"), ids=spec_id)
def test_every_variant_follows_the_reference(spec, dtype):
    for shape in [(), (0,), (1,), (3, 5), (511,), (513,)]:
        follow(spec, sized(shape, dtype, 1, 0.5, 2.0), [sized(shape, dtype, 1000 + i) for i in range(6)])


def leaves(*sizes):
    return [sized((n,), "float64", n, 0.5, 2.0) for n in sizes]


def numbers(state):
    return [tuple(leaf.clock) for leaf in state]


def test_d_grows_to_the_distance_and_is_in_double_for_half_precision():
    """A quadratic: d comes within a factor of the distance to the minimum, from a thousandth of a millionth of it."""
    for dtype in ("float64", "float32", "float16"):
        x = np.zeros(50, dtype)
        state = opt.setup(opt.Prodigy(), x)
        for _ in range(200):
            opt.update_(state, x, ((x - 1) / 50).astype(dtype))
        assert 0.05 < state.clock.d < 2 and state.clock.d != float(np.float32(state.clock.d))
        assert np.abs(x.astype(np.float64) - 1).max() < 0.2


def test_leaves_without_a_gradient_and_frozen_ones_have_the_numbers_of_all():
    model = leaves(3, 5, 4)
    state = opt.setup(RULE, model)
    opt.freeze_(state[2])
    for step in range(4):
        g = leaves(3, 5, 4)
        opt.update_(state, model, [g[0], None if step % 2 else g[1], g[2]])
        assert len(set(numbers(state))) == 1 and state[2].clock.t == step + 1
    opt.thaw_(state)
    twin = [model[2].copy()]
    alone = opt.setup(RULE, twin)
    alone[0].clock = dict(state[2].clock._asdict())
    assert numbers(alone)[0] == numbers(state)[0]


def test_a_part_that_is_updated_alone_moves_the_numbers_of_all():
    model = {"a": sized((3,), "float64", 1), "b": sized((4,), "float64", 2)}
    state = opt.setup(RULE, model)
    opt.update_(state["a"], model["a"], sized((3,), "float64", 3))
    assert state["b"].clock.t == 1 and state["b"].clock.d == state["a"].clock.d


def test_a_leaf_that_joins_later_starts_where_the_others_are():
    model = {"a": sized((3,), "float64", 1), "b": None}
    state = opt.setup(RULE, model)
    for seed in range(5):
        opt.update_(state, model, {"a": sized((3,), "float64", seed)})
    d = state["a"].clock.d
    model["b"] = np.zeros(2)
    opt.extend_(state, model)
    opt.update_(state, model, {"a": np.zeros(3), "b": np.full(2, 1e-3)})
    assert np.isclose(state["b"].state.m[0], 0.1 * d * 1e-3) and state["b"].clock.t == 6


def test_they_are_set_for_all_at_once_and_go_through_pickles_and_files(tmp_path):
    model = leaves(3, 5)
    state = opt.setup(RULE, model)
    opt.update_(state, model, leaves(3, 5))
    state[1].clock = {"d": 0.25}
    assert state[0].clock.d == 0.25
    again = pickle.loads(pickle.dumps(state))
    assert numbers(again) == numbers(state) and "d=0.25" in repr(again[0].clock)
    opt.save(tmp_path / "d.safetensors", state)
    other = opt.setup(RULE, leaves(3, 5))
    opt.load(tmp_path / "d.safetensors", other)
    assert numbers(other) == numbers(state)


def test_a_refused_call_puts_the_numbers_of_all_back():
    model = leaves(3, 5, 4)
    state = opt.setup(opt.OptimiserChain(RULE, opt.ClipNorm(1.0)), model)
    opt.update_(state, model, leaves(3, 5, 4))
    before = fingerprint(model, state)
    with pytest.raises(FloatingPointError, match="Prodigy"):
        opt.update_(state, model, [np.full(3, np.nan), None, None])
    assert fingerprint(model, state) == before
    model[0][:] = 1e200
    with pytest.raises(FloatingPointError):
        opt.update_(state, model, [np.full(3, 1e200), None, None])


def test_where_all_gradients_are_zero_nothing_moves():
    model = leaves(3)
    state = opt.setup(opt.Prodigy(lambda_=0.1), model)
    x = model[0].copy()
    opt.update_(state, model, [np.zeros(3)])
    assert np.array_equal(model[0], x) and state[0].clock.t == 0


def test_several_leaves_follow_the_reference_to_the_last_digits():
    spec = ("Prodigy", {"d0": 1e-4, "lambda_": 0.01, "bias_correction": True})
    model = leaves(3, 50, 7)
    twins = [reference.Leaf(spec, x) for x in model]
    state = opt.setup(build(spec), model)
    for _ in range(30):
        g = [x - 3 for x in model]
        reference.update(twins, g)
        opt.update_(state, model, g)
        assert all(np.allclose(x, twin.x, rtol=1e-11) for x, twin in zip(model, twins, strict=True))
    assert state[0].clock.d > 1e-3
