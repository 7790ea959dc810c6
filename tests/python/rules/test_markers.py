"""Markers: parts named where the model is built."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import optimisers as opt


def layer() -> dict[str, Any]:
    return {"w": np.ones(2), "b": np.ones(1), "f": np.tanh}


def test_marking_returns_the_argument_and_chooses_rules():
    enc, head = opt.Marker("enc"), opt.Marker("head")
    first = layer()
    assert enc(first) is first
    model = {"layers": [first, head(layer())], "x": enc(np.ones(3)), "y": np.ones(1)}
    state = opt.setup(
        {enc: opt.Descent(1), head: {"layers.*.b": opt.Descent(2), ...: None}, ...: opt.Descent(3)}, model
    )
    assert [state["layers"][0][k].rule.eta for k in "wb"] == [1, 1] and state["x"].rule.eta == 1
    assert state["layers"][1]["w"] is None and state["layers"][1]["b"].rule.eta == 2 and state["y"].rule.eta == 3


@pytest.mark.parametrize("order", [0, 1])
def test_with_several_markers_the_first_in_dict_order_wins(order):
    marks = [opt.Marker("a"), opt.Marker("b")]
    model = [marks[0](marks[1](np.ones(1))), marks[0](np.ones(1)), marks[1](np.ones(1))]
    rules = {marks[order]: opt.Descent(1), marks[1 - order]: opt.Descent(2)}
    state = opt.setup(rules, model)
    assert state[0].rule.eta == 1 and {state[1].rule.eta, state[2].rule.eta} == {1, 2}


def test_markers_mix_with_patterns():
    enc = opt.Marker("enc")
    model = {"a": enc(layer()), "c": layer()}
    state = opt.setup({"**.b": opt.Descent(1), enc: opt.Descent(2), ...: opt.Descent(3)}, model)
    assert [state[k][j].rule.eta for k in "ac" for j in "wb"] == [2, 1, 3, 1]
    with pytest.raises(ValueError, match=r"Marker\('enc'\).* that an entry before it did not catch"):
        opt.setup({"a": opt.Descent(1), enc: opt.Descent(2), ...: opt.Descent(3)}, model)


def test_a_marker_that_catches_nothing_and_leaves_without_a_rule_are_errors():
    enc, other = opt.Marker("enc"), opt.Marker("other")
    model = {"a": enc(layer()), "b": layer()}
    with pytest.raises(ValueError, match=r"Marker\('other'\) catches nothing.*a\.w, a\.b, b\.w, b\.b"):
        opt.setup({other: opt.Adam(), ...: opt.Adam()}, model)
    with pytest.raises(ValueError, match=r"no rule for \"b\.w\""):
        opt.setup({enc: opt.Adam()}, model)


def test_marks_are_those_of_the_moment():
    enc = opt.Marker("enc")
    model = {"a": enc(layer())}
    model["a"]["new"] = np.ones(1)
    with pytest.raises(ValueError, match=r"no rule for \"a\.new\""):
        opt.setup({enc: opt.Adam()}, model)
    enc(model)
    assert opt.setup({enc: opt.Adam()}, model)["a"]["new"].rule == opt.Adam()


def test_marks_keep_nothing_alive_and_end_with_the_array():
    enc = opt.Marker("enc")
    x = enc(np.ones(3))
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None and not enc._arrays
    marker = weakref.ref(enc)
    del enc
    gc.collect()
    assert marker() is None


def test_what_holds_no_array_cannot_be_marked():
    for nothing in (3, [], {"f": np.sin}, np.arange(3), None):
        with pytest.raises(ValueError, match="no trained array"):
            opt.Marker("m")(nothing)
    with pytest.raises(TypeError, match="name"):
        opt.Marker(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("second", [False, True])
def test_a_tied_array_is_marked_at_any_of_its_places(second):
    w = np.ones((2, 3))
    model = {"a": w, "b": w.T, "c": np.ones(1)}
    tied = opt.Marker("tied")
    tied(model["b" if second else "a"])
    state = opt.setup({tied: opt.Descent(1), ...: opt.Descent(2)}, model)
    assert (state["a"].rule.eta, state["b"].rule.eta, state["c"].rule.eta) == (1, 1, 2)


def test_tensors_can_be_marked():
    enc = opt.Marker("enc")
    net = {"w": enc(torch.nn.Parameter(torch.ones(2))), "v": torch.ones(1)}
    assert opt.setup({enc: opt.Descent(1), ...: opt.Descent(2)}, net)["w"].rule.eta == 1


def marked_state() -> tuple[opt.Marker, dict[str, Any], Any]:
    enc = opt.Marker("enc")
    model = {"rest": np.ones(1), "enc": enc(layer()), "also": enc(np.ones(2))}
    return enc, model, opt.setup(opt.Adam(), model)


def test_marked_leaves_can_be_adjusted_frozen_and_thawed():
    enc, _, state = marked_state()
    marked = state.marked(enc)
    assert [str(leaf.path) for leaf in marked] == ["enc.w", "enc.b", "also"] and len(marked) == 3
    assert opt.adjust_(marked, 0.5) is marked
    assert [state["rest"].rule.eta, state["enc"]["w"].rule.eta, state["also"].rule.eta] == [1e-3, 0.5, 0.5]
    opt.freeze_(marked)
    assert [state[k].frozen for k in ("rest", "also")] == [False, True]
    opt.thaw_(state.marked("enc"))
    assert not state["also"].frozen
    with pytest.raises(ValueError, match=r"Marker\('enc'\).*betta"):
        opt.adjust_(marked, betta=1)


def test_marked_leaves_are_no_part_of_a_model():
    enc, model, state = marked_state()
    marked = state.marked(enc)
    for call in (opt.update_, opt.update):
        with pytest.raises(ValueError, match="marked leaves are no part"):
            call(marked, model, None)
    for call in (opt.freeze, opt.thaw, lambda s: opt.adjust(s, 0.1)):
        with pytest.raises(ValueError, match="part of a state tree"):
            call(marked)
    with pytest.raises(ValueError, match="on the whole"):
        state["enc"].marked(enc)
    with pytest.raises(ValueError, match=r"Marker\('x'\) marked no array.*Marker\('enc'\)"):
        state.marked(opt.Marker("x"))
    flat, re = opt.destructure(model)
    with pytest.raises(ValueError, match="marked leaves are no part"):
        opt.update_(opt.setup(opt.Adam(), flat, layout=re).marked(enc), flat, flat)


def test_marks_stay_with_copies_and_pickles_of_the_state():
    enc, model, state = marked_state()
    new, _ = opt.update(state, model, None)
    for other in (new, copy.deepcopy(state), pickle.loads(pickle.dumps(state)), opt.adjust(state, 0.1)):
        opt.freeze_(other.marked(enc))
        assert other["also"].frozen and not other["rest"].frozen
    assert copy.deepcopy(enc) is enc and pickle.loads(pickle.dumps(enc)) is enc and not state["also"].frozen
    assert len(pickle.loads(pickle.dumps(state.marked(enc)))) == 3


def test_marks_count_leaves_that_have_a_state():
    enc, model, _ = marked_state()
    state = opt.setup({"rest": None, "enc.w": None, ...: opt.Adam()}, model)
    assert [str(leaf.path) for leaf in state.marked(enc)] == ["enc.b", "also"]
