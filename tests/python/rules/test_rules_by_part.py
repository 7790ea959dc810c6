"""Rules by part: patterns, trees and functions that choose them, and leaves left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parts import Layer, ones

import optimisers as opt


def model() -> dict[str, Any]:
    def layer() -> dict[str, Any]:
        return {"weight": ones(2, 2), "bias": ones(2), "norm": {"g": ones(1)}}

    return {"enc": [layer(), layer()], "head": Layer(ones(2), ones(1)), "norm": ones(1)}


def etas(state: opt.State, m: Any = None) -> dict[str, Any]:
    """The rules' learning rates by path."""
    found = {}
    for path, _ in opt.trainables(m or model(), path=True):
        leaf = opt.getkeypath(state, path)
        found[str(path)] = None if leaf is None else leaf.rule.eta
    return found


def descents(rules: Any) -> Any:
    if isinstance(rules, dict):
        return {key: descents(rule) for key, rule in rules.items()}
    if isinstance(rules, (list, tuple)):
        return type(rules)(map(descents, rules))
    if isinstance(rules, Layer):
        return Layer(descents(rules.w), descents(rules.b))
    return opt.Descent(rules) if isinstance(rules, (int, float)) else rules


CASES = {
    "prefixes": ({"enc": 1, "head": 2, "norm": 3}, [1, 1, 1, 1, 1, 1, 2, 2, 3]),
    "default": ({"enc.1": 1, ...: 2}, [2, 2, 2, 1, 1, 1, 2, 2, 2]),
    "default_first": ({...: 2, "enc.1": 1}, [2, 2, 2, 1, 1, 1, 2, 2, 2]),
    "one_component": ({"enc.*.bias": 1, "enc.*.norm": 2, ...: 3}, [3, 1, 2, 3, 1, 2, 3, 3, 3]),
    "any_components": ({"**.norm": 1, ...: 2}, [2, 2, 1, 2, 2, 1, 2, 2, 1]),
    "any_below": ({"enc.**.g": 1, "**": 2}, [2, 2, 1, 2, 2, 1, 2, 2, 2]),
    "trailing": ({"enc.**": 1, "norm.**": 2, "head": 3}, [1, 1, 1, 1, 1, 1, 3, 3, 2]),
    "star_alone": ({"*.0": 1, "*": 2}, [1, 1, 1, 2, 2, 2, 2, 2, 2]),
    "order": ({"**.bias": 1, "enc": 2, ...: 3}, [2, 1, 2, 2, 1, 2, 3, 3, 3]),
    "none": ({"enc": None, ...: 1}, [None] * 6 + [1, 1, 1]),
    "nested": ({"enc": {"*.bias": 1, ...: {"0": 4, ...: 2}}, ...: 3}, [4, 1, 4, 2, 1, 2, 3, 3, 3]),
    "nested_patterns": ({"enc.*": {"bias": 1, "**.g": 2, ...: 3}, ...: 4}, [3, 1, 2, 3, 1, 2, 4, 4, 4]),
    "tree_in_dict": ({"enc": [1, {"bias": 2, ...: 3}], ...: 4}, [1, 1, 1, 3, 2, 3, 4, 4, 4]),
    "tree": ({"enc": (1, None), "head": Layer(2, None), "norm": 3}, [1] * 3 + [None] * 3 + [2, None, 3]),
}


@pytest.mark.parametrize("case", CASES)
def test_rules_by_part(case):
    rules, expected = CASES[case]
    assert list(etas(opt.setup(descents(rules), model())).values()) == expected


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"encc": 1, ...: 2}, r"'encc' catches nothing; the paths are enc\.0\.weight, .*norm$"),
        ({"en": 1, ...: 2}, "'en' catches nothing"),
        ({"enc": {"2": 1, ...: 2}, ...: 3}, r"'2' under \"enc\" catches nothing"),
        ({"enc": 1, "**.bias": 2, ...: 3}, r"'\*\*\.bias' catches nothing that an entry before it"),
        ({"enc": 1}, r"no rule for \"head\.w\".*nothing for head\.w, head\.b, norm; .*default"),
        ({"enc": {"0": 1}, ...: 2}, r"no rule for \"enc\.1\.weight\""),
        ({"": 1, ...: 2}, "empty component"),
        ({"a..b": 1, ...: 2}, "empty component"),
    ],
)
def test_what_catches_nothing_or_is_not_caught_is_an_error_that_lists_paths(rules, message):
    with pytest.raises(ValueError, match=message):
        opt.setup(descents(rules), model())


@pytest.mark.parametrize(
    "rules",
    [{"enc": "Adam", ...: 1}, {"enc": opt.Adam, ...: 1}, {"norm": [2], ...: 1}],
)
def test_what_is_no_rule_is_refused(rules):
    with pytest.raises(TypeError, match=r"enc|norm"):
        opt.setup(descents(rules), model())
    with pytest.raises(TypeError, match="rule"):
        opt.setup(None, model())


def test_keys_with_dots_are_read_as_paths():
    flat = {"enc.0.weight": ones(2), "enc.0.bias": ones(1), "enc.1.weight": ones(2), "head": ones(1)}
    rules = {
        "enc.0": {"bias": opt.Descent(1), ...: opt.Descent(2)},
        "enc.1.weight": opt.Descent(3),
        "*": opt.Descent(4),
    }
    assert list(etas(opt.setup(rules, flat), flat).values()) == [2, 1, 3, 4]
    assert list(etas(opt.setup({"enc": opt.Descent(1), ...: None}, flat), flat).values()) == [1, 1, 1, None]


def test_a_key_that_would_catch_more_as_a_pattern_is_an_error():
    m = {"*": ones(1), "a": ones(2)}
    with pytest.raises(ValueError, match=r"'\*' is a key of the model's own.*\"a\".*function"):
        opt.setup({"*": opt.Adam(), ...: opt.Adam()}, m)
    assert opt.setup({"*": opt.Adam()}, {"*": ones(1)})["*"].rule == opt.Adam()
    m = {"a.b": ones(1), "a": {"b": ones(2)}}
    with pytest.raises(ValueError, match="of the model's own"):
        opt.setup({"a.b": opt.Adam(), ...: opt.Adam()}, m)


def test_keys_that_are_no_text():
    m = {0: ones(1), ("a", 1): [ones(1)]}
    state = opt.setup({0: opt.Descent(1), ("a", 1): [opt.Descent(2)]}, m)
    assert (state[0].rule.eta, state["a", 1][0].rule.eta) == (1, 2)
    with pytest.raises(ValueError, match="5 catches nothing"):
        opt.setup({5: opt.Descent(1), ...: opt.Adam()}, m)


def test_a_tied_array_gets_the_rule_of_its_first_place():
    w = ones(2)
    m = {"a": w, "b": w, "c": ones(1)}
    state = opt.setup({"a": opt.Descent(1), "c": opt.Descent(2)}, m)
    assert state["b"].rule.eta == 1 and state["a"] is state["b"]


def test_a_bare_array_may_have_patterns():
    assert opt.setup({...: opt.Descent(1)}, ones(1)).rule.eta == opt.setup({"**": opt.Descent(1)}, ones(1)).rule.eta
    with pytest.raises(ValueError, match="the paths are the model"):
        opt.setup({"w": opt.Adam()}, ones(1))


def test_rules_of_a_deep_model():
    deep: Any = {"w": ones(1), "b": ones(1)}
    rules: Any = {"w": opt.Descent(1), ...: opt.Descent(2)}
    for _ in range(10_000):
        deep = {"n": deep}
    assert len(opt.trainables(deep)) == 2
    state = opt.setup({"**.b": opt.Descent(1), ...: opt.Descent(2)}, deep)
    assert "b" in repr(state)
    path, _ = opt.trainables(deep, path=True)[1]
    assert opt.getkeypath(state, path).rule.eta == 1
    for i in range(10_000):
        rules = {"n": rules, ...: None} if i % 2 else {"n": rules}
    assert opt.getkeypath(opt.setup(rules, deep), path).rule.eta == 2


def test_patterns_over_ten_thousand_leaves():
    m = {f"layer{i}": {f"p{j}": ones(1) for j in range(100)} for i in range(100)}
    found = list(etas(opt.setup(descents({"**.p7": 1, "layer3": 2, ...: 3}), m), m).values())
    assert [found.count(eta) for eta in (1, 2, 3)] == [100, 99, 9801]


def test_a_function_chooses_rules_by_path_and_array():
    model = {"enc": ones(2, 2), "bias": ones(2)}
    state = opt.setup(lambda path, x: opt.Adam() if x.ndim == 2 else opt.Descent(len(str(path))), model)
    assert (state.enc.rule, state.bias.rule) == (opt.Adam(), opt.Descent(4))
    with pytest.raises(TypeError, match="bias"):
        opt.setup(lambda path, x: opt.Adam() if x.ndim == 2 else 3, model)


def test_leaves_of_one_rule_with_different_switches_keep_their_own_slots_and_numbers():
    """Side by side they are what each is alone."""
    rules = [opt.RMSProp(centred=c) for c in (False, True, True, False, True)]
    model, alone = ([np.full(70, 1.0 + i) for i in range(5)] for _ in range(2))
    state = opt.setup(rules, model)
    for step in range(3):
        grads = [np.sin(np.arange(70.0) + i + step) for i in range(5)]
        opt.update_(state, model, grads)
    for i, rule in enumerate(rules):
        lone = opt.setup(rule, alone[i])
        for step in range(3):
            opt.update_(lone, alone[i], np.sin(np.arange(70.0) + i + step))
        assert model[i].tobytes() == alone[i].tobytes() and state[i].state._fields == lone.state._fields
        assert all(a.tobytes() == b.tobytes() for a, b in zip(state[i].state, lone.state, strict=True))
