"""What is asked of every leaf one after the other takes as long as there are leaves: no call looks at the whole tree.

Each of these took minutes when it did.
"""

import pickle

import numpy as np
import pytest

import optimisers as opt

COUNT = 100_000


@pytest.fixture(scope="module", params=["list", "dict", "tied"])
def many(request):
    arrays = [np.zeros(1, np.float32) for _ in range(COUNT)]
    if request.param == "tied":
        arrays[-1] = arrays[0]
    model = arrays if request.param != "dict" else {f"layer{i}": x for i, x in enumerate(arrays)}
    return opt.setup(opt.Momentum(), model), list(model) if request.param == "dict" else range(COUNT)


def test_reading_leaf_after_leaf(many):
    state, keys = many
    assert all(state[key].clock == () for key in keys)
    assert all(state[key].frozen is False for key in keys)


def test_slots_and_rules_of_every_leaf(many):
    state, keys = many
    rule = opt.Momentum()
    assert all(state[key].rule == rule for key in keys[::3])
    assert sum(state[key].state.v.size for key in keys[::3]) == len(keys[::3])


def test_pickles_and_texts(many):
    state, keys = many
    text, data = repr(state), pickle.dumps(state)
    twin = pickle.loads(data)
    assert repr(twin) == text and len(twin) == len(keys) and twin[keys[-1]].rule == opt.Momentum()


def test_a_pickle_is_a_few_bytes_a_leaf(many):
    state, keys = many
    assert len(pickle.dumps(state)) < 60 * len(keys)
