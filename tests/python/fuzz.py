"""Random data from outside: `python tests/python/fuzz.py [SECONDS [SEED [ROUNDS]]]`, best under sanitizers.

Every callable of the native module with arguments of all kinds, right and wrong; pickles with bits changed, bytes lost
and pieces moved; and their plain data with numbers, lengths and objects replaced. Exceptions are what is wanted. What
may not be: a crash, a SystemError, and a pickle that was changed and gives a state with other values. The same seed
makes the same calls; each round's own is printed before it starts, so that the last line tells what crashed.
"""

import io
import os
import pickle
import random
import re
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

import optimisers as opt
from optimisers import _containers, _core, _saved
from optimisers._state import handle


class Unwilling:
    """Says no to whatever it is asked."""

    def _refuse(self, *_: Any) -> Any:
        raise ArithmeticError("no")

    __str__ = __repr__ = __eq__ = __hash__ = __len__ = __iter__ = _refuse  # type: ignore[assignment]
    __float__ = __getitem__ = __bool__ = __index__ = __array__ = __call__ = __dlpack__ = __dlpack_device__ = _refuse


class Key:
    """A key whose text is no text."""

    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Half(opt.Rule):
    """A rule of one's own. It keeps no array: NumPy takes whatever flags a pickle has into its dtypes."""

    def init(self, x: Any) -> Any:
        return [0.5, "text", {"n": 3}]

    def apply(self, state: Any, x: Any, dx: Any, *higher: Any) -> Any:
        return state, dx * 0.5


TEXTS = ["", "w", "b", "Adam", "eta", "float32", "leaf", "a\0b", "\udc80", "ä" * 9, "x" * 300, "layers.0"]
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    -1,
    64,
    2**31,
    2**32 - 1,
    2**63,
    -(2**63),
    10**30,
    True,
    0.5,
    -0.0,
    float("inf"),
    float("nan"),
    1e308,
    2j,
]


def model(rng: random.Random) -> Any:
    """A small model of some kind."""
    w = np.ones((2, 3), rng.choice(["float32", "float64", "complex64", "float16"]))
    kinds: list[Callable[[], Any]] = [
        lambda: {"w": w, "b": np.ones(3), "n": 3},
        lambda: [w, (np.ones(2), None), {"\udc80": np.zeros(0)}],
        lambda: {"a": w, "t": w.T, Key(): np.ones(1)},
        lambda: {f"k{i}": np.ones(1) for i in range(12)},
        lambda: w,
        lambda: {"deep": [[[[w]]]]},
    ]
    return rng.choice(kinds)()


def rule(rng: random.Random) -> Any:
    """A rule of some kind."""
    return rng.choice(
        [
            opt.Adam(),
            opt.Descent(0.1),
            opt.RMSProp(centred=True),
            opt.MixedPrecision(opt.OptimiserChain(opt.AccumGrad(2), opt.NAdam())),
            opt.OptimiserChain(opt.ClipNorm(1.0), opt.Momentum()),
            opt.OptimiserChain(opt.Momentum(), Half(), opt.AdaMax()),
            opt.OptimiserChain(),
        ]
    )


def state(rng: random.Random) -> Any:
    """A state that has made a step, sometimes with marks, frozen parts or a layout."""
    tree, chosen = model(rng), rule(rng)
    if rng.random() < 0.2:
        flat, layout = opt.destructure(tree)
        return opt.setup(chosen, flat, layout=layout)
    if rng.random() < 0.2:
        mark = opt.Marker("m\0")
        mark(tree)
        made = opt.setup({mark: chosen}, tree)
    else:
        made = opt.setup(chosen, tree)
    if rng.random() < 0.5:
        made = opt.update(made, tree, opt.map_trainables(np.ones_like, tree))[0]
    if rng.random() < 0.3:
        opt.freeze_(made)
    return made


class Pool:
    """Things to call with."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.state = state(rng)
        self.core = self.state._core
        tree = model(rng)
        self.native = _core.Model(tree, rng.choice(["setup", "a\0b"]))
        self.things: list[Any] = [
            None, ..., Unwilling(), Unwilling, Key(), object, type, print, lambda *a: None, b"", b"\xff" * 9, (), [],
            {}, {"w": np.ones(2)}, [1, [2, [3]]], ("a", 1), {1: 2}, {"eta": 0.5}, {"\udc80": 1}, {Key(): 1}, slice(3),
            np.ones((2, 3), np.float32), np.ones(3), np.ones(3)[::-1], np.ones(0), np.float32(1), np.arange(3),
            np.array("x"), np.array(None), np.ones(3, ">f8"), np.zeros(2, [("a", "f4")]), np.broadcast_to(1.0, 4),
            np.ma.masked_array([1.0, 2.0], [True, False]), tree, self.state, self.core, self.native, rule(rng),
            opt.Adam, opt.KeyPath("w"), opt.Marker("enc"), opt.Duplicated(tree, tree),
            _core.RuleValue("Descent", {"eta": 1}), range(5),
            _core.Program([], None), _core.Program([_core.RuleValue("Adam", {})], "float64"), self.core.pickled(),
            _saved.plain_data(self.core), [rule(rng)] * self.native.leaf_count(), [(opt.Marker("m"), [0, 9])],
        ]  # fmt: skip

    def thing(self) -> Any:
        rng = self.rng
        kind = rng.random()
        if kind < 0.25:
            return rng.choice(NUMBERS)
        if kind < 0.35:
            return rng.choice(TEXTS)
        if kind < 0.45:
            return [self.thing() for _ in range(rng.randrange(4))]
        if kind < 0.5:
            return tuple(self.thing() for _ in range(rng.randrange(4)))
        return rng.choice(self.things)

    def arguments(self, function: Any) -> list[Any]:
        """Mostly of the types that the function's signature gives, where it has one."""
        rng = self.rng
        signatures = getattr(function, "__nb_signature__", None)
        if not signatures or rng.random() < 0.1:
            return [self.thing() for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5]))]
        types_ = re.findall(r"(?:arg\d*|\w+): ([^,=)]+)", signatures[0][0].split(" -> ")[0])
        return [self.thing_of(text) if rng.random() < 0.9 else self.thing() for text in types_]

    def thing_of(self, text: str) -> Any:
        rng = self.rng
        if text.startswith("int"):
            return rng.choice([0, 0, 1, 1, 2, 3, rng.choice(NUMBERS)])
        if text.startswith("bool"):
            return rng.random() < 0.5
        if text.startswith("str"):
            return rng.choice(TEXTS)
        for name, kind in (("list", list), ("tuple", tuple), ("dict", dict), ("collections", list)):
            if text.startswith(name):
                known = [x for x in self.things if type(x) is kind]
                return (
                    rng.choice(known)
                    if rng.random() < 0.5
                    else kind(self.thing() for _ in range(kind is not dict and rng.randrange(4)))
                )
        return self.thing()

    def callables(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        leaf = next(iter(self.core.leaves(0)), 0)
        node = self.core.leaf_node(leaf) if self.core.leaf_count(0) else 0
        holders = [
            _core,
            self.core,
            self.core,
            self.native,
            self.state,
            opt.Descent(0.1)._value,
            opt.init(opt.Adam(), np.ones(3))._core,
        ]
        holders.append(_core.Handle(self.core, node))
        for holder in holders:
            for name in dir(holder):
                if name in LEFT_OUT or (name.startswith("__") and name not in SPECIAL):
                    continue
                if isinstance(holder, types.ModuleType) and name.endswith("Error"):
                    continue
                found.append((f"{type(holder).__name__}.{name}", (holder, name)))
        return found


SPECIAL = {
    "__call__",
    "__getitem__",
    "__reduce__",
    "__deepcopy__",
    "__repr__",
    "__init__",
    "__new__",
    "__dlpack__",
    "__eq__",
}
LEFT_OUT = {"set_num_threads"}  # as many threads as there are numbers


def call_anything(rng: random.Random) -> None:
    pool = Pool(rng)
    for _ in range(60):
        name, (holder, attribute) = rng.choice(pool.callables())
        keywords = {rng.choice(["stream", "grads", "zero_grad", "\udc80"]): pool.thing()} if rng.random() < 0.05 else {}
        try:
            what = getattr(holder, attribute)
            what(*pool.arguments(getattr(type(holder), attribute, what)), **keywords)
        except SystemError as error:
            raise AssertionError(f"{name}: {error}") from error
        except Exception:
            pass
        finally:
            _core.set_class_registry(_containers._look_up)
    use(pool.state)


def use(made: Any) -> None:
    """What people do with a state; it may refuse."""
    steps: list[Callable[[], Any]] = [
        lambda: repr(made),
        lambda: [(leaf.state, leaf.clock, leaf.rule, leaf.path) for leaf in leaves(made)],
        lambda: opt.adjust_(made, 0.5),
        lambda: opt.update_(made, {"w": np.ones((2, 3), np.float32)}, {"w": np.ones((2, 3))}),
        lambda: pickle.loads(pickle.dumps(made)),
        lambda: opt.thaw_(made),
    ]
    for step in steps:
        try:
            step()
        except SystemError as error:
            raise AssertionError(str(error)) from error
        except Exception:
            pass


def leaves(made: Any) -> list[Any]:
    return [handle(made._core, made._core.leaf_node(leaf)) for leaf in made._core.leaves(0)]


def change_pickle(rng: random.Random) -> None:
    """Bits, bytes and pieces of a pickle; what is loaded is what was saved, or nothing is."""
    made = state(rng)
    data = pickle.dumps(made)
    wanted = _saved.checksum(_saved.plain_data(made._core))
    for _ in range(150):
        load_changed(changed_bytes(rng, data), wanted)


class Careful(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own. The one in C writes gigabytes for a wrong number in its memo, and both for a long bytearray."""

    def refuse(self) -> None:
        raise pickle.UnpicklingError("a bytearray")

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: refuse}  # type: ignore[attr-defined]


def loads(data: bytes) -> Any:
    return Careful(io.BytesIO(data)).load()


def load_changed(data: bytes, wanted: int) -> None:
    try:
        loaded = loads(data)
    except SystemError as error:
        raise AssertionError(str(error)) from error
    except Exception:
        return
    if isinstance(loaded, opt.State):
        found = _saved.checksum(_saved.plain_data(loaded._core))
        assert found == wanted and loaded._node == 0, "a changed pickle gave another state"


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    other = bytearray(data)
    kind = rng.random()
    if kind < 0.6:
        other[at] ^= 1 << rng.randrange(8)
    elif kind < 0.7:
        other[at] = rng.randrange(256)
    elif kind < 0.8:
        del other[at : at + rng.randrange(1, 9)]
    elif kind < 0.9:
        other[at:at] = data[(begin := rng.randrange(len(data))) : begin + rng.randrange(1, 9)]
    else:
        del other[at:]
    return bytes(other)


def change_plain_data(rng: random.Random) -> None:
    """The numbers, lengths and objects of a state's plain data, which no checksum protects."""
    pool = Pool(rng)
    data = _saved.plain_data(pool.core)
    for _ in range(60):
        try:
            core = _core.unpickled_state(changed(rng, pool, data))
        except SystemError as error:
            raise AssertionError(str(error)) from error
        except Exception:
            continue
        use(handle(core, 0))


def changed(rng: random.Random, pool: Pool, x: Any) -> Any:
    """A copy of nested plain data with one thing in it replaced."""
    if isinstance(x, (tuple, list)) and x and rng.random() < 0.9:
        at, items = rng.randrange(len(x)), list(x)
        kind = rng.random()
        if kind < 0.85:
            items[at] = changed(rng, pool, items[at])
        elif kind < 0.92:
            del items[at]
        else:
            items.insert(at, items[rng.randrange(len(items))])
        return type(x)(items)
    if isinstance(x, dict) and x and rng.random() < 0.9:
        key = rng.choice(list(x))
        return {**x, key: changed(rng, pool, x[key])}
    if isinstance(x, bytes) and x and rng.random() < 0.9:
        words = bytearray(x)
        at = rng.randrange(len(words))
        if rng.random() < 0.7:
            words[at] = rng.choice([0, 1, 2, 3, 255, words[at] ^ (1 << rng.randrange(8))])
        elif rng.random() < 0.5:
            del words[-rng.choice([1, 4, 8, 16]) :]
        else:
            words += bytes(rng.choice([1, 4, 8, 16]))
        return bytes(words)
    return pool.thing()


ROUNDS = [call_anything, change_pickle, change_plain_data]


def run(seconds: float, seed: int, rounds: int) -> int:
    end, done = time.monotonic() + seconds, 0
    while done < rounds or time.monotonic() < end:
        what = ROUNDS[(seed + done) % len(ROUNDS)]
        os.write(2, f"fuzz {what.__name__} {seed + done}\n".encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what(random.Random(seed + done))
        done += 1
    return done


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]]
    seconds, seed, rounds = (*given, *(0, 1, 0)[len(given) :])
    print(f"fuzz: {run(seconds, int(seed), int(rounds))} rounds")
