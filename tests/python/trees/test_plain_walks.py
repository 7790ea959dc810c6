"""Dicts, lists and tuples of NumPy's arrays are read by a walk of their own: it takes what it takes as the general walk
does, and leaves alone what it does not."""

import numpy as np
import pytest

import optimisers as opt


def ones(n=2):
    return np.ones(n, np.float32)


def model_of_all_kinds():
    return {"a": ones(), "note": "kept", "b": [ones(), (ones(), 3), {"c": ones(), "none": None}], "d": {}}


def step(model, gradients, calls=1):
    state = opt.setup(opt.Descent(0.5), model)
    for _ in range(calls):
        opt.update_(state, model, gradients)


def leaves(model):
    return [model["a"][0], model["b"][0][0], model["b"][1][0][0], model["b"][2]["c"][0]]


def test_every_leaf_gets_its_gradient():
    model = model_of_all_kinds()
    b = (2 * ones(), [4 * ones(), None], {"c": 8 * ones(), "none": None})
    gradients = {"a": ones(), "note": None, "b": b, "d": None}
    step(model, gradients)
    assert leaves(model) == [0.5, 0, -1, -3]


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_missing_gradients(missing):
    model = model_of_all_kinds()
    gradients = model_of_all_kinds()
    if missing == 0:
        gradients["a"] = None
    elif missing == 1:
        gradients["b"][0] = None
    elif missing == 2:
        gradients["b"][1] = None
    else:
        del gradients["b"][2]["c"]
    step(model, gradients)
    assert leaves(model) == [1 if i == missing else 0.5 for i in range(4)]


def test_what_an_earlier_try_found_is_forgotten():
    """The first call gets as far as the last leaf before it sees that it is none of its own, and finds less then."""
    model = {f"w{i}": ones() for i in range(100)} | {"last": [ones()]}
    state = opt.setup(opt.Descent(0.5), model)
    gradients = {f"w{i}": ones() for i in range(100)} | {"last": [[1.0, 1.0]]}
    with pytest.raises((TypeError, ValueError), match="last"):
        opt.update_(state, model, gradients)
    del gradients["w3"]
    gradients["last"] = [ones()]
    opt.update_(state, model, gradients)
    assert [x[0] for x in list(model.values())[:5]] == [0.5, 0.5, 0.5, 1, 0.5] and model["last"][0][0] == 0.5


def test_a_dict_that_lost_keys_before_setup():
    model = {f"w{i}": ones() for i in range(100)}
    for i in range(0, 100, 3):
        del model[f"w{i}"]
    gradients = {k: 2 * x for k, x in model.items()}
    step(model, gradients)
    assert all(x[0] == 0 for x in model.values())


def test_keys_in_another_order():
    model = {f"w{i}": ones() for i in range(100)}
    gradients = {f"w{i}": (i + 1) * ones() for i in reversed(range(100))}
    step(model, gradients)
    assert [x[0] for x in model.values()] == [1 - 0.5 * (i + 1) for i in range(100)]


def test_keys_that_are_equal_and_not_identical():
    model = {f"w{i}": ones() for i in range(100)}
    step(model, {"".join(["w", str(i)]): (i + 1) * ones() for i in range(100)}, calls=40)
    assert [x[0] for x in model.values()] == [1 - 20.0 * (i + 1) for i in range(100)]


@pytest.mark.parametrize("calls_before", [0, 1])
def test_names_of_what_is_not_trained_are_checked_as_well(calls_before):
    model, gradients = model_of_all_kinds(), model_of_all_kinds()
    state = opt.setup(opt.Descent(0.5), model)
    for _ in range(calls_before):
        opt.update_(state, model, gradients)
    before = leaves(model)
    gradients["other"] = gradients.pop("d")
    with pytest.raises(ValueError, match="other"):
        opt.update_(state, model, gradients)
    gradients["d"] = gradients.pop("other")
    model["b"][2]["other"] = model["b"][2].pop("none")
    with pytest.raises(ValueError, match="'none'"):
        opt.update_(state, model, gradients)
    assert leaves(model) == before


class OtherArray(np.ndarray):
    pass


class OtherDict(dict):
    pass


def test_other_kinds_of_calls_in_between():
    """Calls that the plain walk does not take, more than it waits for before it looks again."""
    model = {f"w{i}": ones(1) for i in range(40)}
    state = opt.setup(opt.Descent(0.5), model)
    expected = 1.0
    for call in range(60):
        gradients = {k: ones(1) for k in model}
        if call % 20 == 3:
            gradients["w7"] = ones(1).view(OtherArray)
        if 20 < call < 40:
            gradients = OtherDict(gradients)
        opt.update_(state, model, gradients)
        expected -= 0.5
        assert all(x[0] == expected for x in model.values())
