"""The result is a function of the inputs alone: not of threads, instruction sets or where the numbers lie in memory."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import (
    NUMPY_DTYPES,
    REFUSES_COMPLEX,
    all_variants,
    arrays,
    bits,
    build,
    handles,
    is_complex,
    numpy_dtype,
    plain_rules,
    sized,
    slots,
    spec_id,
)

import optimisers as opt

LEVELS = ("v2", "v3", "v4")
GLOBAL = ("ClipNorm", {"omega": 0.5, "scope": "global"})
# Rules that look at one element, at the whole leaf, and carry state; the chain is what users run.
LAYOUT_RULE = [("ClipNorm", {"omega": 0.5}), ("AdamW", {"lambda_": 0.1})]


# ------------------------------------------------------------------------------------------ threads and ISA


def bits_with_threads(count, spec, dtype, shapes):
    opt.set_num_threads(count)
    assert opt.get_num_threads() == count
    model = [sized(shape, dtype, i) for i, shape in enumerate(shapes)]
    state = opt.setup(build([GLOBAL, spec]), model)
    for seed in range(3):
        opt.update_(
            state,
            model,
            [sized(shape, dtype, 100 + seed + 10 * i) for i, shape in enumerate(shapes)],
        )
    return bits(model, [slots(leaf) for leaf in handles(model, state)])


@pytest.mark.parametrize("spec", plain_rules(), ids=spec_id)
def test_same_bits_for_any_number_of_threads(spec, threads):
    shapes = [(300_001,), (3,), (257, 300), (), (65_536,), (0,)]
    want = bits_with_threads(1, spec, "float32", shapes)
    for count in (2, 7):
        assert bits_with_threads(count, spec, "float32", shapes) == want


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_same_bits_for_any_number_of_threads_in_every_dtype(dtype, threads):
    shapes = [(300_001,), (3,), (100_000,)]
    assert len({bits_with_threads(n, ("Adam", {}), dtype, shapes) for n in (1, 2, 3, 7)}) == 1


@pytest.mark.parametrize("spec", [("Adam", {}), [("WeightDecay", {}), ("Lion", {})], ("AdaGrad", {})], ids=spec_id)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_same_bits_of_a_master_copy_for_any_number_of_threads(dtype, spec, threads):
    """Each thread has a part of the leaf, and of its master, that begins in the middle."""
    results = []
    for count in (1, 2, 7):
        opt.set_num_threads(count)
        x = sized((300_001,), dtype, 1)
        state = opt.setup(opt.MixedPrecision(build(spec), "float64" if dtype == "float32" else "float32"), x)
        for seed in range(3):
            opt.update_(state, x, sized((300_001,), dtype, 100 + seed))
        results.append(bits(x, slots(state)))
    assert len(set(results)) == 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_what_a_state_starts_from_and_its_copy_are_whole_for_any_number_of_threads(count, threads):
    opt.set_num_threads(count)
    shapes = {"odd": (300_001,), "small": (3,), "transposed": (257, 300), "one": (), "empty": (0,), "even": (65_536,)}
    model = {name: sized(shape, "float16", i).T for i, (name, shape) in enumerate(shapes.items())}
    rule = opt.OptimiserChain(opt.Rprop(0.25), opt.AdaGrad(epsilon=0.5))
    state = opt.setup(opt.MixedPrecision(rule), model)
    for same in (state, copy.deepcopy(state)):
        for name, x in model.items():
            master, (rprop, adagrad) = same[name].state
            assert np.array_equal(master, x.astype(np.float32))
            assert (rprop.eta == 0.25).all() and (adagrad.a == 0.5).all() and not rprop.g.any()


def digest():
    """A line for every rule and dtype: the hash of parameters and slots after some steps."""
    lines = []
    for spec in all_variants():
        for dtype in NUMPY_DTYPES:
            if is_complex(dtype) and spec[0] in REFUSES_COMPLEX:
                continue
            model = [sized((n,), dtype, n, 0.01, 3.0) for n in (1, 37, 1000, 4099)]
            state = opt.setup(build([spec]), model)
            for seed in range(5):
                opt.update_(state, model, [sized(x.shape, dtype, 100 + seed, 1e-3, 20.0) for x in model])
            result = bits(model, [slots(leaf) for leaf in handles(model, state)])
            lines.append(f"{spec_id(spec)} {dtype} {result}")
    return lines


@pytest.fixture(scope="module")
def digests_by_level():
    """The digest of a fresh process for every level this machine has; all run at once."""
    script = (
        "import sys; sys.path.insert(0, 'rules')\n"
        "import conftest, test_same_bits as t\n"
        "print(t.opt.doctor().isa, *t.digest(), sep='\\n')"
    )
    available = [level for level in LEVELS if level in opt.doctor().isa_available]
    running = {
        level: subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OPTIMISERS_ISA": level},
            stdout=subprocess.PIPE,
            text=True,
        )
        for level in available
    }
    lines = {level: process.communicate()[0].splitlines() for level, process in running.items()}
    assert all(process.returncode == 0 for process in running.values())
    assert {level: output[0] for level, output in lines.items()} == {level: level for level in available}
    return {level: output[1:] for level, output in lines.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_same_bits_on_every_isa(level, digests_by_level):
    if level not in digests_by_level:
        pytest.skip(f"this machine has {opt.doctor().isa_available}, not {level}")
    here = digest()
    differing = [a for a, b in zip(here, digests_by_level[level], strict=True) if a != b]
    assert not differing


# ------------------------------------------------------------------------------------------------- layouts


def place(a, layout):
    """The values of a 2-d array in another layout, and the buffer they lie in."""
    rows, columns = a.shape
    if layout == "misaligned":
        buffer = np.zeros(a.nbytes + 1, np.uint8)
        view = np.frombuffer(buffer.data, a.dtype, a.size, offset=1).reshape(a.shape)
    else:
        buffer = np.full((3 * rows, 3 * columns), 9, a.dtype)
        view = {
            "column block": buffer[:rows, columns : 2 * columns],
            "every other": buffer[: 2 * rows : 2, : 3 * columns : 3],
            "reversed": buffer[rows - 1 :: -1, columns - 1 :: -1],
            "F-ordered": buffer.ravel()[: a.size].reshape(a.shape, order="F"),
            "transposed": buffer[:columns, :rows].T,
            "negative row": buffer[:rows, columns - 1 :: -1],
        }[layout]
    view[...] = a
    return view, buffer


LAYOUTS = (
    "misaligned",
    "column block",
    "every other",
    "reversed",
    "F-ordered",
    "transposed",
    "negative row",
)


def run_layout(dtype, place_x, place_g):
    x = place_x(sized((37, 41), dtype, 1))
    state = opt.setup(build(LAYOUT_RULE), x)
    for seed in range(4):
        opt.update_(state, x, place_g(sized((37, 41), dtype, 100 + seed)))
    return bits(x, slots(state))


def unplaced(a):
    return a


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_in_any_layout_gives_the_same_bits(layout, dtype):
    assert run_layout(dtype, unplaced, lambda a: place(a, layout)[0]) == run_layout(dtype, unplaced, unplaced)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameter_in_any_layout_gives_the_same_bits(layout, dtype):
    assert run_layout(dtype, lambda a: place(a, layout)[0], unplaced) == run_layout(dtype, unplaced, unplaced)


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1700])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("rule", ["Nesterov", "Adam"])
@pytest.mark.parametrize("length", [2, 3, 8, 9, 16, 17, 40])
def test_chain_of_any_length_gives_the_same_bits_in_any_layout(length, rule, dtype, size):
    def run(place_x):
        x = place_x(sized((1, size), dtype, 1))
        stages = [(rule, {"eta": 0.5}), ("SignDecay", {"lambda_": 0.1})] * length
        state = opt.setup(build(stages[:length]), x)
        for seed in range(3):
            opt.update_(state, x, sized((1, size), dtype, 100 + seed))
        assert np.isfinite(x).all()
        return bits(x, slots(state))

    assert run(lambda a: place(a, "misaligned")[0]) == run(unplaced)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_nothing_between_the_elements_of_a_parameter_is_written(layout):
    x, buffer = place(sized((37, 41), "float32", 1), layout)
    want = buffer.copy()
    state = opt.setup(build(LAYOUT_RULE), x)
    for seed in range(3):
        opt.update_(state, x, sized((37, 41), "float32", 100 + seed))
    result = x.copy()
    x[...] = sized((37, 41), "float32", 1)
    assert bits(buffer) == bits(want) and bits(result) != bits(x.copy())


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_broadcast_gradient_equals_the_full_one(dtype):
    row = sized((41,), dtype, 7)
    for thin in (
        np.broadcast_to(row, (37, 41)),
        np.broadcast_to(row[:37, None], (37, 41)),
        np.broadcast_to(row[0], (37, 41)),
    ):
        assert run_layout(dtype, unplaced, lambda a, g=thin: g) == run_layout(
            dtype, unplaced, lambda a, g=thin: g.copy()
        )


def test_column_blocks_of_one_array_are_separate_leaves():
    whole = sized((20, 12), "float32", 1)
    blocks = [whole[:, :5], whole[:, 5:7], whole[:, 7:]]
    copies = [b.copy() for b in blocks]
    states = opt.setup(build(LAYOUT_RULE), blocks), opt.setup(build(LAYOUT_RULE), copies)
    for seed in range(3):
        grads = [sized(b.shape, "float32", 100 + seed) for b in copies]
        opt.update_(states[0], blocks, grads)
        opt.update_(states[1], copies, grads)
    assert bits(blocks) == bits(copies)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("layout", ["plain", "transposed", "reversed"])
def test_parameter_as_its_own_gradient_behaves_as_if_copied_first(layout, dtype):
    x = sized((37, 41), dtype, 1)
    x = x if layout == "plain" else place(x, layout)[0]
    twin = x.copy()
    states = opt.setup(build(LAYOUT_RULE), {"w": x}), opt.setup(build(LAYOUT_RULE), {"w": twin})
    for _ in range(3):
        opt.update_(states[0], {"w": x}, {"w": x})
        opt.update_(states[1], {"w": twin}, {"w": twin.copy()})
    assert bits(x) == bits(twin)


@pytest.mark.parametrize("given", ["float16", "float32", "float64", "bfloat16", "int32", "bool"])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_gradient_of_another_real_dtype_is_converted(dtype, given):
    """float64 for a float16 leaf: the rules compute on the gradient in the leaf's compute type, float32."""
    g = np.round(sized((37,), "float32", 7, 1.0, 9.0)).astype(numpy_dtype(given))
    compute = {"float16": "float32", "bfloat16": "float32"}.get(dtype, dtype)
    x, twin = sized((37,), dtype, 1), sized((37,), dtype, 1)
    states = opt.setup(build(LAYOUT_RULE), x), opt.setup(build(LAYOUT_RULE), twin)
    for _ in range(3):
        opt.update_(states[0], x, g)
        opt.update_(states[1], twin, g.astype(compute))
    assert bits(x) == bits(twin)


def test_order_of_gradient_keys_does_not_matter():
    model, twin = ({"b": sized((5,), "float32", 1), "a": sized((7,), "float32", 2)} for _ in range(2))
    states = opt.setup(build([GLOBAL]), model), opt.setup(build([GLOBAL]), twin)
    grads = {"b": sized((5,), "float32", 3), "a": sized((7,), "float32", 4)}
    opt.update_(states[0], model, grads)
    opt.update_(states[1], twin, dict(reversed(grads.items())))
    assert bits(list(arrays(model))) == bits(list(arrays(twin)))
