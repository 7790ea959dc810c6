"""Models of every kind of container, ties, parts, depth, and gradient trees that match them by key."""

import copy
import gc
import pickle
import sys
import weakref
from collections import OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


class Pair(NamedTuple):
    w: Any
    b: Any


class Triple(NamedTuple):
    w: Any
    b: Any
    c: Any


@dataclass
class Layer:
    w: Any
    b: Any
    name: str = "layer"
    scale: Any = field(default=None, metadata={"trainable": False})


@dataclass(frozen=True)
class Frozen:
    w: Any
    b: Any
    built: list = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.built.append("post_init")


@dataclass(frozen=True, slots=True)
class Slotted:
    w: Any
    b: Any


class Record(OrderedDict):
    pass


@dataclass
class Bare:
    w: Any
    b: Any


@dataclass(frozen=True)
class FrozenBare:
    w: Any
    b: Any


CONTAINERS = {
    "dict": lambda w, b: {"w": w, "b": b},
    "OrderedDict": lambda w, b: OrderedDict(w=w, b=b),
    "defaultdict": lambda w, b: defaultdict(list, w=w, b=b),
    "dict subclass": lambda w, b: Record(w=w, b=b),
    "list": lambda w, b: [w, b],
    "tuple": lambda w, b: (w, b),
    "named tuple": Pair,
    "dataclass": Bare,
    "frozen dataclass": FrozenBare,
    "slotted dataclass": Slotted,
}
NAMED = [name for name in CONTAINERS if name not in ("list", "tuple")]
EVERY_CONTAINER = pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)


def arrays_of(node: Any) -> tuple[Any, Any]:
    if isinstance(node, (list, tuple)):
        return node[0], node[1]
    return (node["w"], node["b"]) if isinstance(node, dict) else (node.w, node.b)


# ------------------------------------------------------------------------------------------- containers


@EVERY_CONTAINER
@pytest.mark.parametrize("pure", [False, True])
def test_update_reaches_the_arrays_of_every_container(make, pure):
    model = {"first": make(ones(2, 3), ones(3)), "rest": [make(ones(4), ones(5)), 3, "text", None]}
    state = opt.setup(opt.Descent(1.0), model)
    grads = {"first": make(ones(2, 3), ones(3)), "rest": [make(2 * ones(4), ones(5)), None, None, None]}
    new_state, new = (opt.update if pure else opt.update_)(state, model, grads)
    assert [a.sum() for a in arrays_of(new["first"])] == [0, 0]
    assert [a.sum() for a in arrays_of(new["rest"][0])] == [-4, 0]
    assert type(new["first"]) is type(model["first"]) and new["rest"][1:] == [3, "text", None]
    assert (new is model, new_state is state) == (not pure, not pure)
    if pure:
        assert [a.sum() for a in arrays_of(model["first"])] == [6, 3]


def test_copies_of_containers_keep_what_they_are():
    model = {
        "default": defaultdict(list, w=ones(2)),
        "ordered": OrderedDict(b=ones(1), a=ones(2)),
        "frozen": Frozen(ones(2), ones(1)),
        "extra": Layer(ones(1), 3, "name", ones(4)),
    }
    model["ordered"].move_to_end("b")
    model["extra"].note = "kept"
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, None)
    assert new["default"].default_factory is list and list(new["ordered"]) == ["a", "b"]
    assert new["frozen"].built is model["frozen"].built and len(new["frozen"].built) == 1
    assert new["extra"].scale is model["extra"].scale and new["extra"].note == "kept"
    assert new["extra"].w is not model["extra"].w


def test_fields_marked_untrainable_are_left_alone():
    model = Layer(ones(2), ones(3), "name", ones(4))
    state = opt.setup(opt.Descent(1.0), model)
    assert state.scale is None and [len(x) for x in opt.trainables(model)] == [2, 3]
    opt.update_(state, model, {"w": ones(2), "scale": ones(4)})
    assert model.scale.sum() == 4 and model.w.sum() == 0


@pytest.mark.parametrize("given", NAMED)
@pytest.mark.parametrize("kept", NAMED)
def test_containers_with_names_stand_for_one_another_in_gradients(kept, given):
    model = CONTAINERS[kept](ones(2), ones(3))
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, CONTAINERS[given](ones(2), None if given != "defaultdict" else ones(3)))
    assert arrays_of(model)[0].sum() == 0


@pytest.mark.parametrize("kept, given", [(list, tuple), (tuple, list)])
def test_list_and_tuple_stand_for_one_another_in_gradients(kept, given):
    model = kept([ones(2), ones(3)])
    opt.update_(opt.setup(opt.Descent(1.0), model), model, given([ones(2), None]))
    assert model[0].sum() == 0 and model[1].sum() == 3


@pytest.mark.parametrize(
    "model, grads",
    [
        ({"a": [ones(2)]}, {"a": {"0": ones(2)}}),
        ({"a": {"w": ones(2)}}, {"a": [ones(2)]}),
        ({"a": Pair(ones(2), ones(2))}, {"a": (ones(2), ones(2))}),
        ({"a": (ones(2), ones(2))}, {"a": Pair(ones(2), ones(2))}),
        ({"a": Pair(ones(2), ones(2))}, {"a": Triple(ones(2), None, None)}),
        ({"a": [ones(2)]}, {"a": ones(1, 2)}),
        ({"a": ones(2)}, {"a": {"w": ones(2)}}),
        ({"a": ones(2)}, {"a": [ones(2)]}),
        ({"a": {"w": ones(2)}}, {"a": {"w": None, 0: None}}),
        ({"a": [ones(2)]}, {"a": []}),
        ({"a": [ones(2)]}, {"a": 7}),
    ],
)
def test_gradients_of_another_structure_are_refused_with_the_path(model, grads):
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match='"a"'):
        opt.update_(state, model, grads)


def test_keys_need_not_be_strings_nor_in_order():
    model = {("a", 1): ones(2), 7: ones(3), "x": ones(1)}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"x": ones(1), 7: ones(3), ("a", 1): ones(2)})
    assert [a.sum() for a in model.values()] == [0, 0, 0]
    assert state[7].shape == (3,) and state["a", 1].path == (("a", 1),)


def test_scalars_of_numpy_are_gradients_of_0d_arrays():
    model = {"x": np.array(1.0)}
    opt.update_(opt.setup(opt.Descent(1.0), model), model, {"x": np.float64(1.0)})
    assert model["x"] == 0


@pytest.mark.parametrize("grad", [1.0, "text", object(), [1.0, 1.0]])
def test_something_else_as_gradient_is_refused_with_the_path(grad):
    model = {"a": {"x": ones(2)}}
    with pytest.raises((TypeError, ValueError), match=r"a\.x"):
        opt.update_(opt.setup(opt.Descent(1.0), model), model, {"a": {"x": grad}})


def test_array_of_an_unknown_library_is_refused_as_leaf_and_gradient():
    class Foreign:
        def __dlpack__(self) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match=r"layer\.w.*Foreign"):
        opt.setup(opt.Adam(), {"layer": {"w": Foreign()}})
    model = {"w": ones(2)}
    with pytest.raises(TypeError, match=r"w.*Foreign"):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": Foreign()})


# ------------------------------------------------------------------------------------- depth, cycles, memory


@pytest.mark.parametrize(
    "wrap", [lambda m: {"a": m, "x": ones(1)}, lambda m: [m], lambda m: (m,), lambda m: Pair(m, 1)]
)
def test_ten_thousand_levels(wrap):
    def deep(leaf):
        for _ in range(10_000):
            leaf = wrap(leaf)
        return leaf

    x = ones(3)
    model = deep(x)
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, deep(ones(3)))
    assert x.sum() == 0
    opt.update(state, model, deep(ones(3)))
    assert len(repr(state)) < 100_000
    with pytest.raises(ValueError, match=r"gradient at .*more\)"):
        opt.update_(state, model, deep(ones(4)))


def test_cycles_are_refused_with_the_path():
    layer: dict[str, Any] = {"w": ones(2)}
    layer["inner"] = [layer]
    with pytest.raises(ValueError, match=r"itself.*inner\.0"):
        opt.setup(opt.Adam(), {"layer": layer})


def test_the_same_container_twice_is_no_cycle_and_stays_one():
    layer = {"w": ones(2)}
    model = {"a": layer, "b": [layer]}
    state = opt.setup(opt.Descent(1.0), model)
    _, new = opt.update(state, model, {"a": {"w": ones(2)}, "b": [{"w": ones(2)}]})
    assert new["a"] is new["b"][0] and np.array_equal(new["a"]["w"], [-1, -1])


def test_nothing_is_kept_alive_after_an_update():
    class Grads(dict):
        pass

    model, grads = {"w": ones(2)}, Grads(w=ones(2))
    state = opt.setup(opt.Adam(), model)
    watch, before = weakref.ref(grads), sys.getrefcount(model["w"])
    opt.update_(state, model, grads)
    with pytest.raises(ValueError):
        opt.update_(state, model, {"w": ones(3)})
    after = sys.getrefcount(model["w"])  # an assert would hold one more
    assert after == before
    del grads
    assert watch() is None


class Clearing:
    """A container whose children are read by code that lets go of other arrays of the model and of the gradients."""

    def __init__(self, w):
        self.w, self.others, self.reused = w, [], []

    def children(self):
        for other in self.others:
            other["w"] = None
        self.reused = [np.zeros(2, np.float32) for _ in range(4 * len(self.others))]  # where the arrays were
        return {"w": self.w}


opt.register_container(Clearing, Clearing.children, lambda old, new: Clearing(new["w"]))


@pytest.mark.parametrize("where", ["model", "gradients"])
def test_arrays_that_are_let_go_of_during_the_walk_stay_alive_until_its_end(where):
    memory, clearing = ones(2), Clearing(ones(2))
    model = {"w": memory[:], "c": clearing if where == "model" else {"w": ones(2)}}
    grads = {"w": ones(2)[:], "c": clearing if where == "gradients" else {"w": ones(2)}}
    state = opt.setup(opt.Descent(1.0), model)
    clearing.others = [model] if where == "model" else [model, grads]
    opt.update_(state, model, grads)
    assert model["w"] is None and np.array_equal(memory, [0, 0])
    assert clearing.reused and not any(a.any() for a in clearing.reused)


@pytest.mark.parametrize("fault", [None, "shape", "type", "structure", "late structure"])
@pytest.mark.parametrize("kind", ["numpy", "mixed"])
def test_references_are_given_back_whatever_happens(fault, kind):
    mixed = kind == "mixed"  # a tensor, and a gradient that has to be made an array of
    model = {"a": ones(2), "b": [torch.ones(3) if mixed else ones(3), {"c": ones(4)}], "d": ones()}
    state = opt.setup(opt.Adam(), model)
    shared = ones(4)
    grads = {"a": ones(2), "b": [ones(3), {"c": shared}], "d": np.float32(1) if mixed else ones()}
    if fault == "shape":
        grads["b"][1]["c"] = shared[:3]
    elif fault == "type":
        grads["b"][1]["c"] = "no array"
    elif fault == "structure":
        grads["b"] = {"c": shared}
    elif fault == "late structure":
        grads["b"][1]["more"] = shared
    arrays = [model["a"], model["b"][0], model["b"][1]["c"], model["d"], grads["a"], shared, grads["d"]]
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(3):
        if fault is None:
            opt.update_(state, model, grads)
        else:
            with pytest.raises((ValueError, TypeError)):
                opt.update_(state, model, grads)
    after = [sys.getrefcount(a) for a in arrays]
    assert after == before


def test_keys_that_are_equal_but_other_objects():
    names = [f"weight_{i}" for i in range(5)]
    model = {name: ones(2) for name in names}
    state = opt.setup(opt.Descent(1.0), model)
    for step in range(3):  # new objects in each step
        opt.update_(state, model, {"".join(list(name)): np.full(2, i + step) for i, name in enumerate(names)})
    assert [model[name][0] for name in names] == [1 - 3 * i - 3 for i in range(5)]
    with pytest.raises(ValueError, match="weight_9"):
        opt.update_(state, model, {"".join(["weight_", "9"]): ones(2)})


def test_slot_views_keep_their_memory():
    views = opt.setup(opt.Adam(), ones(1000)).state
    gc.collect()
    assert views.m.sum() == 0 and views.m.flags.writeable


# ---------------------------------------------------------------------------------------------------- ties


def tied():
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {"enc": w, "same": [w], "dec": w.T}


def test_tied_arrays_are_one_leaf():
    model = tied()
    state = opt.setup(opt.Momentum(0.5), model)
    assert state["enc"] is state["same"][0] is state["dec"]
    assert [str(p) for p, _ in opt.trainables(model, path=True)] == ["enc"]
    assert state["dec"].shape == (2, 3)


@pytest.mark.parametrize("missing", [(), ("enc",), ("same",), ("dec",), ("enc", "same"), ("enc", "dec")])
@pytest.mark.parametrize("pure", [False, True])
def test_gradients_of_tied_arrays_are_summed(pure, missing):
    model = tied()
    parts = {"enc": ones(2, 3), "same": 2 * ones(2, 3), "dec": np.arange(6, dtype=np.float32).reshape(3, 2)}
    total = sum(p if k != "dec" else p.T for k, p in parts.items() if k not in missing)
    want = model["enc"] - total
    grads = {k: [p] if k == "same" else p for k, p in parts.items() if k not in missing}
    _, new = (opt.update if pure else opt.update_)(opt.setup(opt.Descent(1.0), model), model, grads)
    assert np.array_equal(new["enc"], want)
    assert new["same"][0] is new["enc"] and np.array_equal(new["dec"], want.T)
    assert np.shares_memory(new["dec"], new["enc"]) and np.shares_memory(new["enc"], model["enc"]) != pure


def test_part_with_a_place_of_a_tied_leaf_can_be_updated_alone():
    model = {"enc": tied()["enc"], "rest": {"w": None}}
    model["rest"]["w"] = model["enc"].T
    state = opt.setup(opt.Descent(1.0), model)
    want = model["enc"] - np.arange(6).reshape(3, 2).T
    opt.update_(state["rest"], model["rest"], {"w": np.arange(6).reshape(3, 2)})
    assert np.array_equal(model["enc"], want)


def test_tie_that_no_longer_holds_is_refused_naming_both():
    model = tied()
    state = opt.setup(opt.Descent(1.0), model)
    model["dec"] = model["dec"].copy()
    with pytest.raises(ValueError, match='"enc" and "dec"'):
        opt.update_(state, model, {})


def test_tied_gradient_of_wrong_shape_is_refused():
    model = tied()
    state = opt.setup(opt.Descent(1.0), model)
    with pytest.raises(ValueError, match="gradient"):
        opt.update_(state, model, {"dec": ones(2, 3), "enc": ones(2, 3)})


def test_tied_axes_of_three_dimensions():
    w = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    model = {"a": w, "b": w.transpose(2, 0, 1), "c": w.transpose(1, 2, 0)}
    state = opt.setup(opt.Descent(1.0), model)
    g = np.random.default_rng(0).random((2, 3, 4))
    want = w - 3 * g
    grads = {"a": g, "b": g.transpose(2, 0, 1), "c": np.ascontiguousarray(g.transpose(1, 2, 0))}
    _, new = opt.update(state, model, grads)
    assert np.allclose(new["a"], want, rtol=0, atol=1e-14)
    assert np.array_equal(new["b"], new["a"].transpose(2, 0, 1))
    assert np.array_equal(new["c"], new["a"].transpose(1, 2, 0))


def test_empty_arrays_are_never_tied():
    x = ones(0)
    assert len(opt.trainables([x, x])) == 2


# ------------------------------------------------------------------------------------------- state trees


def model_of_many_kinds():
    return {"enc": Layer(ones(2, 3), ones(3)), "layers": [Pair(ones(2), 1), (ones(1), None)], "n": 3}


def test_state_tree_has_the_shape_of_the_model():
    state = opt.setup(opt.Adam(), model_of_many_kinds())
    assert list(state) == ["enc", "layers", "n"] and len(state["layers"]) == 2
    assert state.enc.w is state["enc"]["w"] and state["layers"][0].w is state["layers"][0][0]
    assert state["layers"][-1][0].path == ("layers", 1, 0) and state["n"] is None
    assert [len(part) for part in state["layers"]] == [2, 2]
    assert "enc" in state and "dec" not in state and str(state.enc.w.path) == "enc.w"
    for wrong in (lambda: state["dec"], lambda: state["layers"][2], lambda: state.enc.missing):
        with pytest.raises((KeyError, IndexError, AttributeError)):
            wrong()


def test_leaf_says_what_it_is():
    model = {"w": torch.ones(2, 3, dtype=torch.bfloat16), "z": np.ones(2, np.complex64)}
    chain = opt.OptimiserChain(opt.ClipGrad(), opt.OptimiserChain(opt.Adam()))
    state = opt.setup(opt.MixedPrecision(chain), model)
    leaf = state["w"]
    assert (leaf.shape, leaf.dtype, leaf.frozen) == ((2, 3), torch.bfloat16, False)
    assert leaf.rule == opt.MixedPrecision(chain) and state["z"].dtype == np.complex64
    master, (clip, (adam,)) = leaf.state
    assert master.dtype == adam.m.dtype == torch.float32 and clip == () and adam._fields == ("m", "v")
    assert state["z"].state[0] is None and state["z"].state[1][1][0].v.dtype == np.float32
    assert dict(leaf.clock[1][0]) == {"beta1_t": 1.0, "beta2_t": 1.0} and leaf.clock[1][0].beta1_t == 1.0
    assert repr(leaf).startswith('Leaf("w", (2, 3), bfloat16, MixedPrecision(')


def test_slots_are_writable_views():
    x = ones(3)
    leaf = opt.setup(opt.Momentum(1.0, 0.5), x)
    leaf.state.v[...] = 2
    opt.update_(leaf, x, 0 * ones(3))
    assert np.array_equal(x, [0, 0, 0]) and np.array_equal(leaf.state[0], [1, 1, 1])


def test_long_trees_print_abridged():
    state = opt.setup(opt.Descent(), {f"p{i}": ones(i + 1) for i in range(100)})
    opt.freeze_(state["p99"])
    text = str(state)
    assert "100 leaves" in text and "p0 " in text and "frozen" in text.splitlines()[-1]
    assert "80 more" in text and len(text.splitlines()) == 22


def test_copies_of_a_part_bring_the_whole_along():
    model = {"a": [ones(2)], "b": ones(3)}
    state = opt.setup(opt.OptimiserChain(opt.AccumGrad(2), opt.Adam(0.5)), model)
    opt.freeze_(state["b"])
    opt.adjust_(state["a"], 0.25)
    opt.update_(state, model, {"a": [ones(2)]})
    for twin in (copy.deepcopy(state["a"]), pickle.loads(pickle.dumps(state["a"]))):
        assert str(twin[0].path) == "a.0" and twin[0].rule == state["a"][0].rule
        assert np.array_equal(twin[0].state[0].a, state["a"][0].state[0].a)
        assert twin[0].clock == state["a"][0].clock and not np.shares_memory(
            twin[0].state[0].a, state["a"][0].state[0].a
        )
    a, b = pickle.loads(pickle.dumps((state["a"], state["b"])))
    assert a._core is b._core and b.frozen


def test_pickled_layout_continues():
    flat, re = opt.destructure({"a": ones(2), "b": [ones(2, 2)]})
    state = opt.setup(opt.Momentum(), flat, layout=re)
    twin, twin_flat = pickle.loads(pickle.dumps(state)), flat.copy()
    opt.update_(state, flat, np.arange(6.0))
    opt.update_(twin, twin_flat, np.arange(6.0))
    assert np.array_equal(flat, twin_flat) and np.array_equal(twin["b"][0].state.v, state["b"][0].state.v)


@pytest.mark.parametrize("layout", [False, True], ids=["tree", "layout"])
def test_pickle_with_an_unknown_dtype_is_refused(layout):
    """As a later version might write it: the dtype of a leaf, or of the vector."""
    flat, re = opt.destructure({"a": ones(2)})
    state = opt.setup(opt.Momentum(), flat, layout=re) if layout else opt.setup(opt.Momentum(), {"a": ones(2)})
    pickled = pickle.dumps(state)
    with pytest.raises(ValueError, match='"float3q" is no dtype'):
        pickle.loads(pickled.replace(b"float32", b"float3q"))


# ------------------------------------------------------------------------------------------ rules by part


def test_a_tree_of_rules_covers_what_is_below():
    model = {"enc": [ones(2), {"w": ones(3)}], "dec": Layer(ones(1), ones(1))}
    rules = {"enc": [opt.Adam(), opt.Momentum()], "dec": opt.Descent()}
    state = opt.setup(rules, model)
    assert [type(state["enc"][0].rule), type(state["enc"][1]["w"].rule)] == [opt.Adam, opt.Momentum]
    assert state.dec.b.rule == opt.Descent()
    with pytest.raises(ValueError, match=r"dec\.w"):
        opt.setup({"enc": opt.Adam()}, model)


def test_a_function_chooses_rules_by_path_and_array():
    model = {"enc": ones(2, 2), "bias": ones(2)}
    state = opt.setup(lambda path, x: opt.Adam() if x.ndim == 2 else opt.Descent(len(str(path))), model)
    assert (state.enc.rule, state.bias.rule) == (opt.Adam(), opt.Descent(4))
    with pytest.raises(TypeError, match="bias"):
        opt.setup(lambda path, x: opt.Adam() if x.ndim == 2 else 3, model)


# --------------------------------------------------------------------------------------------------- torch


def test_tensors_that_require_grad_are_updated_and_a_stale_backward_is_caught():
    w = torch.nn.Parameter(torch.ones(3))
    state = opt.setup(opt.Descent(1.0), {"w": w})
    loss = (w * w).sum()
    version = w._version
    opt.update_(state, {"w": w}, {"w": torch.ones(3)})
    assert w._version > version and w.tolist() == [0, 0, 0] and w.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_and_missing_tensors_keep_their_version():
    model = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    state = opt.setup(opt.Descent(1.0), model)
    opt.freeze_(state["a"])
    before = {k: t._version for k, t in model.items()}
    opt.update_(state, model, {"a": torch.ones(2), "c": torch.ones(2)})
    assert [model[k]._version > before[k] for k in "abc"] == [False, False, True]


def test_pure_update_of_parameters_returns_parameters():
    model = {"w": torch.nn.Parameter(torch.ones(3)), "x": torch.ones(2, requires_grad=True)}
    _, new = opt.update(opt.setup(opt.Descent(1.0), model), model, {"w": torch.ones(3)})
    assert isinstance(new["w"], torch.nn.Parameter) and new["x"].requires_grad
    assert new["w"].tolist() == [0, 0, 0] and model["w"].tolist() == [1, 1, 1]


def test_lazy_conjugates_and_negatives_are_read_right():
    z = torch.tensor([1 + 2j, 3 - 1j])
    model = {"z": torch.zeros(2, dtype=torch.complex64), "x": torch.zeros(2), "s": torch.zeros(())}
    state = opt.setup(opt.Descent(1.0), model)
    opt.update_(state, model, {"z": z.conj(), "x": z.conj().imag, "s": z.conj().imag[0]})
    assert model["z"].tolist() == [-1 + 2j, -3 - 1j] and model["x"].tolist() == [2, -1] and model["s"] == 2
    with pytest.raises(ValueError, match="resolve_conj"):
        opt.setup(opt.Descent(), {"z": z.conj()})


@pytest.mark.parametrize(
    "bad", [torch.eye(2).to_sparse(), torch.empty(2, 2, device="meta"), torch.zeros(2, 2).to(torch.float8_e5m2)]
)
def test_tensors_that_cannot_be_read_are_refused(bad):
    with pytest.raises(ValueError, match=r"a\.w"):
        opt.setup(opt.Adam(), {"a": {"w": bad}})
    model = {"w": torch.zeros(2, 2)}
    with pytest.raises((ValueError, TypeError), match='"w"'):
        opt.update_(opt.setup(opt.Adam(), model), model, {"w": bad})


def test_one_model_may_mix_libraries():
    model = {"n": ones(2), "t": torch.ones(2)}
    opt.update_(opt.setup(opt.Descent(1.0), model), model, {"n": torch.ones(2), "t": np.ones(2)})
    assert model["n"].sum() == 0 and model["t"].sum() == 0


# -------------------------------------------------------------------------------------------------- misuse


def test_wrong_arguments_of_update_are_refused():
    model = {"w": ones(2)}
    state = opt.setup(opt.Adam(), model)
    with pytest.raises(TypeError, match="state"):
        opt.update_(model, model, model)
    with pytest.raises(ValueError, match="keeps no gradient; pass the gradients"):
        opt.update_(state, model)
    with pytest.raises(TypeError, match="unexpected"):
        opt.update_(state, model, grads=None, other=1)
    assert opt.update_(state=state, model=model, grads=None)[1] is model


def test_a_state_is_busy_inside_its_own_update():
    class Model:
        pass

    calls = []

    @dataclass
    class Nosy:
        w: Any

        def __getattribute__(self, name: str) -> Any:
            if name == "w" and armed:
                try:
                    opt.update_(state, model, None)
                except RuntimeError as error:
                    calls.append(str(error))
            return super().__getattribute__(name)

    armed = False
    model = Nosy(ones(2))
    state = opt.setup(opt.Descent(1.0), model)
    armed = True
    opt.update_(state, model, {"w": ones(2)})
    armed = False
    assert len(calls) == 1 and "busy" in calls[0] and model.w.sum() == 0


# ------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("size", [3, 100_000])
def test_threads_on_one_state_are_serialised(size):
    model, grads = {"w": np.zeros(size)}, {"w": np.ones(size)}
    state = opt.setup(opt.Descent(1.0), model)
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(opt.update_, state, model, grads) for _ in range(200)]:
            job.result()
    assert (model["w"] == -200).all()


def test_states_of_their_own_run_in_threads_of_their_own():
    def train(seed: int) -> Any:
        model = {"w": np.full(100_000, float(seed))}
        state = opt.setup(opt.Adam(), model)
        for _ in range(10):
            opt.update_(state, model, {"w": np.ones(100_000)})
        return model["w"]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(train, [1, 2, 1, 2]))
    assert np.array_equal(results[0], results[2]) and np.array_equal(results[1], results[3])
