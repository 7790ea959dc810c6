"""Text from outside: surrogates as in names from a file system, NULs, objects that cannot be printed."""

import re
from collections import namedtuple
from dataclasses import make_dataclass
from typing import Any

import numpy as np
import pytest

import optimisers as opt
from optimisers import _core


class Mute:
    """A key without a text."""

    def __str__(self):
        raise LookupError("no text")

    __repr__ = __str__


class Number:
    def __str__(self):
        return 3

    __repr__ = __str__


KEYS = [
    ("\udc80", r"\\udc80"),
    ("a\udcffb", r"a\\udcffb"),
    ("layer\0one", r"layer\\x00one"),
    ("two\nlines\t", r"two\\nlines\\t"),
    ("\x1b[31m", r"\\x1b\[31m"),
    (Mute(), "<Mute object>"),
    (Number(), "<Number object>"),
    ("ä", "ä"),
    (("a", "\udc80"), r"\('a', '\\udc80'\)"),
]


@pytest.mark.parametrize(("key", "shown"), KEYS, ids=[shown for _, shown in KEYS])
def test_errors_show_any_key_escaped_and_whole(key, shown):
    model = {key: np.ones(2)}
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(ValueError, match=rf'gradient at "{shown}" has shape \(3,\), parameter has \(2,\)'):
        opt.update_(state, model, {key: np.ones(3)})
    with pytest.raises(ValueError, match="its keys there are .*" if key == "ä" else "its keys there are "):
        opt.update_(state, model, {"other": np.ones(2)})
    with pytest.raises(ValueError, match="has lost its key"):
        opt.update_(state, {"other": np.ones(2)}, {})
    with pytest.raises(ValueError, match=rf'"{shown}"'):
        opt.setup(opt.Adam(), {key: np.ones(2, ">f8")})
    assert re.search(shown, repr(state)) and state[key].path == (key,)
    opt.update_(state, model, {key: np.ones(2)})


@pytest.mark.parametrize(("key", "shown"), KEYS, ids=[shown for _, shown in KEYS])
def test_paths_and_patterns_take_any_key(key, shown):
    model = {key: [np.ones(2)], "b": np.ones(3)}
    assert str(opt.trainables(model, path=True)[0][0]).endswith(".0")
    assert opt.setup({"b": opt.Adam(), ...: opt.Descent()}, model)[key][0].rule == opt.Descent()
    assert opt.setup({"**.0": opt.Adam(), ...: opt.Descent()}, model)[key][0].rule == opt.Adam()
    with pytest.raises(ValueError, match="catches nothing"):
        opt.setup({"c": opt.Adam(), ...: opt.Descent()}, model)
    with pytest.raises(ValueError, match="no rule for"):
        opt.setup({"b": opt.Adam()}, model)


def test_a_surrogate_is_a_pattern_like_any_text():
    model = {"\udc80": {"w": np.ones(2)}, "b": np.ones(3)}
    assert opt.setup({"\udc80.w": opt.Adam(), ...: opt.Descent()}, model)["\udc80"]["w"].rule == opt.Adam()
    with pytest.raises(ValueError, match=r"'\\udc81' catches nothing"):
        opt.setup({"\udc81": opt.Adam(), ...: None}, model)


@pytest.mark.parametrize("name", ["\udc80", "enc\0one", "a\nb"])
def test_markers_have_any_name(name):
    marker = opt.Marker(name)
    model = {"w": marker(np.ones(2))}
    state = opt.setup({marker: opt.Adam()}, model)
    assert repr(name) in repr(state.marked(marker)) and repr(name) in repr(marker)
    with pytest.raises(ValueError, match="marked leaves are no part"):
        opt.update_(state.marked(marker), model, {})
    assert isinstance(state._core.path_text(state.marked(marker)._node), str)


def test_field_names_that_are_no_identifiers():
    """Dataclasses and named tuples check theirs; what is put there later is not checked."""
    cls: Any = make_dataclass("Layer", [("w", Any)])
    field = cls.__dataclass_fields__.pop("w")
    field.name = "\udc80"
    cls.__dataclass_fields__["\udc80"] = field
    layer = cls(np.ones(2))
    setattr(layer, "\udc80", np.ones(3))
    state = opt.setup(opt.Descent(1.0), layer)
    with pytest.raises(ValueError, match=r'gradient at "\\udc80" has shape'):
        opt.update_(state, layer, {"\udc80": np.ones(2)})
    assert opt.update_(state, layer, {"\udc80": np.ones(3)})[1] is layer and not getattr(layer, "\udc80").any()


def test_named_tuples_with_more_names_than_items():
    short: Any = namedtuple("short", ["w", "b"])
    short._fields = ("w", "b", "\udc80", "more")
    model = short(np.ones(2), np.ones(3))
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match="has length 2, had 4"):
        opt.update_(state, model, None)
    opt.trainables(model)


def test_arguments_that_are_no_utf8():
    with pytest.raises(ValueError, match=r"scope.*\\udc80"):
        opt.ClipNorm(1.0, scope="\udc80")
    with pytest.raises(ValueError, match=r"scope.*le\\x00af"):
        opt.ClipNorm(1.0, scope="le\0af")
    with pytest.raises(TypeError, match=r"eta must be a number, got '\\udc80'"):
        opt.Adam("\udc80")
    with pytest.raises(TypeError, match="eta must be a number, got <Mute object>"):
        opt.Adam(Mute())
    with pytest.raises(TypeError, match=r"unexpected keyword argument '\\udc80'"):
        opt.update_(opt.setup(opt.Adam(), np.ones(2)), np.ones(2), **{"\udc80": 1})
    with pytest.raises(ValueError, match=r"\\udc80"):
        _core.RuleValue("Adam", {"\udc80": 1})
    with pytest.raises((TypeError, ValueError)):
        _core.RuleValue("\udc80", {})
    with pytest.raises(ValueError, match="dtype must be"):
        opt.MixedPrecision(opt.Adam(), "\udc80")
    with pytest.raises(ValueError, match=r"no rule has a field|no field|has a field"):
        opt.adjust_(opt.setup(opt.Adam(), np.ones(2)), **{"\udc80": 1})


def test_what_prints_with_an_interrupt_is_not_swallowed():
    class Stopped:
        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opt.setup(opt.Adam(), {Stopped(): np.ones(2, ">f8")})


def test_classes_with_odd_names():
    odd = type("ä" * 40, (), {"__dlpack__": None})
    with pytest.raises(TypeError, match="ä" * 40):
        opt.setup(opt.Adam(), {"w": odd()})
