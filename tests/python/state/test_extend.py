"""What came to be trained after setup: refused by name, and given a state by extend_, which keeps what is there."""

import copy
import dataclasses
import gc
import pickle
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support import bits, slots

import optimisers as opt

RULE = opt.Adam(0.1)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape or (2,), np.float32)


def seen(leaf: Any) -> Any:
    return bits(slots(leaf)), repr(leaf.clock), repr(leaf.rule), leaf.frozen


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass
class Layer:
    w: Any
    b: Any


# ------------------------------------------------------------------------------------- refused until it is extended


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def backward(model: torch.nn.Module) -> None:
    model(torch.ones(2, 3)).sum().backward()


def unfreeze_a_part(model):
    model[0].requires_grad_(False)
    yield
    model[0].requires_grad_(True)


def unfreeze_one(model):
    model[2].bias.requires_grad_(False)
    yield
    model[2].bias.requires_grad_(True)


def register_at_a_name_that_was_none(model):
    yield
    model[0].bias = torch.nn.Parameter(torch.zeros(4))


def register_a_name(model):
    yield
    model[1].scale = torch.nn.Parameter(torch.ones(1))


def register_a_module(model):
    yield
    model.append(torch.nn.Linear(1, 1))


CHANGES = {f.__name__: f for f in (unfreeze_a_part, unfreeze_one, register_at_a_name_that_was_none, register_a_name,
                                   register_a_module)}  # fmt: skip
PATHS = dict(zip(CHANGES, [["0.weight"], ["2.bias"], ["0.bias"], ["1.scale"], ["3.weight", "3.bias"]], strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_what_requires_a_gradient_or_is_registered_after_setup(change):
    model = net()
    steps = CHANGES[change](model)
    next(steps)
    state = opt.setup(RULE, model)
    for _ in range(2):
        backward(model)
        opt.update_(state, model, zero_grad=True)
    next(steps, None)
    backward(model)
    before = bits([p.detach() for p in model.parameters()])
    for call in (lambda: opt.update_(state, model), lambda: opt.update(state, model)):
        with pytest.raises(ValueError, match=r"extend_\(state, model\)") as caught:
            call()
        assert any(path in str(caught.value) for path in [*PATHS[change], *(p.rsplit(".")[0] for p in PATHS[change])])
        assert bits([p.detach() for p in model.parameters()]) == before
    kept = {leaf.path: seen(leaf) for leaf in every_leaf(state)}
    assert opt.extend_(state, model) is state
    after = {leaf.path: seen(leaf) for leaf in every_leaf(state)}
    fresh = {path for path in after if path not in kept}
    assert {str(path) for path in fresh} == set(PATHS[change])
    assert {path: after[path] for path in kept} == kept
    assert all("beta1_t=1.0" in after[path][1] for path in fresh)
    opt.update_(state, model)
    assert bits([p.detach() for p in model.parameters()]) != before


def every_leaf(state: Any) -> list[Any]:
    if isinstance(state, opt.Leaf) or state is None:
        return [state] if state else []
    return [leaf for key in state for leaf in every_leaf(state[key])]


@pytest.mark.parametrize("at_setup", [None, 1.5, 3, np.arange(3), "name", {}, [], [1.0], {"a": None}])
@pytest.mark.parametrize("around", [lambda x: {"w": ones(), "new": x}, lambda x: [ones(), x], lambda x: (ones(), [x]),
                                    lambda x: Pair(ones(), x), lambda x: Layer(ones(), {"in": x})],
                         ids=["dict", "list", "tuple", "named tuple", "dataclass"])  # fmt: skip
def test_an_array_where_there_was_none(around, at_setup):
    state = opt.setup(RULE, around(at_setup))
    model, gradient = around(ones(3)), around(ones(3))
    with pytest.raises(ValueError, match="extend_"):
        opt.update_(state, model, gradient)
    if not isinstance(at_setup, (dict, list)):  # there only gradients tell
        with pytest.raises(ValueError, match=r"is trained now, and .*was.* at setup; extend_"):
            opt.update_(state, model, None)
    opt.extend_(state, model)
    opt.update_(state, model, gradient)
    assert all(x[0] == np.float32(1 - 0.1) for x in opt.trainables(model))


def test_a_new_key_is_named():
    model = {"w": ones(), "enc": {"w": ones()}}
    state = opt.setup(RULE, model)
    model["enc"]["bias"] = ones()
    with pytest.raises(ValueError, match=r"model at \"enc\" has 2 keys, had 1: 'bias' is new; call extend_"):
        opt.update_(state, model, {"w": ones()})


def test_tensors_in_a_list_that_was_empty_are_found_without_a_gradient_tree():
    model = {"w": torch.ones(2, requires_grad=True), "rest": []}
    state = opt.setup(RULE, model)
    model["rest"].append(torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match=r'"rest.0" is trained now'):
        opt.update_(state, model)


# --------------------------------------------------------------------------------------------- what is kept


def test_extending_keeps_slots_clocks_rules_and_marks_and_forgets_what_is_gone():
    model = {"a": ones(), "b": ones(), "c": ones(3), "gone": ones()}
    state = opt.setup(opt.OptimiserChain(opt.ClipGrad(5.0), opt.AccumGrad(2), opt.Adam(0.1)), model)
    for _ in range(3):
        opt.update_(state, model, {key: x + 1 for key, x in model.items()})
    opt.adjust_(state["a"], 0.01)
    opt.freeze_(state["b"])
    kept = {key: seen(state[key]) for key in "abc"}
    del model["gone"]
    model = {"new": ones(5), **dict(reversed(model.items()))}
    opt.extend_(state, model)
    assert {key: seen(state[key]) for key in "abc"} == kept
    assert list(state) == ["new", "c", "b", "a"] and state["new"].rule == opt.setup(state["c"].rule, ones()).rule
    assert not any(x.any() for x in slots(state["new"]))


def test_an_extended_state_continues_as_one_that_had_all_from_the_start():
    for rule in (opt.Adam(0.1), opt.MixedPrecision(opt.Momentum(0.1)), opt.OptimiserChain(opt.ClipNorm(), opt.Lion())):
        grown, whole = ({"w": ones().astype(np.float16), "b": x} for x in (None, ones(3).astype(np.float16)))
        state, other = opt.setup(rule, grown), opt.setup(rule, whole)
        for step in range(6):
            if step == 3:
                grown["b"] = whole["b"].copy()
                opt.extend_(state, grown)
            gradient = {"w": np.full(2, 1 + step, np.float16)}
            if step >= 3:
                gradient["b"] = np.full(3, step, np.float16)
            opt.update_(state, grown, gradient)
            opt.update_(other, whole, gradient)
        assert bits(grown, slots(state["w"]), slots(state["b"])) == bits(whole, slots(other["w"]), slots(other["b"]))


def test_rules_of_ones_own_keep_their_states_and_are_asked_for_new_leaves_only():
    asked = []

    class Counting(opt.Rule):
        def init(self, x):
            asked.append(x.shape)
            return 0

        def apply(self, state, x, dx, *higher):
            return state + 1, dx

    model = {"w": ones(2)}
    state = opt.setup(opt.OptimiserChain(opt.Momentum(), Counting()), model)
    opt.update_(state, model, model)
    model["b"] = ones(3)
    opt.extend_(state, model)
    assert asked == [(2,), (3,)] and [state[key].state[1] for key in "wb"] == [1, 0]


def test_ties_keep_their_one_state_and_separated_ones_take_a_copy():
    w = ones(2, 3)
    model = {"a": w, "b": w.T, "c": ones()}
    state = opt.setup(opt.Momentum(0.1), model)
    opt.update_(state, model, {"a": ones(2, 3)})
    v = state["a"].state.v.copy()
    opt.extend_(state, model)
    assert state["a"] is state["b"] and np.array_equal(state["a"].state.v, v)
    model["d"] = w
    opt.extend_(state, model)
    assert state["a"] is state["d"] and np.array_equal(state["a"].state.v, v)
    with pytest.raises(ValueError, match='"b" has its axes in another order'):
        opt.extend_(state, {"b": np.ascontiguousarray(w.T)})
    opt.extend_(state, {"a": w, "d": w.copy()})
    assert state["a"] is not state["d"] and np.array_equal(state["d"].state.v, v)


# ----------------------------------------------------------------------------------------- which rule the new get


def test_new_leaves_get_the_rule_that_setup_would_have_given_them():
    part, own = opt.Marker("part"), opt.Marker("unused here")
    own(keep := ones())
    rules = {
        "one rule": (opt.Adam(), opt.Adam()),
        "function": (lambda path, x: opt.Lion() if path[-1] == "b" else opt.Adam(), opt.Lion()),
        "patterns": ({"**.w": opt.Adam(), "gone": opt.Descent(), ...: opt.Lion()}, opt.Lion()),
        "tree": ({"enc": {"w": opt.Adam(), ...: opt.Lion()}, "gone": None}, opt.Lion()),
        "default": ({"enc.w": opt.Adam(), ...: opt.Descent(0.5)}, opt.Descent(0.5)),
        "part": ({"enc": opt.Lion(), "gone": opt.Descent()}, opt.Lion()),
        "None": ({"enc.w": opt.Adam(), ...: None}, None),
        "markers": ({part: opt.Lion(), ...: opt.Adam()}, opt.Lion()),
    }
    for name, (rule, expected) in rules.items():
        model = {"enc": {"w": ones()}, "gone": part(ones())}
        state = opt.setup(rule, model)
        del model["gone"]
        model["enc"]["b"] = part(ones())
        opt.extend_(state, model)
        assert (state["enc"]["b"] and state["enc"]["b"].rule) == expected, name
        if name == "markers":
            assert [leaf.path for leaf in state.marked(part)] == [("enc", "b")]
    assert keep.any()


def test_a_rule_given_with_the_call_is_for_the_new_leaves_alone():
    model: dict[str, Any] = {"enc": ones()}
    state = opt.setup({"enc": opt.Adam()}, model)
    model |= {"head": ones(), "other": [ones()]}
    for bad, error in [
        (None, '^extend_: no rule for "head".*pass rule='),
        ({"head": opt.Lion()}, '^extend_: no rule for "other.0"'),
        ({"enc": opt.Lion(), ...: opt.Lion()}, "^extend_: 'enc' catches nothing"),
        (3, "expected a rule"),
    ]:
        with pytest.raises((ValueError, TypeError), match=error):
            opt.extend_(state, model, bad)
        assert list(state) == ["enc"]
    opt.extend_(state, model, {"head": opt.Lion(), "other": None})
    assert (state["enc"].rule, state["head"].rule, state["other"][0]) == (opt.Adam(), opt.Lion(), None)
    opt.extend_(state, model, opt.Descent())  # what got None stays alone
    assert state["other"][0] is None and state["head"].rule == opt.Lion()
    opt.update_(state, model, {"enc": ones(), "other": [ones()]})


def test_pickled_and_copied_states_know_the_rules_of_setup_but_no_functions():
    enc = opt.Marker("enc")
    for rule in (opt.Adam(), {"w": opt.Adam(), ...: opt.Lion()}):
        model = {"w": enc(ones())}
        state = opt.setup(rule, model)
        for other in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state), opt.adjust(state, 0.5)):
            opt.extend_(other, {**model, "b": ones()})
            assert other["b"].rule == (opt.Adam() if rule == opt.Adam() else opt.Lion())
            assert other.marked("enc") is not None
    state = pickle.loads(pickle.dumps(opt.setup(lambda path, x: opt.Adam(), model)))
    with pytest.raises(ValueError, match='no rule for "b": the state does not know'):
        opt.extend_(state, {**model, "b": ones()})
    opt.extend_(state, {**model, "b": ones()}, opt.Lion())
    assert state["b"].rule == opt.Lion()


# ------------------------------------------------------------------------------------------------- handles


def test_handles_that_are_held_go_on_working_and_those_of_what_is_gone_say_so():
    enc = opt.Marker("enc")
    model: dict[str, Any] = {"enc": enc({"w": ones(), "b": ones()}), "dec": [ones()], "gone": {"w": ones()}}
    state = opt.setup(opt.Momentum(0.5), model)
    held = [state["enc"], state["enc"]["b"], state["dec"], state["dec"][0], state.marked(enc)]
    gone, view = [state["gone"], state["gone"]["w"]], state["dec"][0].state.v
    del model["gone"]
    model = {"new": ones(), **model}
    opt.extend_(state, model)
    again = [state["enc"], state["enc"]["b"], state["dec"], state["dec"][0], state.marked(enc)]
    assert all(a is b for a, b in zip(held, again, strict=True))
    opt.update_(held[2], model["dec"], [ones()])
    assert model["dec"][0][0] == 0.5 and state["dec"][0].state.v[0] == 0.5 and view[0] == 0
    opt.freeze_(held[4])
    assert state["enc"]["w"].frozen and not state["new"].frozen
    for handle in gone:
        for call in (lambda h: opt.freeze_(h), lambda h: opt.update_(h, ones(), None), lambda h: opt.adjust_(h, 1.0)):
            with pytest.raises(ValueError, match="extend_ found nothing at its path"):
                call(handle)
    del held, again, gone, handle
    gc.collect()
    for _ in range(20):  # cores come and go: no handle of one is taken for another's
        opt.extend_(state, model)
        assert state["dec"][0].state.v[0] == 0.5


def test_a_call_that_raises_has_changed_nothing():
    model = {"w": ones(), "b": ones(3)}
    state = opt.setup(RULE, model)
    opt.update_(state, model, model)
    leaf, before = state["w"], [seen(state[key]) for key in "wb"]
    bad: list[tuple[Any, str]] = [
        ({**model, "b": ones(4)}, r'"b" has shape \(4,\), its state was made for \(3,\).*call setup'),
        ({**model, "b": np.ones(3)}, '"b" has dtype float64, its state was made for float32'),
        ({**model, "c": model["w"][:1]}, "overlap|share"),
        (ones(), "the model is an array, was a dict"),
    ]
    for changed, message in bad:
        with pytest.raises(ValueError, match=message):
            opt.extend_(state, changed)
        assert [seen(state[key]) for key in "wb"] == before and state["w"] is leaf
    with pytest.raises(ValueError, match="extend_: expected the state"):
        opt.extend_(model, model)
    with pytest.raises(ValueError, match='extend_: "w" is a part'):
        opt.extend_(leaf, model)


def test_a_state_of_a_vector_is_refused_and_what_is_said_instead_keeps_it_all(tmp_path):
    model = {"w": np.ones(2), "c": np.ones(1)}
    flat, re = opt.destructure(model)
    state = opt.setup(RULE, flat, layout=re)
    opt.update_(state, flat, np.arange(3.0))
    opt.freeze_(opt.adjust_(state["w"], 0.25))
    with pytest.raises(ValueError, match=r"extend_: the state is of a flat vector.*load\(path, state, partial=True\)"):
        opt.extend_(state, flat)
    opt.save(tmp_path / "state", state)
    model = {"new": np.zeros(2), **re(flat)}
    longer, re = opt.destructure(model)
    other = opt.setup(RULE, longer, layout=re)
    assert opt.load(tmp_path / "state", other, partial=True).fresh == ["new"]
    assert [seen(other[key]) for key in "wc"] == [seen(state[key]) for key in "wc"] and other["w"].frozen
    opt.update_(state, flat, np.ones(3))
    opt.update_(other, longer, np.ones(5))
    assert longer[2:].tolist() == flat.tolist() and longer[:2].any()


def test_other_libraries_and_a_bare_array():
    jax = pytest.importorskip("jax")
    model = {"w": jax.numpy.ones(2), "b": None}
    state, new = opt.update(opt.setup(RULE, model), model, {"w": jax.numpy.ones(2)})
    new["b"] = jax.numpy.ones(3)
    with pytest.raises(ValueError, match="extend_"):
        opt.update(state, new, {"w": jax.numpy.ones(2)})
    opt.extend_(state, new)
    _, newer = opt.update(state, new, {"w": jax.numpy.ones(2), "b": jax.numpy.ones(3)})
    assert newer["b"][0] == np.float32(0.9) and state["w"].clock.beta1_t < state["b"].clock.beta1_t
    x = ones()
    leaf = opt.setup(opt.Momentum(), x)
    opt.update_(leaf, x, x)
    v = leaf.state.v.copy()
    assert opt.extend_(leaf, x) is leaf and np.array_equal(leaf.state.v, v)


def test_extending_while_others_update():
    model = {"w": np.ones(100_000)}
    state = opt.setup(opt.Descent(1e-6), model)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                opt.update_(state, model, {"w": model["w"]})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        opt.extend_(state, model)
    for thread in threads:
        thread.join()
    assert all("no more" in str(error) for error in errors)
