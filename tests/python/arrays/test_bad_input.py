"""A call that raises names the path, what was expected and what came, and has changed nothing at all."""

import re
import warnings

import numpy as np
import pytest
from support import RULES, arrays, build, everything, fingerprint, layers, needed, sized, to_torch, trained

import optimisers as opt

COUNT = 20  # layers, so 40 leaves; the fault is at the last one
LAST = r"layers\.19\.bias"
USUAL = [("ClipNorm", {"omega": 1.0}), ("AdamW", {"lambda_": 0.01})]


def last(tree):
    return tree["layers"][-1]


@pytest.fixture
def model():
    return layers(COUNT)


@pytest.fixture
def state(model):
    return trained(build(USUAL), model)


@pytest.fixture
def grads():
    return layers(COUNT, "float32", 900)


def refuses(call, model, state, *parts, error=ValueError):
    """The call raises the error, its message has all parts, and nothing has changed; afterwards all works."""
    before = everything(model, state)
    with pytest.raises(error) as caught:
        call()
    assert everything(model, state) == before
    for part in parts:
        assert re.search(part, str(caught.value)), f"{part!r} is not in: {caught.value}"
    writeable = all(a.flags.writeable for a in arrays(model) if isinstance(a, np.ndarray))
    if writeable:
        opt.update_(state, model, layers(COUNT, "float32", 900))
        assert everything(model, state) != before


# ---------------------------------------------------------------------------------------------- gradients


def at_last_bias(value):
    def put(grads, model, state):
        last(grads)["bias"] = value(model, state) if callable(value) else value
        return grads

    return put


def extra_key(grads, model, state):
    last(grads)["gain"] = np.zeros(3, np.float32)
    return grads


def list_of_other_length(grads, model, state):
    grads["layers"].append({"weight": None, "bias": None})
    return grads


def dict_for_list(grads, model, state):
    return {"layers": {str(i): layer for i, layer in enumerate(grads["layers"])}}


def list_for_dict(grads, model, state):
    grads["layers"][-1] = [last(grads)["weight"], last(grads)["bias"]]
    return grads


def array_for_dict(grads, model, state):
    grads["layers"][-1] = np.zeros((5, 6), np.float32)
    return grads


def partial_view_of_last_weight(model, state):
    return last(model)["weight"].ravel()[3:9]


WRONG = (ValueError, TypeError)
BAD_GRADIENTS = {
    "wrong shape": (at_last_bias(np.zeros((6, 1), np.float32)), ValueError, (LAST, r"\(6, 1\)", r"\(6,\)")),
    "wrong length": (at_last_bias(np.zeros(5, np.float32)), ValueError, (LAST, r"\(5,\)", r"\(6,\)")),
    "shape that would broadcast": (at_last_bias(np.zeros(1, np.float32)), ValueError, (LAST, r"\(1,\)", r"\(6,\)")),
    "0-d": (at_last_bias(np.zeros((), np.float32)), ValueError, (LAST, r"\(\)", r"\(6,\)")),
    "complex for real": (at_last_bias(np.zeros(6, np.complex64)), WRONG, (LAST, "complex64", "float32")),
    "object dtype": (at_last_bias(np.zeros(6, object)), WRONG, (LAST, "object")),
    "string dtype": (at_last_bias(np.zeros(6, "U3")), WRONG, (LAST,)),
    "number": (at_last_bias(1.5), WRONG, (LAST, "float")),
    "list of numbers": (at_last_bias([1.0] * 6), WRONG, (LAST, "list")),
    "text": (at_last_bias("gradient"), WRONG, (LAST, "str")),
    "extra key": (extra_key, ValueError, (r"layers\.19", "gain")),
    "list of other length": (list_of_other_length, ValueError, ("layers", "20", "21")),
    "dict for list": (dict_for_list, WRONG, ("layers", "dict", "list")),
    "list for dict": (list_for_dict, WRONG, (r"layers\.19", "list", "dict")),
    "array for dict": (array_for_dict, WRONG, (r"layers\.19",)),
    "another parameter": (at_last_bias(lambda m, s: m["layers"][15]["bias"]), ValueError, (LAST, r"layers\.15\.bias")),
    "part of another parameter": (at_last_bias(partial_view_of_last_weight), ValueError, (LAST, r"layers\.19\.weight")),
    "a slot": (at_last_bias(lambda m, s: s["layers"][15]["bias"].state[1].m), ValueError, (LAST, r"\bm\b")),
    "its own slot": (at_last_bias(lambda m, s: last(s)["bias"].state[1].v), ValueError, (LAST, r"\bv\b")),
}


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("fault", BAD_GRADIENTS)
def test_bad_gradient_is_refused_and_changes_nothing(fault, pure, model, state, grads):
    put, error, parts = BAD_GRADIENTS[fault]
    assert last(model)["bias"].shape == (6,) == model["layers"][15]["bias"].shape
    bad = put(grads, model, state)
    if pure and ("parameter" in fault or "slot" in fault):  # nothing that is written is read: defined
        assert opt.update(state, model, bad)
        return
    refuses(lambda: (opt.update if pure else opt.update_)(state, model, bad), model, state, *parts, error=error)


def test_byte_swapped_gradient_is_converted_or_refused_never_misread(model, state, grads):
    twin, twin_state = layers(COUNT), None
    twin_state = trained(build(USUAL), twin)
    swapped = last(grads)["bias"].astype(">f4")
    before = everything(model, state)
    opt.update_(twin_state, twin, grads)
    try:
        opt.update_(state, model, {"layers": [*grads["layers"][:-1], last(grads) | {"bias": swapped}]})
    except WRONG as error:
        assert re.search(LAST, str(error)) and everything(model, state) == before
    else:
        assert fingerprint(model, state) == fingerprint(twin, twin_state)


def test_another_view_of_its_own_parameter_is_copied_first_or_refused(model, state, grads):
    twin = layers(COUNT)
    twin_state = trained(build(USUAL), twin)
    last(grads)["bias"] = last(twin)["bias"][::-1].copy()
    opt.update_(twin_state, twin, grads)
    last(grads)["bias"] = last(model)["bias"][::-1]
    before = everything(model, state)
    try:
        opt.update_(state, model, grads)
    except ValueError as error:
        assert re.search(LAST, str(error)) and everything(model, state) == before
    else:
        assert fingerprint(model, state) == fingerprint(twin, twin_state)


def test_tensor_gradient_of_wrong_shape_names_both_shapes():
    x = to_torch(sized((3, 4), "float32", 1))
    state, before = opt.setup(opt.Adam(), {"w": x}), x.clone()
    with pytest.raises(ValueError, match=r"w.*\(4, 3\).*\(3, 4\)"):
        opt.update_(state, {"w": x}, {"w": x.T.clone()})
    assert x.equal(before) and not state["w"].state.m.any()


# ------------------------------------------------------------------------------------- models changed since setup


def test_read_only_parameter_is_refused_naming_the_pure_form(model, state, grads):
    last(model)["bias"].setflags(write=False)
    refuses(lambda: opt.update_(state, model, grads), model, state, LAST, r"\bupdate\b")
    new_state, new_model = opt.update(state, model, grads)
    assert fingerprint(new_model, new_state) != fingerprint(model, state)


def test_read_only_parameter_without_gradient_is_left_alone(model, state, grads):
    last(model)["bias"].setflags(write=False)
    last(grads)["bias"] = None
    opt.update_(state, model, grads)


@pytest.mark.parametrize("replacement", [np.zeros((6, 1), np.float32), np.zeros(7, np.float32), np.zeros(6), None, 3.5])
def test_parameter_replaced_by_something_else_is_refused(replacement, model, state, grads):
    original = last(model)["bias"]
    before = everything(model, state)
    last(model)["bias"] = replacement
    with pytest.raises(WRONG, match=LAST):
        opt.update_(state, model, grads)
    last(model)["bias"] = original
    assert everything(model, state) == before


def test_parameter_replaced_by_an_equal_one_is_followed(model, state, grads):
    last(model)["bias"] = last(model)["bias"].copy()
    before = last(model)["bias"].copy()
    opt.update_(state, model, grads)
    assert not np.array_equal(last(model)["bias"], before)


def test_parameter_that_became_a_view_from_the_same_start_is_compared_again():
    buffer = np.ones(16, np.float32)
    model, grads = [buffer[::2], buffer[1::2]], [np.ones(8, np.float32)] * 2
    state = opt.setup(opt.Momentum(), model)
    opt.update_(state, model, grads)
    for other in (buffer[:8], np.lib.stride_tricks.as_strided(buffer, (8,), (0,))):
        before = everything([other, model[1]], state)
        with pytest.raises(ValueError, match=r"^update: arrays? at .*(share|overlaps)"):
            opt.update_(state, [other, model[1]], grads)
        assert everything([other, model[1]], state) == before
    whole = [np.ones(8, np.float32), model[1]]
    opt.update_(state, whole, grads)
    with pytest.raises(ValueError, match="overlaps itself"):
        opt.update_(state, [np.lib.stride_tricks.as_strided(whole[0], (8,), (0,)), model[1]], grads)


def test_model_of_another_structure_is_refused(model, state, grads):
    before = everything(model, state)
    shorter = {"layers": model["layers"][:-1]}
    with pytest.raises(WRONG, match="layers"):
        opt.update_(state, shorter, {"layers": grads["layers"][:-1]})
    assert everything(model, state) == before


# ------------------------------------------------------------------------------------------------------ setup


def overlapping(kind):
    base = np.ones(100, np.float32)
    matrix = np.ones((6, 6), np.float32)
    return {
        "shifted": (base[:60], base[40:]),
        "contained": (base, base[10:20]),
        "reshaped": (matrix, matrix.reshape(36)),
        "reversed": (base, base[::-1]),
        "interleaved": (base[::2], base[::3]),
        "other dtype": (base, base.view(np.float16)),
    }[kind]


@pytest.mark.parametrize("kind", ["shifted", "contained", "reshaped", "reversed", "interleaved", "other dtype"])
def test_parameters_that_overlap_in_part_are_refused_naming_both(kind):
    model = layers(COUNT)
    model["layers"][3]["weight"], last(model)["bias"] = overlapping(kind)
    with pytest.raises(ValueError, match=LAST) as caught:
        opt.setup(opt.Adam(), model)
    assert "layers.3.weight" in str(caught.value)


def unusable(kind):
    base = np.ones(16, np.float32)
    return {
        "self-overlapping": np.lib.stride_tricks.as_strided(base, (4, 4), (4, 4)),
        "stride 0": np.lib.stride_tricks.as_strided(base, (4, 4), (0, 4)),
        "byte-swapped": base.astype(">f4"),
        "object dtype": base.astype(object),
        "masked": np.ma.masked_greater(base, 0.5),
    }[kind]


@pytest.mark.parametrize("kind", ["self-overlapping", "stride 0", "byte-swapped", "object dtype", "masked"])
def test_parameter_that_cannot_be_trained_is_refused_at_setup(kind):
    model = layers(COUNT)
    last(model)["bias"] = unusable(kind)
    with pytest.raises(WRONG, match=LAST):
        opt.setup(opt.Adam(), model)


def test_what_a_mask_hides_counts_nowhere(model, state, grads):
    """An array without a mask is like any other, and masked integers are not trained."""
    plain, masked = np.ma.array(np.ones(2)), np.ma.array(np.arange(2), mask=[True, False])
    _, new = opt.update_(opt.setup(opt.Descent(1.0), [plain, masked]), [plain, masked], [np.ma.array(np.ones(2)), None])
    assert new[0].tolist() == [0, 0] and new[1] is masked
    last(grads)["bias"] = np.ma.array(last(grads)["bias"], mask=True)
    refuses(lambda: opt.update_(state, model, grads), model, state, "layers.19.bias", "masked", error=TypeError)
    with pytest.raises(ValueError, match='norm: array at "0" is a masked array'):
        opt.norm([np.ma.masked_less(np.ones(2), 2.0)])


def test_rprop_refuses_a_complex_leaf_at_setup():
    model = layers(COUNT)
    last(model)["bias"] = np.zeros(6, np.complex64)
    for rule in (opt.Rprop(), opt.OptimiserChain(opt.ClipGrad(), opt.Rprop()), opt.MixedPrecision(opt.Rprop())):
        with pytest.raises(WRONG, match=rf"(?s){LAST}.*complex|complex.*{LAST}"):
            opt.setup(rule, model)


@pytest.mark.parametrize("model", [{}, [], [None, {}]])
def test_model_without_anything_is_a_warning(model):
    with pytest.warns(UserWarning, match="no trained array"):
        opt.setup(opt.Adam(), model)


def test_model_with_leaves_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.setup(opt.Adam(), layers(2))


@pytest.mark.parametrize("rule", [0.1, "Adam", opt.Adam])
def test_setup_with_something_that_is_no_rule_is_refused(rule):
    with pytest.raises(WRONG):
        opt.setup(rule, np.ones(3))


# ------------------------------------------------------------------------------- adjust, freeze: names and values


def test_unknown_field_is_refused_and_the_fields_there_are_listed(model, state):
    parts = ("betta", "beta", "epsilon", "eta", "lambda", "omega")
    refuses(lambda: opt.adjust_(state, eta=0.5, betta=(0.5, 0.9)), model, state, *parts)
    refuses(lambda: opt.adjust(state, betta=(0.5, 0.9)), model, state, *parts)
    refuses(lambda: opt.adjust_(last(state)["bias"], rho=0.5), model, state, "rho", LAST)
    with pytest.raises(ValueError, match="betta"):
        opt.adjust(opt.Adam(), betta=0.5)


def test_learning_rate_where_no_rule_has_one_is_refused():
    x = np.ones(3)
    state = opt.setup(opt.WeightDecay(), x)
    with pytest.raises(ValueError, match="eta"):
        opt.adjust_(state, 0.5)


def test_structural_field_is_refused_with_the_reason():
    model = layers(COUNT)
    found = 0
    for name, cls in RULES.items():
        for field in cls.fields:
            if field.structural:
                found += 1
                state = trained(build((name, needed(name))), model)
                for call in (opt.adjust_, opt.adjust):
                    change = {field.name: not field.default}
                    refuses(lambda: call(state, **change), model, state, field.name, "slot")  # noqa: B023
    assert found


def test_freezing_or_adjusting_a_model_is_refused(model, state):
    adjusting = [lambda m: opt.adjust_(m, 0.1), lambda m: opt.adjust(m, 0.1)]
    for call in (opt.freeze_, opt.thaw_, opt.freeze, opt.thaw, *adjusting):
        for tree in (model, model["layers"][0], last(model)["bias"]):
            refuses(lambda: call(tree), model, state, "setup|state")  # noqa: B023


def test_pure_form_on_a_part_of_a_state_is_refused_naming_the_one_in_place(model, state):
    for part in (state["layers"], last(state), last(state)["bias"]):
        refuses(lambda: opt.adjust(part, 0.1), model, state, "adjust_")  # noqa: B023
        refuses(lambda: opt.freeze(part), model, state, "freeze_")  # noqa: B023
        refuses(lambda: opt.thaw(part), model, state, "thaw_")  # noqa: B023


def test_state_of_another_model_is_refused(model, state, grads):
    other = {"w": np.ones(3, np.float32)}
    refuses(lambda: opt.update_(state, other, {"w": np.ones(3, np.float32)}), model, state, error=WRONG)
    with pytest.raises(WRONG):
        opt.update_(model, state, grads)


def test_wrong_arguments_of_update_are_refused():
    model = {"w": np.ones(2)}
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(TypeError, match="state"):
        opt.update_(model, model, model)
    with pytest.raises(ValueError, match="keeps no gradient; pass the gradients"):
        opt.update_(state, model)
    with pytest.raises(TypeError, match="unexpected"):
        opt.update_(state, model, grads=None, other=1)
    assert opt.update_(state=state, model=model, grads=None)[1] is model
