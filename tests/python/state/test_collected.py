"""States in cycles are found by the garbage collector, through whatever they are held by."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import optimisers as opt


class Key:
    state: Any = None


class Mark(opt.Marker):
    pass


class Own(opt.Rule):
    def init(self, x):
        return Key()

    def apply(self, state, x, dx):
        return state, dx


class Array(np.ndarray):
    kept: Any = None


def through_a_key():
    key = Key()
    model = {key: np.ones(3)}
    key.state = opt.setup(opt.Adam(), model)
    opt.update_(key.state, model, model)
    return key


def through_a_key_of_a_deeper_dict():
    key = Key()
    key.state = opt.setup(opt.Adam(), [{"a": {key: np.ones(3), "b": np.ones(1)}}])
    return key


def through_a_marker():
    mark, model = Mark("e"), {"w": np.ones(3)}
    mark(model["w"])
    mark.state = opt.setup({mark: opt.Adam()}, model)
    return mark


def through_a_copy():
    """Two states with the same keys."""
    key = Key()
    model = {key: np.ones(3)}
    first = opt.setup(opt.Adam(), model)
    second, _ = opt.update(first, model, model)
    key.state = [first, second, opt.adjust(second, 0.5)]
    return key


def through_a_part():
    key = Key()
    key.state = opt.setup(opt.Adam(), {"a": {key: np.ones(3)}})["a"]
    return key


def through_what_a_rule_keeps():
    state = opt.setup(Own(), np.ones(3))
    key = state.state
    key.state = state
    return key


def through_re():
    array = np.ones(3).view(Array)
    array.kept = opt.destructure({"w": array, "v": array})
    return array


def through_a_key_of_re():
    key = Key()
    key.state = opt.destructure({key: np.ones(3)})[1]
    return key


def through_another_key_that_is_equal():
    """The key of a gradient's dict, which a state remembers."""

    class Text(str):
        state: Any = None

    model = {"w" * 3: np.ones(3)}
    key = Text("www")
    key.state = opt.setup(opt.Adam(), model)
    opt.update_(key.state, model, {key: np.ones(3)})
    return key


WAYS = [
    through_a_key,
    through_a_key_of_a_deeper_dict,
    through_a_marker,
    through_a_copy,
    through_a_part,
    through_what_a_rule_keeps,
    through_re,
    through_a_key_of_re,
    through_another_key_that_is_equal,
]


@pytest.mark.parametrize("make", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_cycle_is_collected(make):
    alive = weakref.ref(make())
    gc.collect()
    assert alive() is None


def test_what_is_reachable_is_left_alone():
    """Of two states with the same keys one is in a cycle that goes away, and the other goes on."""
    key = Key()
    model = {key: np.ones(3)}
    kept = opt.setup(opt.Momentum(1.0), model)
    key.state, _ = opt.update(kept, model, model)
    gone = weakref.ref(key.state)
    key.state = [key.state]
    key.state.append(key.state)
    key.state = None
    gc.collect()
    assert gone() is None
    opt.update_(kept, model, {key: np.ones(3)})
    assert not model[key].any() and kept[key].path == (key,)


def test_objects_that_were_never_initialised_are_collected():
    for cls in (opt.State, opt.Duplicated, type("Own", (opt._core.Handle,), {})):
        sub: Any = type("Sub", (cls,), {})
        empty = sub.__new__(sub)
        empty.own = empty
        del empty
    gc.collect()
