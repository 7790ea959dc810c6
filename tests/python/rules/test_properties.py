"""Drawn trees, layouts, rules and sequences of calls against the plain model of the semantics, bit by bit."""

import copy
import dataclasses
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from model_of_semantics import Twin, children, gradients, is_leaf, leaves, names, places, values
from support import REFUSES_COMPLEX, RULES, bits, build, close, is_complex, reference, sized, slots

import optimisers as opt

QUICK = settings(
    derandomize=True, deadline=None, database=None, max_examples=250, suppress_health_check=list(HealthCheck)
)
DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")
LAYOUTS = ("C", "F", "strided", "reversed", "misaligned")
SHAPES = ((3,), (), (0,), (2, 3), (3, 3), (2, 1, 4), (5,), (2, 0), (130,))


class Named(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Data:
    a: Any
    b: Any
    kept: Any = dataclasses.field(default=None, metadata={"trainable": False})


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any


# ------------------------------------------------------------------------------------------- what is drawn


def laid_out(a, layout):
    """The values of an array in memory of another layout."""
    if layout == "misaligned":
        memory = np.zeros(a.nbytes + 1, np.uint8)
        view = np.frombuffer(memory.data, a.dtype, a.size, offset=1).reshape(a.shape)
    elif layout == "strided":
        view = np.zeros([2 * n + 1 for n in a.shape], a.dtype)[tuple(slice(1, None, 2) for _ in a.shape)]
    elif layout == "reversed":
        view = np.zeros(a.shape, a.dtype)[tuple(slice(None, None, -1) for _ in a.shape)]
    else:
        view = np.zeros(a.shape, a.dtype, order=layout)
    if a.ndim:
        view[...] = a
        return view
    return np.array(a) if layout != "misaligned" else _filled(view, a)


def _filled(view, a):
    view[...] = a
    return view


@st.composite
def arrays(draw, dtypes=DTYPES):
    dtype, shape = draw(st.sampled_from(dtypes)), draw(st.sampled_from(SHAPES))
    return laid_out(sized(shape, dtype, draw(st.integers(0, 99))), draw(st.sampled_from(LAYOUTS)))


VALUES = st.sampled_from([None, 3, 1.5, True, "text", np.arange(3), len])


@st.composite
def models(draw, dtypes=DTYPES):
    """A tree of every kind of container, with values between the arrays, ties and shared containers."""
    known_arrays, known_containers = [], []

    def leaf():
        kind = draw(st.sampled_from(["new", "new", "new", "value", "tied", "transposed"]))
        if kind == "value":
            return draw(VALUES)
        if kind in ("tied", "transposed") and known_arrays:
            x = draw(st.sampled_from(known_arrays))
            return x if kind == "tied" else x.transpose(draw(st.permutations(range(x.ndim))))
        known_arrays.append(draw(arrays(dtypes)))
        return known_arrays[-1]

    def tree(depth):
        kind = draw(st.sampled_from(["leaf", "leaf", "dict", "list", "tuple", Named, Data, Frozen, "again"]))
        if kind == "again" and known_containers:
            return draw(st.sampled_from(known_containers))
        if depth == 0 or kind in ("leaf", "again"):
            return leaf()
        if kind in ("list", "tuple"):
            made = [tree(depth - 1) for _ in range(draw(st.integers(0, 3)))]
            made = made if kind == "list" else tuple(made)
        elif kind == "dict":
            keys = draw(st.lists(st.sampled_from(["w", "b", 7, ("a", 1), "x.y"]), unique=True, max_size=3))
            made = {key: tree(depth - 1) for key in keys}
        else:
            made = kind(tree(depth - 1), tree(depth - 1))
        if not isinstance(made, tuple):
            known_containers.append(made)
        return made

    first = draw(arrays(dtypes))
    known_arrays.append(first)
    return {"first": first, "rest": [tree(3) for _ in range(draw(st.integers(1, 3)))]}


NUMBERS = {
    "eta": (0.1, 0.01), "rho": (0.0, 0.9), "beta": ((0.9, 0.999), (0.5, 0.9)), "epsilon": (1e-8, 1e-3),
    "lambda_": (0.0, 0.05), "delta": (0.7, 10.0), "omega": (0.1, 10.0), "p": (2.0, 1.0, float("inf"), 3.5),
    "n": (1, 2, 3), "ell": ((0.5, 1.2), (1.0, 1.0)), "gamma": ((1e-6, 50.0), (0.02, 0.04)),
    "centred": (False, True), "couple": (True, False), "throw": (True, False), "scope": ("leaf", "global"),
    "pytorch": (False, True), "momentum_decay": (4e-3, 0.1),
    "beta_difference": (0.92, 0.5), "beta_slow": (0.9999, 0.95), "weight": (2.0, 5.0), "warmup": (0.0, 3.0),
    "prox": (True, False), "initial": (1e-6, 0.1), "power": (0.0, 1.0), "bounds": ((-1.0, 1.0), (0.1, 0.3)),
    "coefficient": (1.0, 0.01), "largest": (0.0, 0.5), "least": (1e-3, 0.6), "correction": (0.025, 0.1),
    "d0": (1e-6, 1e-3), "bias_correction": (False, True), "safeguard": (False, True),
}  # fmt: skip


@st.composite
def rules(draw, complex_leaves, longest=3):
    """A spec: a rule or a chain, hyperparameters from NUMBERS; sometimes in mixed precision."""
    usable = [name for name in RULES if not (complex_leaves and name in REFUSES_COMPLEX)]
    chain = []
    for name in draw(st.lists(st.sampled_from(usable), min_size=0, max_size=longest)):
        chain.append((name, {f.name: draw(st.sampled_from(NUMBERS[f.name])) for f in RULES[name].fields}))
    spec = chain[0] if len(chain) == 1 and draw(st.booleans()) else chain
    if draw(st.integers(0, 4)) == 0:
        return ("MixedPrecision", {"rule": spec, "dtype": draw(st.sampled_from(["float32", "float64"]))})
    return spec


def gradient(draw, x, exact):
    """A gradient for one place. Exact: multiples of 1/8, whose sums need no rounding, in any dtype that holds them."""
    g = sized(x.shape, x.dtype.name, draw(st.integers(100, 999)))
    if not exact:
        return laid_out(g, draw(st.sampled_from(LAYOUTS)))
    wide = g.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    g = (np.round(wide * 8) / 8).astype(x.dtype)
    kind = draw(st.sampled_from(["same", "same", "zero", "thin", "int"]))
    if kind == "zero":
        g = np.zeros_like(g)
    if kind == "thin" and x.size:
        return np.broadcast_to(g.ravel()[0], x.shape)
    if kind == "int":
        return laid_out(np.asarray(np.sign(g.real)).astype(np.int8), "C")
    return laid_out(g, draw(st.sampled_from(LAYOUTS)))


def gradient_tree(draw, node, exact=True):
    """Gradients of a model: holes, missing keys, other containers of the same shape, what says nothing elsewhere."""
    if is_leaf(node):
        return None if draw(st.integers(0, 4)) == 0 else gradient(draw, node, exact)
    inside = children(node)
    if inside is None:
        return draw(st.sampled_from([None, (), np.ones(0), node if isinstance(node, (int, str)) else None]))
    if draw(st.integers(0, 9)) == 0:
        return None
    entries = [(key, gradient_tree(draw, child, exact)) for key, child in inside]
    if isinstance(node, (list, tuple)) and not hasattr(node, "_fields"):
        return draw(st.sampled_from([list, tuple]))([value for _, value in entries])
    if not isinstance(node, dict) and draw(st.booleans()):
        return Named(**dict(entries))
    order = draw(st.permutations(entries))
    return dict(order if draw(st.booleans()) else order[1:])


# --------------------------------------------------------------------------------------------- comparing


def at(state, path):
    for key in path:
        state = state[key]
    return state


def seen(model, state):
    """Bits, slots, clock, rule and frozenness of every leaf."""
    spots = leaves(model)
    handles = [at(state, spot.at[0][0]) for spot in spots]
    values = [np.array(spot.array, order="C") for spot in spots]
    return [(bits(x, slots(h)), repr(h.clock), repr(h.rule), h.frozen) for x, h in zip(values, handles, strict=True)]


def check(model, state, twin):
    assert seen(model, state) == seen(twin.xs, twin.state)
    for path, x in places(model):  # tied places are one object in the state and one memory in the model
        assert at(state, path).dtype == x.dtype
    for spot in leaves(model):
        handles = [at(state, path) for path, _ in spot.at]
        assert all(handle is handles[0] for handle in handles)


def drawn_world(draw, dtypes=DTYPES):
    model = draw(models(dtypes))
    spots = leaves(model)
    has_complex = any(is_complex(spot.array.dtype.name) for spot in spots)
    specs = [draw(rules(has_complex)) for _ in range(draw(st.integers(1, 2)))]
    per_leaf = [specs[i % len(specs)] for i in range(len(spots))]
    event(f"{len(spots)} leaves" if len(spots) < 4 else "more leaves")
    by_path = {spot.at[0][0]: build(spec) for spot, spec in zip(spots, per_leaf, strict=True)}
    state = opt.setup(lambda path, x: by_path[tuple(path)], model)
    return model, state, per_leaf


def parts(model, prefix=()):
    """Paths of nodes with a trained array below, the root first."""
    found = [prefix] if next(places(model), None) else []
    for key, child in children(model) or ():
        found += parts(child, (*prefix, key))
    return found


# -------------------------------------------------------------------------------------------- sequences


class Run:
    """One drawn sequence of calls on a tree and its twin."""

    def __init__(self, draw):
        self.draw = draw
        self.model, self.state, specs = drawn_world(draw)
        self.twin = Twin([build(spec) for spec in specs], self.model)

    def update_(self):
        tree = gradient_tree(self.draw, self.model)
        self.twin.update(gradients(self.model, tree))
        opt.update_(self.state, self.model, tree)

    def update(self):
        tree, before, old = gradient_tree(self.draw, self.model), seen(self.model, self.state), (self.model, self.state)
        self.twin.update(gradients(self.model, tree))
        self.state, self.model = opt.update(self.state, self.model, tree)
        assert seen(*old) == before and type(self.model) is type(old[0])

    def own_gradient(self):
        """The parameters themselves, where no ties make a sum of them and no float would be a gradient."""
        floats = any(type(value) is float for _, value in values(self.model))
        if not floats and all(len(spot.at) == 1 for spot in leaves(self.model)):
            self.twin.update([x.copy() for x in self.twin.xs])
            opt.update_(self.state, self.model, self.model)

    def adjust_(self):
        part = self.draw(st.sampled_from(parts(self.model)))
        field = self.draw(st.sampled_from(["eta", "rho", "beta", "lambda_", "omega"]))
        value = self.draw(st.sampled_from(NUMBERS[field]))
        below = [at(self.state, spot.at[0][0]).rule for spot in leaves(self.model) if spot.below(part)]
        known = set().union(*map(names, below))
        before = seen(self.model, self.state)
        if field not in known:
            with pytest.raises(ValueError, match=field):
                opt.adjust_(at(self.state, part), **{field: value})
            assert seen(self.model, self.state) == before
            return
        self.twin.adjust(self.model, part, **{field: value})
        if part == () and self.draw(st.booleans()):
            old, self.state = self.state, opt.adjust(self.state, **{field: value})
            assert seen(self.model, old) == before
        else:
            opt.adjust_(at(self.state, part), **{field: value})

    def freeze_or_thaw(self):
        part, frozen = self.draw(st.sampled_from(parts(self.model))), self.draw(st.booleans())
        self.twin.freeze(self.model, part, frozen)
        (opt.freeze_ if frozen else opt.thaw_)(at(self.state, part))

    def pickled(self):
        self.state = pickle.loads(pickle.dumps(self.state))

    def copied(self):
        old, before = self.state, seen(self.model, self.state)
        self.state = copy.deepcopy(self.state)
        self.update_()
        assert [slot for _, *slot in seen(self.model, old)] == [slot for _, *slot in before]

    def destructured(self):
        flat, re = opt.destructure(self.model)
        assert len(flat) == sum(spot.array.size for spot in leaves(self.model))
        before = seen(self.model, self.state)
        self.model = re(flat)
        assert seen(self.model, self.state) == before

    def fails(self):
        """A gradient of a wrong shape at one place, whatever else there is."""
        path = self.draw(st.sampled_from([path for path, _ in places(self.model)]))
        bad = wrong_at(self.model, path)
        before = seen(self.model, self.state)
        for call in (opt.update_, opt.update):
            with pytest.raises(ValueError, match="shape"):
                call(self.state, self.model, bad)
        assert seen(self.model, self.state) == before

    def fails_for_a_value(self):
        """A gradient for something that is not trained, and not marked so."""
        found = list(values(self.model))
        if not found:
            return
        path, _ = self.draw(st.sampled_from(found))
        entry = self.draw(st.sampled_from([0.5, np.float32(0.5), np.ones(3), np.array(1)]))
        bad = wrong_at(self.model, path, entry)
        before = seen(self.model, self.state)
        for call in (opt.update_, opt.update):
            with pytest.raises(ValueError, match="there is a gradient"):
                call(self.state, self.model, bad)
        assert seen(self.model, self.state) == before


def wrong_at(node, path, entry=None):
    """A gradient tree with nothing but one entry at a path: an array of an impossible shape, if it is not given."""
    if not path:
        return np.ones((2, 9, 9)) if entry is None else entry
    inside = {key: wrong_at(child, path[1:], entry) if key == path[0] else None for key, child in children(node)}
    by_position = isinstance(node, (list, tuple)) and not hasattr(node, "_fields")
    return list(inside.values()) if by_position else inside


CALLS = [
    Run.update_, Run.update_, Run.update, Run.own_gradient, Run.adjust_, Run.freeze_or_thaw, Run.pickled, Run.copied,
    Run.destructured, Run.fails, Run.fails_for_a_value,
]  # fmt: skip


@QUICK
@given(st.data())
def test_any_sequence_of_calls_equals_the_plain_model(data):
    with np.errstate(all="ignore"):
        run = Run(data.draw)
        check(run.model, run.state, run.twin)
        for call in data.draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=6)):
            call(run)
            check(run.model, run.state, run.twin)


@QUICK
@given(st.data())
def test_drawn_trees_follow_the_reference(data):
    """In double precision, each step from the library's own x, so that errors of rounding do not add up."""
    model, state, specs = drawn_world(data.draw, ("float64", "complex128"))
    spots = leaves(model)
    plain = [
        spec[1]["rule"] if spec[0:1] == ("MixedPrecision",) else spec for spec in specs
    ]  # as wide already: no copy
    followers = [reference.Leaf(spec, spot.array) for spec, spot in zip(plain, spots, strict=True)]
    for _ in range(4):
        tree = gradient_tree(data.draw, model, exact=False)
        for follower, spot in zip(followers, spots, strict=True):
            follower.x = spot.array.copy()
        with np.errstate(all="ignore"):
            reference.update(followers, gradients(model, tree))
        opt.update_(state, model, tree)
        for follower, spot in zip(followers, spots, strict=True):
            assert close(spot.array, follower.x, 1e-9 * (1 + np.abs(follower.dx)))


@QUICK
@given(st.data())
def test_flat_vector_equals_the_tree(data):
    """One dtype: the vector's segments have what the tree's leaves have, for gradients as a tree and as a vector."""
    model, state, specs = drawn_world(data.draw, (data.draw(st.sampled_from(DTYPES)),))
    flat, re = opt.destructure(model)
    by_path = {spot.at[0][0]: build(spec) for spot, spec in zip(leaves(model), specs, strict=True)}
    segments = opt.setup(lambda path, x: by_path[tuple(path)], flat, layout=re)
    for _ in range(3):
        tree = gradient_tree(data.draw, model)
        if all(g is not None for g in gradients(model, tree)) and data.draw(st.booleans()):
            opt.update_(segments, flat, re.flatten(tree))
        else:
            opt.update_(segments, flat, tree)
        opt.update_(state, model, tree)
        assert seen(re(flat), segments) == seen(model, state)


@QUICK
@given(st.data())
def test_walks_agree_with_the_plain_model(data):
    model = data.draw(models())
    spots = leaves(model)
    assert [tuple(path) for path, _ in opt.trainables(model, path=True)] == [spot.at[0][0] for spot in spots]
    assert all(x is spot.array for x, spot in zip(opt.trainables(model), spots, strict=True))
    assert opt.reduce_trainables(lambda x: x.size, int.__add__, 0, model) == sum(spot.array.size for spot in spots)
    doubled = opt.map_trainables(lambda x: np.array(x + x), model)
    assert [bits(spot.array) for spot in leaves(doubled)] == [bits(np.array(spot.array + spot.array)) for spot in spots]
    assert [spot.at for spot in leaves(doubled)] == [spot.at for spot in spots]
    flat = [np.abs(spot.array.astype(np.complex128)).ravel() for spot in spots]
    want = np.linalg.norm(np.concatenate(flat))
    assert opt.norm(model) == pytest.approx(want, rel=1e-12, abs=0)
