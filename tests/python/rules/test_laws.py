"""Laws that hold for every rule: what is equal to what, and what an update must leave alone. Equal means every bit."""

import copy
import pickle

import numpy as np
import pytest
from support import (
    GLOBAL,
    MEASURES,
    REFUSES_COMPLEX,
    SEES_GRADIENT,
    all_variants,
    arrays,
    bits,
    build,
    copied,
    fingerprint,
    follow,
    handles,
    layers,
    plain_rules,
    reference,
    sized,
    slots,
    spec_id,
    stages,
    to_numpy,
    to_torch,
    trained,
    variants,
)

import optimisers as opt

SPECS = all_variants()
USUAL = [("ClipNorm", {"omega": 1.0}), ("AdamW", {"lambda_": 0.01})]
EVERY_RULE = pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)
EVERY_VARIANT = pytest.mark.parametrize("spec", SPECS, ids=spec_id)
COUNTING = pytest.mark.parametrize("spec", [s for s in SPECS if "AccumGrad" not in stages(s)] + [USUAL], ids=spec_id)


def changed_leaves(before, after):
    return [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]


# -------------------------------------------------------------------------------------------- composition


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@EVERY_RULE
def test_chain_equals_composition(spec, dtype):
    others = [("WeightDecay", {}), ("Momentum", {}), ("ClipNorm", {"omega": 0.05})]
    before = 0 if spec[0] in SEES_GRADIENT else 1  # alone it takes what it is given for the gradient
    rules = [build(s) for s in [*others[:before], spec, *others[1:]]]
    if dtype == "complex64" and spec[0] in REFUSES_COMPLEX:
        rules = [build(s) for s in others]
    x = sized((61,), dtype, 1)
    by_hand, hand_states = x.copy(), [opt.init(rule, x) for rule in rules]
    state = opt.setup(opt.OptimiserChain(*rules), x)
    for seed in range(6):
        g = sized((61,), dtype, 100 + seed)
        opt.update_(state, x, g)
        dx = g
        for i, rule in enumerate(rules):
            if dx is not None:
                hand_states[i], dx = opt.apply_(rule, hand_states[i], by_hand, dx)
        by_hand = by_hand if dx is None else by_hand - dx
        assert bits(x) == bits(by_hand)


def final_bits(rule, dtype="float32"):
    model = layers(3, dtype)
    state = trained(rule, model)
    return bits(model, [slots(leaf) for leaf in handles(model, state)])


@EVERY_RULE
def test_nested_chain_equals_flat_chain(spec):
    a, b, c = build(USUAL[0]), build(spec), build(("Momentum", {"eta": 1.0}))
    flat = final_bits(opt.OptimiserChain(a, b, c))
    assert final_bits(opt.OptimiserChain(opt.OptimiserChain(a, b), c)) == flat
    assert final_bits(opt.OptimiserChain(a, opt.OptimiserChain(opt.OptimiserChain(b)), opt.OptimiserChain(c))) == flat


@EVERY_VARIANT
def test_chain_of_one_equals_the_rule(spec):
    assert final_bits(opt.OptimiserChain(build(spec))) == final_bits(build(spec))


def test_empty_chain_equals_descent_of_one():
    assert final_bits(opt.OptimiserChain()) == final_bits(opt.Descent(1))
    assert final_bits(opt.OptimiserChain(opt.OptimiserChain(), opt.Adam())) == final_bits(opt.Adam())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
@EVERY_RULE
def test_torch_equals_numpy(spec, dtype):
    if dtype == "complex64" and spec[0] in REFUSES_COMPLEX:
        spec = ("Adam", {})
    x = sized((5, 27), dtype, 1)
    tensor = to_torch(x)
    states = opt.setup(build(spec), x), opt.setup(build(spec), tensor)
    for seed in range(4):
        g = sized((5, 27), dtype, 100 + seed)
        opt.update_(states[0], x, g)
        opt.update_(states[1], tensor, to_torch(g))
    assert bits(x, slots(states[0])) == bits(to_numpy(tensor), slots(states[1]))


# --------------------------------------------------------------------------------------- tree, flat, leaves


@EVERY_VARIANT
def test_tree_equals_flat_equals_many_leaves(spec):
    tree, alone = layers(4), layers(4)
    flat, re = opt.destructure(layers(4))
    tree_state, flat_state = opt.setup(build(spec), tree), opt.setup(build(spec), flat, layout=re)
    lone_states = [opt.setup(build(spec), x) for x in arrays(alone)]
    is_global = spec[1].get("scope") == "global"
    for seed in (100, 150, 200):
        grads = layers(4, "float32", seed)
        opt.update_(tree_state, tree, grads)
        opt.update_(flat_state, flat, re.flatten(grads))
        for state, x, g in zip(lone_states, arrays(alone), arrays(grads), strict=True):
            opt.update_(state, x, g)
    assert bits(list(arrays(re(flat)))) == bits(list(arrays(tree)))
    assert is_global or bits(list(arrays(alone))) == bits(list(arrays(tree)))


@pytest.mark.parametrize("spec", [s for s in SPECS if s[0] not in MEASURES], ids=spec_id)
def test_one_long_array_equals_its_pieces(spec):
    pieces = [sized((n,), "float32", n) for n in (511, 0, 1, 513, 7)]
    whole = np.concatenate(pieces)
    states = opt.setup(build(spec), pieces), opt.setup(build(spec), whole)
    for seed in range(3):
        grads = [sized(x.shape, "float32", 100 + seed) for x in pieces]
        opt.update_(states[0], pieces, grads)
        opt.update_(states[1], whole, np.concatenate(grads))
    assert bits(np.concatenate(pieces)) == bits(whole)


@EVERY_VARIANT
def test_part_updated_alone_moves_only_that_part(spec):
    model = layers()
    state = trained(build(spec), model)
    before = fingerprint(model, state)
    grads = layers(3, "float32", 7)
    opt.update_(state["layers"][1], model["layers"][1], grads["layers"][1])
    assert changed_leaves(before, fingerprint(model, state)) == [2, 3]


# ------------------------------------------------------------------------------------------ pure and in place


@EVERY_VARIANT
def test_pure_equals_in_place_and_leaves_the_old_values(spec):
    model = layers()
    state = trained(build(spec), model)
    grads = layers(3, "float32", 77)
    before = fingerprint(model, state)
    new_state, new_model = opt.update(state, model, grads)
    assert fingerprint(model, state) == before
    after = fingerprint(new_model, new_state)
    opt.update_(state, model, grads)
    assert fingerprint(model, state) == after


@EVERY_VARIANT
def test_later_updates_of_the_new_do_not_reach_the_old(spec):
    model = layers()
    state = trained(build(spec), model)
    opt.freeze_(state["layers"][0])
    before = fingerprint(model, state)
    new_state, new_model = opt.update(state, model, layers(3, "float32", 77))
    opt.thaw_(new_state)
    for seed in (300, 350, 400):
        opt.update_(new_state, new_model, layers(3, "float32", seed))
    for new in arrays(new_model):
        new[...] = 0
    assert fingerprint(model, state) == before


def test_update_returns_its_own_arguments_in_place():
    model = layers()
    state = opt.setup(opt.Adam(), model)
    out = opt.update_(state, model, layers(3, "float32", 7))
    assert out[0] is state and out[1] is model


@EVERY_VARIANT
def test_copied_and_pickled_states_continue_alike(spec):
    model = layers()
    state = trained(build(spec), model)
    twins = [
        (copy.deepcopy(state), copied(model)),
        (pickle.loads(pickle.dumps(state)), copied(model)),
    ]
    opt.update_(state, model, layers(3, "float32", 500))
    for twin_state, twin in twins:
        opt.update_(twin_state, twin, layers(3, "float32", 500))
        assert fingerprint(twin, twin_state) == fingerprint(model, state)


# ----------------------------------------------------------------------------------------------------- adjust


def adjustable(spec):
    return [f.name for f in getattr(opt, spec[0]).fields if not f.structural]


ADJUSTED = {
    "eta": 0.002, "rho": 0.5, "beta": (0.5, 0.9), "epsilon": 1e-2, "lambda_": 0.2, "delta": 0.6, "omega": 0.5,
    "p": 1.0, "n": 2, "ell": (0.6, 1.3), "gamma": (1e-3, 2e-3), "throw": False, "couple": False,
    "scope": "global", "pytorch": True, "bounds": (-0.5, 0.6), "prox": False, "warmup": 6.0,
    "power": 1.0,
}  # fmt: skip


def adjusted(spec, name):
    field = next(f for f in getattr(opt, spec[0]).fields if f.name == name)
    if name in ADJUSTED:
        return ADJUSTED[name]
    return not field.default if field.kind == "bool" else 0.5 * field.default or 0.1


SHARING = [spec for name in sorted(GLOBAL) for spec in variants(name)]  # adjusted as any other
ADJUSTMENTS = [(spec, name) for spec in plain_rules() + SHARING[:1] for name in adjustable(spec)]


@pytest.mark.parametrize("spec, name", ADJUSTMENTS, ids=lambda v: v if isinstance(v, str) else spec_id(v))
def test_adjust_midway_follows_the_reference(spec, name):
    """With beta, running products and powers of beta come apart here."""
    value = adjusted(spec, name)

    def between(step, state, leaf):
        if step == 3:
            setattr(leaf.stages[0].h, name, value)
            opt.adjust_(state, value) if name == "eta" else opt.adjust_(state, **{name: value})

    for dtype in ("float32", "float64"):
        grads = [sized((33,), dtype, 100 + i) for i in range(8)]
        follow(spec, sized((33,), dtype, 1), grads, between)


@pytest.mark.parametrize("spec", SPECS + SHARING, ids=spec_id)
def test_adjust_keeps_state(spec):
    for name in adjustable(spec):
        model = layers()
        state = trained(build(spec), model)
        before, rules = (
            fingerprint(model, state),
            [repr(leaf.rule) for leaf in handles(model, state)],
        )
        value = adjusted(spec, name)
        pure = opt.adjust(state, **{name: value})
        assert [repr(leaf.rule) for leaf in handles(model, state)] == rules
        opt.adjust_(state, **{name: value})
        assert fingerprint(model, state) == before == fingerprint(model, pure)
        for leaf in [*handles(model, state), *handles(model, pure)]:
            assert getattr(leaf.rule, name) == value
        assert getattr(opt.adjust(build(spec), **{name: value}), name) == value


def test_adjust_of_a_part_reaches_that_part_only():
    model = layers()
    state = opt.setup(build(USUAL), model)
    opt.adjust_(state["layers"][1], 0.5)
    opt.adjust_(state["layers"][2]["bias"], eta=0.25)
    etas = [float(repr(leaf.rule).split("eta=")[1].split(",")[0]) for leaf in handles(model, state)]
    assert etas == [0.001, 0.001, 0.5, 0.5, 0.001, 0.25]


def test_adjust_reaches_every_stage_that_has_the_field():
    x = sized((9,), "float64", 1)
    state = opt.setup(build([("Adam", {}), ("Momentum", {})]), x)
    opt.adjust_(state, eta=0.5, rho=0.25)
    assert repr(state.rule).count("eta=0.5") == 2 and "rho=0.25" in repr(state.rule)


def test_pure_adjust_shares_nothing_with_the_old_state():
    model = layers()
    state = trained(build(USUAL), model)
    before, new_model = fingerprint(model, state), copied(model)
    opt.update_(opt.adjust(state, 0.5), new_model, layers(3, "float32", 300))
    assert fingerprint(model, state) == before


# ------------------------------------------------------------------------------------------- frozen and missing


@EVERY_VARIANT
def test_frozen_leaf_is_untouched_and_thaw_resumes(spec):
    """A leaf frozen for some steps ends as if they had not been; scope="global" couples leaves, so it has no twin."""
    model, twin = layers(), layers()
    state, twin_state = trained(build(spec), model), trained(build(spec), twin)
    opt.freeze_(state["layers"][1])
    assert [leaf.frozen for leaf in handles(model, state)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    before = fingerprint(model, state)
    for seed in (300, 350, 400):
        opt.update_(state, model, layers(3, "float32", seed))
    assert changed_leaves(before, fingerprint(model, state)) == [0, 1, 4, 5]
    opt.thaw_(state["layers"][1])
    opt.update_(state, model, layers(3, "float32", 450))
    opt.update_(twin_state, twin, layers(3, "float32", 450))
    assert spec[1].get("scope") == "global" or fingerprint(model, state)[2:4] == fingerprint(twin, twin_state)[2:4]


def test_pure_freeze_and_thaw_leave_the_old_state():
    model = layers()
    state = opt.setup(opt.Adam(), model)
    frozen = opt.freeze(state)
    thawed = opt.thaw(frozen)
    for tree, expected in ((state, False), (frozen, True), (thawed, False)):
        assert {leaf.frozen for leaf in handles(model, tree)} == {expected}
    before = fingerprint(model, frozen)
    opt.update_(frozen, model, layers(3, "float32", 300))
    assert fingerprint(model, frozen) == before


def without(grads, where):
    if where == "leaf":
        grads["layers"][1]["weight"] = grads["layers"][1]["bias"] = None
    elif where == "branch":
        grads["layers"][1] = None
    else:
        del grads["layers"][1]["weight"], grads["layers"][1]["bias"]
    return grads


@pytest.mark.parametrize("where", ["leaf", "branch", "missing key"])
@COUNTING
def test_missing_gradient_leaves_parameter_slots_and_clock_untouched(spec, where):
    model = layers()
    state = trained(build(spec), model)
    before = fingerprint(model, state)
    opt.update_(state, model, without(layers(3, "float32", 300), where))
    assert changed_leaves(before, fingerprint(model, state)) == [0, 1, 4, 5]
    new_state, new_model = opt.update(state, model, without(layers(3, "float32", 400), where))
    assert fingerprint(new_model, new_state)[2:4] == before[2:4]


@EVERY_VARIANT
def test_zero_gradient_is_not_a_missing_one(spec):
    """A zero gradient counts: it moves what it moves in the reference, slots or x."""
    x, g, zero = sized((9,), "float64", 1), sized((9,), "float64", 2), np.zeros(9)
    leaf = reference.Leaf(spec, x)
    reference.update([leaf], [g])
    then = bits(leaf.x, leaf.stages[0].s)
    reference.update([leaf], [zero])
    state = opt.setup(build(spec), x)
    opt.update_(state, x, g)
    before = bits(x, slots(state))
    opt.update_(state, x, zero)
    assert (bits(x, slots(state)) != before) == (bits(leaf.x, leaf.stages[0].s) != then)
