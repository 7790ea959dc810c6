"""Pickles and native arguments are data from outside: altered ones give an error that says what does not hold."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest

import optimisers as opt
from optimisers import _core, _saved

FUZZ = Path(fuzz.__file__)


class Half(opt.Rule):
    def init(self, x):
        return [0.25, "text", {"n": (3, None)}]

    def apply(self, state, x, dx, *higher):
        return state, dx * 0.5


def small_state():
    w = np.arange(6.0).reshape(2, 3)
    model = {"w": w, "t": [w.T], "b": (np.ones(3, np.float32), None)}
    chain = opt.OptimiserChain(opt.AccumGrad(1), Half(), opt.Adam(0.1))
    state = opt.setup({"b": opt.RMSProp(0.5, centred=True), ...: chain}, model)
    opt.update_(state, model, {"w": w.copy(), "b": (np.ones(3), None)})
    opt.freeze_(state["b"])
    return state


def loaded(data):
    """The state, or the error."""
    try:
        return fuzz.loads(data)
    except Exception as error:
        return error


def test_one_changed_bit_in_any_byte_is_seen():
    state = small_state()
    data = pickle.dumps(state)
    rng = np.random.default_rng(1)
    wrong = []
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        result = loaded(bytes(changed))
        if isinstance(result, opt.State) and pickle.dumps(result) != data:
            wrong.append(at)
    assert not wrong and pickle.dumps(loaded(data)) == data


def test_a_changed_value_is_named_by_the_checksum():
    data = pickle.dumps(opt.setup(opt.Momentum(0.125), {"w": np.ones(2)}))
    eta = np.float64(0.125).tobytes()[::-1]
    assert data.count(eta) == 1
    for changed in (data.replace(eta, np.float64(0.25).tobytes()[::-1]), data.replace(b"\x8c\x01w", b"\x8c\x01v")):
        with pytest.raises(opt.InvalidValueError, match=r"checksum.*damaged or changed"):
            pickle.loads(changed)


def test_another_format_is_named():
    core = opt.setup(opt.Adam(), np.ones(2))._core
    function, (version, *rest) = _saved.reduced(core)
    assert function(version, *rest).node_count() == 1
    with pytest.raises(opt.InvalidValueError, match=rf"written in format {version + 1}.*reads format {version};"):
        function(version + 1, *rest)
    with pytest.raises(opt.InvalidValueError, match="written in format another format"):
        function(([], [], [], None, {}))


def test_a_part_is_the_part_that_was_saved():
    state = opt.setup(opt.Adam(), {"a": np.ones(2), "b": np.ones(2)})
    function, (core, node, checksum) = state["a"].__reduce__()
    assert function(core, node, checksum) is state["a"]
    with pytest.raises(opt.InvalidValueError, match="checksum of its node 2"):
        function(core, node + 1, checksum)


def test_old_values_do_not_matter_to_the_checksum():
    """Equal states give equal pickles: nothing of an address or of a hash's seed is in them."""
    code = (
        "import sys, pickle, numpy as np, optimisers as opt\n"
        "class Key:\n    pass\n"
        "class Own(opt.Rule):\n"
        "    def init(self, x): return {'a': {1, 2}, 'k': Key(), 's': 'text', 'f': np.float32(2), 'n': float('nan')}\n"
        "    def apply(self, state, x, dx): return state, dx\n"
        "m = {'w': np.ones(2), Key(): np.ones(3), ('a', 1): np.ones(1), frozenset({'x'}): np.ones(1)}\n"
    )
    write = code + "sys.stdout.buffer.write(pickle.dumps(opt.setup(opt.OptimiserChain(Own(), opt.Adam()), m)))"
    read = code + "s = pickle.load(sys.stdin.buffer); print(len(s), s['w'].state[0]['s'])"
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    data = subprocess.run([sys.executable, "-c", write], capture_output=True, check=True, env=environment).stdout
    back = subprocess.run([sys.executable, "-c", read], input=data, capture_output=True, check=False, env=environment)
    assert back.stdout == b"4 text\n", back.stderr.decode()


def without_checksum(**parts):
    """The plain data of a state with some parts replaced by functions of what they are."""
    names = ("spec", "leaves", "rules", "layout", "user", "memory", "clocks", "seen")
    data = dict(zip(names, _saved.plain_data(small_state()._core), strict=True))
    for name, change in parts.items():
        data[name] = change(data[name])
    return tuple(data.values())


def at(index, change):
    return lambda items: type(items)(change(item) if i == index else item for i, item in enumerate(items))


def words(change, dtype=np.uint32):
    return lambda data: bytes(np.asarray(change(np.frombuffer(data, dtype).copy()), dtype).tobytes())


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"spec": at(0, words(put(0, 77)))}, "node 0 is of the unknown kind 77"),
        ({"spec": at(0, words(put(1, 99)))}, "node 0 has 99 children, and there are 7 nodes"),
        ({"spec": at(0, words(put(1, 1)))}, "of 7 nodes 5 are nobody's children"),
        ({"spec": at(0, words(put(3, 1)))}, "node 1 has children and is no container"),
        ({"spec": at(0, lambda data: data[:-1])}, "the nodes have 55 bytes"),
        ({"spec": at(0, lambda data: b"")}, "0 numbers for nodes"),
        ({"spec": at(1, lambda keys: keys[:-1])}, "2 keys, and more nodes have one"),
        ({"spec": at(1, lambda keys: [*keys, "more"])}, "4 keys, and 3 nodes have one"),
        ({"spec": at(2, words(put(0, 1)))}, "place 0 is of leaf 1, and the leaves before it are 0"),
        ({"spec": at(2, words(lambda leaves: leaves[:-1]))}, "the places are 2, expected 3"),
        ({"spec": at(3, lambda axes: [(9, [1, 0])])}, "a place with axes: expected an integer from 0 to 2, got 9"),
        ({"spec": at(3, lambda axes: [(axes[0][0], [1, 1])])}, r'the axes at "t.0" are no order of 2 axes'),
        ({"spec": at(4, lambda marks: [(None, [2])])}, "a marked leaf: expected an integer from 0 to 1, got 2"),
        ({"leaves": at(0, lambda kinds: [("int8", *k[1:]) for k in kinds])}, '"int8" is no dtype'),
        ({"leaves": at(0, lambda kinds: [(k[0], "nump", *k[2:]) for k in kinds])}, '"nump" is no array library'),
        (
            {"leaves": at(0, lambda kinds: [(*k[:3], 300) for k in kinds])},
            "a device: expected an integer from -1 to 127",
        ),
        ({"leaves": at(1, words(put(0, 5)))}, "leaf 0 is of kind 5, and there are 2"),
        ({"leaves": at(1, words(put(1, 60)))}, "leaf 0 has 60 axes, and there are 3 lengths left"),
        ({"leaves": at(2, words(put(0, -2), np.int64))}, "leaf 0 has an axis of length -2"),
        ({"leaves": at(2, words(put(0, 2**40), np.int64))}, 'the state arrays have 168 bytes, too few for "w"'),
        ({"leaves": at(2, words(lambda n: [*n, 1], np.int64))}, "1 lengths of axes too many"),
        ({"rules": at(1, words(put(0, 9)))}, "a leaf has rule 9, and there are 2"),
        ({"rules": at(0, lambda rules: rules[::-1])}, "the state arrays have 36 bytes too many"),
        ({"rules": at(0, lambda rules: [None, None])}, "expected a rule such as Adam"),
        ({"layout": lambda layout: ("float64", 3, np.array([0, 3]).tobytes())}, "segment 0 begins at 0 and has 6"),
        ({"user": lambda user: {}}, "states of user-defined rules for 0 leaves, of 1"),
        ({"user": lambda user: {0: []}}, "the states of a leaf's user-defined rules: expected 1 items, got 0"),
        ({"memory": lambda data: data + b"\0" * 8}, "the state arrays have 8 bytes too many"),
        ({"memory": lambda data: list(data)}, "the state arrays: expected bytes, got a list"),
        ({"clocks": lambda data: data[:-8]}, "the clocks are 5, the rules have 6"),
        ({"seen": lambda seen: seen[:1]}, "what was seen of the steps: expected 2 items, got 1"),
        ({"seen": at(0, lambda _: -1)}, "the number of skipped steps: expected an integer from 0"),
        ({"seen": at(1, lambda _: bytes(16))}, "there are 2 last norms"),
        ({"seen": at(1, lambda _: bytes(5))}, "the last norm"),
    ],
)
def test_plain_data_says_what_does_not_hold(parts, message):
    assert _core.unpickled_state(without_checksum()).node_count() == 7
    with pytest.raises((opt.InvalidValueError, opt.InvalidTypeError), match=message):
        _core.unpickled_state(without_checksum(**parts))


def test_handles_with_numbers_from_outside_are_refused():
    state = opt.setup(opt.Adam(), {"a": np.ones(2), "b": np.ones(2)})
    core = state._core
    for wrong in (10**6, 3):
        with pytest.raises(opt.InvalidValueError, match=f"has 3 nodes, there is no node {wrong}"):
            type(state["a"])(core, wrong)
        with pytest.raises(opt.InvalidValueError, match="there is no leaf"):
            core.slots(wrong)
    with pytest.raises(opt.InvalidTypeError, match="expected the native part of a state, got a dict"):
        type(state)({}, 0)
    with pytest.raises(opt.InvalidValueError, match='no leaf at "n"'):
        core = opt.setup(opt.Adam(), {"n": 1, "a": np.ones(2)})._core
        core.leaf(1)


def test_native_models_check_what_comes_beside_them():
    native = _core.Model({"a": np.ones(2), "b": np.ones(3)}, "setup")
    for call in (lambda: native.state([opt.Adam()]), lambda: native.rebuilt([1])):
        with pytest.raises(opt.InvalidValueError, match="the model has 2 leaves, got 1"):
            call()
    with pytest.raises(opt.InvalidValueError, match=r"the flat vector has shape \(4,\), the layout has \(5,\)"):
        native.segments(np.ones(4))
    with pytest.raises(opt.InvalidValueError, match=r"has shape \(4,\)"):
        native.pack_model(np.ones(4))
    read_only = np.ones(5)
    read_only.flags.writeable = False
    with pytest.raises(opt.InvalidValueError, match="read-only"):
        native.pack_model(read_only)
    with pytest.raises(opt.InvalidTypeError, match="integers"):
        native.pack_model(np.ones(5, int))


def test_apply_looks_at_its_output():
    core = opt.setup(opt.Descent(), np.ones(3))._core
    for out in (np.ones(2), np.ones(3, np.float32), np.ones(6)[::2], np.broadcast_to(1.0, 3)):
        with pytest.raises(opt.InvalidValueError, match="the output must be"):
            core.apply(np.ones(3), np.ones(3), out, (), None)
    with pytest.raises(opt.InvalidValueError, match="the state of one array"):
        opt.setup(opt.Descent(), [np.ones(3)])._core.apply(np.ones(3), np.ones(3), np.ones(3), (), None)


def test_what_rules_of_ones_own_keep_is_in_the_checksum():
    torch = pytest.importorskip("torch")
    kept = [np.arange(3.0), np.float32(2), {"a": [1, 2j], "b": torch.ones(2, dtype=torch.bfloat16)}, opt.Marker("m")]
    changed = [copy.deepcopy(kept[:3]) for _ in range(5)]
    changed[0][0][1] = 7
    changed[1][1] = np.float32(3)
    changed[2][2]["a"][1] = 3j
    changed[3][2]["b"][0] = 2
    changed[4][0] = changed[4][0][::-1]
    assert _saved.checksum(copy.deepcopy(kept[:3])) == _saved.checksum(kept[:3])
    assert len({_saved.checksum(x) for x in [kept[:3], *changed]}) == 6
    cycle = []
    cycle.append(cycle)
    assert _saved.checksum([kept, object(), cycle]) == _saved.checksum(
        pickle.loads(pickle.dumps([kept, object(), cycle]))
    )


def test_copies_know_nothing_of_checksums():
    state = small_state()
    assert pickle.dumps(copy.deepcopy(state)) == pickle.dumps(state)


def test_random_calls_and_changed_pickles_crash_nothing():
    """In a process of its own, which says where it was. `make check-deep` runs more under sanitizers."""
    run = subprocess.run([sys.executable, str(FUZZ), "0", "1", "120"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == "fuzz: 120 rounds\n"
