"""So many leaves that reading, checks and clocks are dealt out to the threads as well: nothing may depend on that."""

import hashlib
import pickle

import ml_dtypes
import numpy as np
import pytest
from support import everything

import optimisers as opt

COUNT = 9000  # four portions
RULES = {
    "a": opt.Adam(0.01),
    "b": opt.OptimiserChain(opt.AccumGrad(2), opt.Momentum(0.1)),
    "c": opt.OptimiserChain(opt.ClipNorm(1.0, throw=False), opt.Descent(0.1)),
    "d": opt.OptimiserChain(),
}


def array(i, size=2):
    return np.full(size, 1 + i % 7, np.float32)


def many():
    """A model with every rule in every portion, frozen leaves among them, and its state."""
    model = {f"{'abcd'[i // 3 % 4]}{i}": array(i, 1 + i % 5) for i in range(COUNT)}
    state = opt.setup(lambda path, x: RULES[path[0][0]], model)
    for i, key in enumerate(model):
        if i % 11 == 5:
            opt.freeze_(state[key])
    return model, state


def gradients(model, step):
    """Some are missing, others in each step."""
    return {k: None if (i + step) % 13 == 0 else 0.5 + x for i, (k, x) in enumerate(model.items())}


def snapshot(model, state):
    """Short: pytest compares what differs, and would take minutes over all of it."""
    return hashlib.sha256(pickle.dumps((list(model.values()), state))).hexdigest()


@pytest.fixture
def four_threads(threads):
    opt.set_num_threads(4)


def test_portions_give_the_bits_of_one_thread(four_threads):
    results = []
    for count in (4, 1, 3):
        opt.set_num_threads(count)
        model, state = many()
        for step in range(4):
            opt.update_(state, model, gradients(model, step))
        results.append(snapshot(model, state))
    assert results[0] == results[1] == results[2]


def test_portions_do_what_each_leaf_alone_would(four_threads):
    model, state = many()
    alone, alone_state = many()
    keys = list(model)[::431] + list(model)[-3:]
    for step in range(4):
        grads = gradients(model, step)
        opt.update_(state, model, grads)
        for key in keys:
            opt.update_(alone_state[key], alone[key], grads[key])
    for key in keys:
        assert everything(model[key], state[key]) == everything(alone[key], alone_state[key])


@pytest.mark.parametrize("first", [3, 4600, 8990])
@pytest.mark.parametrize("fault", ["shape", "read-only", "complex", "overlap", "moved and overlap"])
def test_the_first_fault_is_named_and_nothing_has_changed(four_threads, first, fault):
    model = {f"w{i}": array(i) for i in range(COUNT)}
    state = opt.setup(opt.Adam(), model)
    grads = {k: 0.5 + x for k, x in model.items()}
    opt.update_(state, model, grads)
    before = snapshot(model, state)
    for i in {first, first + 5, COUNT - 1}:
        key = f"w{i}"
        if fault == "shape":
            grads[key] = array(i, 3)
        elif fault == "complex":
            grads[key] = grads[key] + 1j
        elif fault == "read-only":
            model[key].flags.writeable = False
        elif fault == "overlap":
            grads[key] = model["w0"]
        elif fault == "moved and overlap":
            model[key] = model[key].copy()
            grads[key] = model["w0"]
    with pytest.raises(ValueError, match=f'"w{first}"'):
        opt.update_(state, model, grads)
    assert snapshot(model, state) == before


class Subclass(np.ndarray):
    pass


OTHERS = {
    "subclass": lambda x: x.view(Subclass),
    "integers": lambda x: np.rint(x).astype(np.int16),
    "half": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "strided": lambda x: np.repeat(x, 2)[::2],
    "tensor": lambda x: pytest.importorskip("torch").from_numpy(x.copy()),
    "jax": lambda x: pytest.importorskip("jax").numpy.asarray(x),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("at", [0, 4600])
def test_arrays_of_another_kind_among_many_are_what_they_are(four_threads, other, at):
    results = []
    for of_another_kind in (True, False):
        model = {f"w{i}": array(i) for i in range(COUNT)}
        state = opt.setup(opt.Adam(), model)
        grads = {k: 2 * x for k, x in model.items()}
        if of_another_kind:
            grads[f"w{at}"] = OTHERS[other](grads[f"w{at}"])
        for _ in range(2):
            opt.update_(state, model, grads)
        results.append(snapshot(model, state))
    assert results[0] == results[1]


def test_tensors_among_many_count_their_versions(four_threads):
    torch = pytest.importorskip("torch")
    model = {f"w{i}": array(i) for i in range(COUNT)}
    model["w4600"] = torch.from_numpy(model["w4600"])
    state = opt.setup(opt.Descent(0.5), model)
    version = model["w4600"]._version
    opt.update_(state, model, {k: np.ones(2, np.float32) for k in model})
    assert model["w4600"]._version > version
    assert all((np.asarray(x) == array(i) - 0.5).all() for i, x in enumerate(model.values()))


def test_many_parameters_may_be_their_own_gradients(four_threads):
    model = {f"w{i}": array(i) for i in range(COUNT)}
    opt.update_(opt.setup(opt.Descent(0.5), model), model, model)
    assert all((x == array(i) / 2).all() for i, x in enumerate(model.values()))


def test_the_first_parameter_a_strided_gradient_overlaps_is_named():
    memory = np.zeros((4, 12), np.float32)
    model = {f"w{i}": memory[:, i] for i in range(8)}
    state = opt.setup(opt.Descent(), model)
    grads = {f"w{i}": memory[:, 11 - i] for i in range(4)}
    opt.update_(state, model, grads)
    diagonals = (memory.ravel()[:40:13], memory.ravel()[3:40:11])
    for gradient, named in ((memory[:, 3], "w3"), (memory[:, 0], "w0"), (diagonals[0], "w0"), (diagonals[1], "w0")):
        grads["w1"] = gradient
        with pytest.raises(ValueError, match=f'"w1" overlaps the parameter at "{named}"'):
            opt.update_(state, model, grads)


@pytest.mark.parametrize(
    "broken, error, part",
    [
        (np.array(["a", "b"]), TypeError, "<U1"),
        (np.ones(2, np.dtype(np.float32).newbyteorder()), ValueError, "byte"),
        (np.ones(2, object), TypeError, "object"),
    ],
)
@pytest.mark.parametrize("at", [3, 8990])
def test_what_is_no_gradient_among_many_is_named(four_threads, broken, error, part, at):
    model = {f"w{i}": array(i) for i in range(COUNT)}
    state = opt.setup(opt.Adam(), model)
    before = snapshot(model, state)
    with pytest.raises(error, match=f'"w{at}".*{part}'):
        opt.update_(state, model, {k: broken if k == f"w{at}" else x for k, x in model.items()})
    assert snapshot(model, state) == before
