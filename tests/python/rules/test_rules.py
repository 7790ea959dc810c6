"""Every rule of the registry against the float64 reference: every step and every slot, all dtypes and shapes."""

import numpy as np
import pytest
from chains import partners
from following import follow_together, leaf_gradients
from support import (
    NUMPY_DTYPES,
    REFUSES_COMPLEX,
    RULES,
    TORCH_DTYPES,
    Follower,
    all_variants,
    build,
    close,
    follow,
    is_complex,
    needed,
    plain_rules,
    required,
    sized,
    spec_id,
    stages,
    to_torch,
    variants,
    wide,
)

import optimisers as opt
import reference

STEPS = 6
BLOCK_EDGES = [(n,) for block in (256, 512, 1024) for n in (block - 1, block, block + 1)]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (4, 1, 9), *BLOCK_EDGES]


def cases(dtypes: tuple[str, ...]) -> list:
    return [
        pytest.param(spec, dtype, id=f"{spec_id(spec)}-{dtype}")
        for spec in all_variants()
        for dtype in dtypes
        if not (is_complex(dtype) and spec[0] in REFUSES_COMPLEX)
    ]


def gradients(shape: tuple[int, ...], dtype: str, steps: int = STEPS) -> list[np.ndarray]:
    return [sized(shape, dtype, 1000 + step) for step in range(steps)]


def gradients_for(spec, shape: tuple[int, ...], dtype: str, steps: int = STEPS) -> list[np.ndarray]:
    """For a chain with an AccumGrad of one sign: sums that cancel would lose the digits that are compared behind it."""
    grads = gradients(shape, dtype, steps)
    steady = (2 + 1j) / 3 if is_complex(dtype) else 1
    return [np.asarray(np.abs(g) * steady).astype(g.dtype) for g in grads] if "AccumGrad" in stages(spec) else grads


# ------------------------------------------------------------------------------------------- registry


def test_every_registered_rule_has_a_reference():
    assert {cls.__name__ for cls in opt.RULES} == set(reference.REFERENCE)


@pytest.mark.parametrize("name", RULES)
def test_fields_and_defaults_are_those_of_the_reference(name):
    theirs = {f: value for f, value in reference.REFERENCE[name].defaults.items() if value is not reference.REQUIRED}
    fields = {f.name: f for f in RULES[name].fields}
    assert list(fields) == list(reference.REFERENCE[name].defaults)
    assert {f: fields[f].default for f in theirs} == theirs
    rule = RULES[name](**required(name))
    assert {f: getattr(rule, f) for f in theirs} == theirs


@pytest.mark.parametrize("name", RULES)
def test_slots_are_those_of_the_reference(name):
    declared = [slot.name for slot in RULES[name].slots]
    used = set()
    for spec in variants(name):
        leaf = reference.Leaf(spec, np.zeros(1))
        used |= set(leaf.stages[0].s)
        handle = opt.setup(build(spec), np.zeros(1))
        assert handle.state._fields == tuple(leaf.stages[0].s)
    assert set(declared) == used


@pytest.mark.parametrize("name", RULES)
def test_only_fields_that_decide_on_slots_are_structural(name):
    structural = {f.name for f in RULES[name].fields if f.structural}
    deciding = set()
    for f in RULES[name].fields:
        if f.kind == "bool":
            both = [opt.setup(build((name, needed(name) | {f.name: value})), np.zeros(1)) for value in (False, True)]
            deciding |= {f.name} if both[0].state._fields != both[1].state._fields else set()
    assert structural == deciding


# ------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("spec, dtype", cases(NUMPY_DTYPES))
def test_rule_follows_the_reference(spec, dtype):
    for shape in SHAPES:
        follow(spec, sized(shape, dtype, 1, 0.5, 2.0), gradients(shape, dtype))


@pytest.mark.parametrize("spec, dtype", cases(TORCH_DTYPES))
def test_rule_follows_the_reference_on_tensors(spec, dtype):
    for shape in [(), (0,), (3, 5), (513,)]:
        follow(spec, to_torch(sized(shape, dtype, 1, 0.5, 2.0)), gradients(shape, dtype))


@pytest.mark.parametrize("spec", all_variants(), ids=spec_id)
def test_float64_trajectory_is_the_reference_trajectory(spec):
    """Here the reference keeps its own x. Twelve steps: past the first rectified ones of RAdam."""
    x, grads = sized((9,), "float64", 1, 0.5, 2.0), gradients((9,), "float64", 12)
    state = opt.setup(build(spec), x)
    for want, g in zip(reference.run(spec, x.copy(), grads), grads, strict=True):
        opt.update_(state, x, g)
        assert close(x, want, 1e-12)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)
def test_one_array_functions_follow_the_reference(spec, dtype):
    if is_complex(dtype) and spec[0] in REFUSES_COMPLEX:
        with pytest.raises((ValueError, TypeError), match="complex"):
            opt.init(build(spec), sized((5,), dtype, 1))
        return
    x = sized((5,), dtype, 1)
    rule, follower = build(spec), Follower(spec, x)
    state, before = opt.init(rule, x), x.tobytes()
    for g in gradients((5,), dtype):
        follower.before(x)
        reference.update([follower.leaf], [wide(g)])
        state, dx = opt.apply_(rule, state, x, g)
        want = follower.leaf.dx
        follower.step_size = np.fmax(follower.step_size, np.abs(want))
        stored = float(follower.info.eps) if follower.dtype.itemsize == 2 else 0.0
        spacing = float(follower.info.smallest_subnormal)  # of numbers too small for a relative error
        got = np.zeros_like(want) if dx is None else wide(dx)
        assert close(got, want, stored * np.abs(want) + follower.relative * follower.step_size + spacing)
        assert x.tobytes() == before


@pytest.mark.parametrize("first", plain_rules(), ids=spec_id)
def test_chain_of_any_two_rules_follows_the_reference(first):
    for second in partners(first, plain_rules()):
        for dtype in ("float32", "float64"):
            chain = [first, second]
            follow(chain, sized((37,), dtype, 1, 0.5, 2.0), gradients_for(chain, (37,), dtype))


CHAINS = {
    "empty": [],
    "usual": [("ClipNorm", {"omega": 1.0}), ("AdamW", {"lambda_": 0.01})],
    "clip behind": [("Adam", {}), ("ClipNorm", {"omega": 0.005})],
    "two clips": [
        ("ClipNorm", {"omega": 1.0}),
        ("Momentum", {}),
        ("ClipNorm", {"omega": 0.01, "p": 1.0}),
    ],
    "nested": [
        [("ClipGrad", {"delta": 0.7})],
        [[("WeightDecay", {}), ("AccumGrad", {"n": 2})], ("NAdam", {})],
    ],
    "twice the same": [("Adam", {}), ("Adam", {"eta": 0.1})],
    "accumulation twice": [
        ("AccumGrad", {"n": 2}),
        ("Momentum", {}),
        ("AccumGrad", {"n": 2}),
        ("Adam", {}),
    ],
    "clip between": [
        ("AccumGrad", {"n": 3}),
        ("ClipNorm", {"omega": 0.5}),
        ("RMSProp", {"centred": True}),
    ],
    "long": [
        ("SignDecay", {}),
        ("WeightDecay", {}),
        ("ClipGrad", {}),
        ("Adam", {}),
        ("Momentum", {"eta": 1.0}),
    ],
}


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("chain", CHAINS)
def test_chain_follows_the_reference(chain, dtype):
    for shape in [(), (0,), (3, 5), (513,), (1025,)]:
        spec = CHAINS[chain]
        follow(spec, sized(shape, dtype, 1, 0.5, 2.0), gradients_for(spec, shape, dtype, 9))


def test_chunk_edges_follow_the_reference():
    """Sizes around 64 Ki elements, where work is split."""
    for n in (2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16 + 5):
        follow(
            CHAINS["clip behind"],
            sized((n,), "float32", 1, 0.5, 2.0),
            gradients((n,), "float32", 2),
        )


def test_accumulation_counts_a_missing_gradient_as_zero_and_skips_when_all_are_missing():
    grads = leaf_gradients([(4,), (6,)], "float64", 12)
    for step in (1, 3, 6, 7, 8, 9, 11):
        grads[step][0] = None
    chain = [("Momentum", {}), ("AccumGrad", {"n": 3}), ("Adam", {})]
    follow_together([chain[1:], chain], [(4,), (6,)], grads, "float64")
