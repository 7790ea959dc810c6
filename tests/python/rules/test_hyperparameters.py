"""Hyperparameters out of range or of the wrong kind: refused with rule, field, value and range, whatever the way."""

import math

import pytest
from support import RULES, build, everything, layers, needed, trained

import optimisers as opt

WRONG = (ValueError, TypeError)

NAN, INF = math.nan, math.inf
BAD_NUMBERS = {
    "nonnegative": [-1e-300, -1.0, NAN, INF, -INF],
    "positive": [0.0, -1.0, NAN, INF],
    "unit": [-0.1, 1.0, 1.5, NAN, INF],
    "count": [0, -1],
    "norm_order": [0.0, NAN],
}
BAD_PAIRS = {
    "factors": [(0.0, 1.2), (-0.5, 1.2), (1.1, 1.2), (0.5, 0.9), (NAN, 1.2), (0.5, NAN), (0.5, INF)],
    "interval": [(2.0, 1.0), (0.0, -1e-300), (NAN, 1.0), (0.0, NAN), (0.0, INF), (-INF, 0.0)],
    "ordered": [(-1.0, 1.0), (2.0, 1.0), (NAN, 1.0), (0.0, NAN), (0.0, INF)],
}
EDGES = {
    "nonnegative": [0.0, 1e300],
    "positive": [1e-300, 1e300],
    "unit": [0.0, math.nextafter(1.0, 0.0)],
    "count": [1, 2**40],
    "norm_order": [INF, -INF, -0.5, 1e-3],
    "factors": [(1.0, 1.0), (1e-9, 1e9)],
    "ordered": [(0.0, 0.0), (2.0, 2.0)],
    "interval": [(-1.0, -1.0), (0.0, 0.0), (-1e300, 1e300)],
}
FIELDS = [(name, field) for name in RULES for field in RULES[name].fields]
EVERY_FIELD = pytest.mark.parametrize("name, field", FIELDS, ids=lambda v: v if isinstance(v, str) else v.name)


def bad_values(field):
    if field.kind == "pair":
        good = field.default
        numbers = BAD_NUMBERS.get(field.range, [])
        return BAD_PAIRS.get(field.range, []) + [(n, good[1]) for n in numbers] + [(good[0], n) for n in numbers]
    return ["everywhere"] if field.kind == "word" else BAD_NUMBERS.get(field.range, [])


def wrong_kinds(field):
    if field.kind == "pair":
        return [(0.5,), (0.5, 0.5, 0.5), (), 0.5, "ab", None]
    special = {"int": ["3", 1.5, None], "bool": ["yes", 0.5, None], "word": [3, None]}
    return special.get(field.kind, ["0.1", (0.1, 0.2), None, 1j])


@EVERY_FIELD
def test_value_out_of_range_is_refused_with_rule_field_and_value(name, field):
    values = bad_values(field)
    assert values or field.kind == "bool", f"no bad value is known for range {field.range!r}: add it to the tables"
    for value in values:
        with pytest.raises(ValueError) as caught:
            RULES[name](**(needed(name) | {field.name: value}))
        message = str(caught.value)
        shown = [value] if not isinstance(value, tuple) else value
        assert name in message and field.name.rstrip("_") in message, message
        assert any(str(v) in message or repr(v) in message or f"{v:g}" in message for v in shown), message


@EVERY_FIELD
def test_value_of_the_wrong_kind_is_refused(name, field):
    for value in wrong_kinds(field):
        with pytest.raises(WRONG, match=field.name.rstrip("_")):
            RULES[name](**(needed(name) | {field.name: value}))


@EVERY_FIELD
def test_value_at_the_edge_of_its_range_is_accepted(name, field):
    for value in EDGES.get(field.range, []):
        value = (value, value) if field.kind == "pair" and not isinstance(value, tuple) else value
        assert getattr(RULES[name](**(needed(name) | {field.name: value})), field.name) == value


@EVERY_FIELD
def test_adjusting_out_of_range_changes_nothing(name, field):
    if field.structural:
        return  # refused whatever the value
    model = layers(3)
    state = trained(build((name, needed(name))), model)
    before = everything(model, state)
    for value in bad_values(field) + wrong_kinds(field):
        for call in (opt.adjust_, opt.adjust):
            with pytest.raises(WRONG):
                call(state, **{field.name: value})
            assert everything(model, state) == before


def test_one_bad_value_among_good_ones_changes_nothing():
    model = layers(3)
    state = trained(build([("ClipNorm", {}), ("AdamW", {})]), model)
    before = everything(model, state)
    for change, field in (({"eta": 0.5, "epsilon": -1.0}, "epsilon"), ({"omega": 0.5, "eta": NAN}, "eta")):
        with pytest.raises(ValueError, match=field):
            opt.adjust_(state, **change)
        assert everything(model, state) == before


def test_unknown_and_surplus_arguments_of_a_rule_are_refused():
    for name, cls in RULES.items():
        with pytest.raises(WRONG, match="betta"):
            cls(**needed(name), betta=0.5)
        with pytest.raises(WRONG):
            cls(*[0.5] * (len(cls.fields) + 1))


def test_accumulation_without_its_number_is_refused():
    with pytest.raises(WRONG, match="n"):
        opt.AccumGrad()


@pytest.mark.parametrize("dtype", ["int32", "float31", 3])
def test_mixed_precision_in_an_unusable_dtype_is_refused(dtype):
    with pytest.raises(WRONG, match=str(dtype)):
        opt.MixedPrecision(opt.Adam(), dtype)


def test_mixed_precision_inside_another_rule_is_refused():
    mixed = opt.MixedPrecision(opt.Adam())
    for inner in (lambda: opt.OptimiserChain(opt.ClipGrad(), mixed), lambda: opt.MixedPrecision(mixed)):
        with pytest.raises(WRONG, match="MixedPrecision"):
            inner()


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_impossible_number_of_threads_is_refused(count, threads):
    before = opt.get_num_threads()
    with pytest.raises(WRONG):
        opt.set_num_threads(count)
    assert opt.get_num_threads() == before
