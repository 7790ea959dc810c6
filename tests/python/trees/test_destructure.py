"""destructure: what lies where in the vector, views without copies, packing, layouts, both array libraries."""

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from vectors import KINDS, model_of, numbers

import optimisers as opt

# ------------------------------------------------------------------------------------------------- packing


@KINDS
def test_leaves_are_packed_in_walk_order_without_padding(kind):
    model = model_of(kind)
    flat, _ = opt.destructure(model)
    want = np.concatenate([numbers(x).ravel() for x in opt.trainables(model)])
    assert np.array_equal(numbers(flat), want) and flat.dtype == opt.trainables(model)[0].dtype
    assert not np.shares_memory(numbers(flat), numbers(model["l1"]["w"]))


@KINDS
def test_rebuilt_model_is_made_of_views(kind):
    model = model_of(kind)
    flat, re = opt.destructure(model)
    again = re(flat)
    flat[:] = 7
    assert all((numbers(x) == 7).all() for x in opt.trainables(again))
    again["rest"][0][:] = 8
    assert (numbers(flat)[-8:] == 8).all()
    assert again["name"] == "net" and again["rest"][1:] == [3, None]
    assert (numbers(model["l1"]["w"]) < 1).all()


@KINDS
def test_destructure_and_rebuild_are_inverse(kind):
    model = model_of(kind)
    flat, re = opt.destructure(model)
    for a, b in zip(opt.trainables(model), opt.trainables(re(flat)), strict=True):
        assert np.array_equal(numbers(a), numbers(b)) and a.dtype == b.dtype
    assert np.array_equal(numbers(re.flatten(re(flat))), numbers(flat))


@pytest.mark.parametrize(
    "given, common",
    [
        (("float32", "float32"), "float32"),
        (("float16", "float32"), "float32"),
        (("float16", "float16"), "float16"),
        (("bfloat16", "bfloat16"), "bfloat16"),
        (("float16", "bfloat16"), "float32"),
        (("bfloat16", "float64"), "float64"),
        (("float32", "complex64"), "complex64"),
        (("float64", "complex64"), "complex128"),
        (("bfloat16", "complex64"), "complex64"),
        (("float32", "float64"), "float64"),
    ],
)
@KINDS
def test_vector_has_the_common_dtype_and_leaves_keep_theirs(kind, given, common):
    model = []
    for i, name in enumerate(given):
        if kind == "torch":
            model.append(torch.arange(i, i + 3).to(getattr(torch, name)))
        else:
            model.append(np.arange(i, i + 3).astype(ml_dtypes.bfloat16 if name == "bfloat16" else name))
    flat, re = opt.destructure(model)
    assert str(flat.dtype).removeprefix("torch.") == common
    again = re(flat)
    assert [x.dtype for x in again] == [x.dtype for x in model]
    assert all((a == b).all() for a, b in zip(again, model, strict=True))


def test_real_leaf_takes_the_real_part():
    flat, re = opt.destructure([np.ones(2), np.ones(2, np.complex128)])
    flat += 1j
    real, imaginary = re(flat)
    assert real.dtype == np.float64 and (real == 1).all() and (imaginary == 1 + 1j).all()


def odd_layouts() -> dict[str, np.ndarray]:
    base = np.arange(120, dtype=np.float32)
    return {
        "fortran": np.asfortranarray(base[:12].reshape(3, 4)),
        "transposed": base[12:36].reshape(2, 3, 4).transpose(2, 0, 1),
        "reversed": base[40:50][::-1],
        "every third": base[60:90:3],
        "empty": np.zeros((0, 3), np.float32),
        "0-d": np.array(5.0, np.float32),
        "misaligned": np.frombuffer(b"\0" + base[:7].tobytes(), np.float32, 7, offset=1),
    }


def test_any_layout_is_packed_in_c_order():
    model = odd_layouts()
    flat, re = opt.destructure(model)
    assert np.array_equal(flat, np.concatenate([x.ravel() for x in model.values()]))
    assert all(np.array_equal(a, model[k]) for k, a in re(flat).items())


def test_long_vectors_are_packed_by_several_threads(threads):
    x = np.random.default_rng(1).random((700, 500)).astype(np.float32)
    model = {"a": x.T, "b": (2 * x)[:, ::2], "c": x.astype(np.float64)}
    results = []
    for n in (1, 2, 7):
        opt.set_num_threads(n)
        results.append(opt.destructure(model)[0])
    want = np.concatenate([a.ravel() for a in model.values()])
    assert all(np.array_equal(flat, want) for flat in results)


def test_rebuilt_ties_are_ties():
    w = np.arange(6.0).reshape(2, 3)
    flat, re = opt.destructure({"enc": w, "dec": w.T, "same": [w]})
    assert flat.shape == (6,)
    again = re(flat)
    assert again["same"][0] is again["enc"] and np.array_equal(again["dec"], w.T)
    assert np.shares_memory(again["dec"], flat)


# ------------------------------------------------------------------------------------------------- vectors


@KINDS
def test_wrong_length_names_both(kind):
    flat, re = opt.destructure(model_of(kind))
    for wrong in (flat[:-1], flat.reshape(4, 6)):
        with pytest.raises(ValueError, match=r"(23,|4, 6).*24,"):
            re(wrong)
    with pytest.raises(TypeError, match="expected a"):
        re([1.0] * 24)


def test_strided_vectors_give_views_too():
    _, re = opt.destructure(model_of("numpy"))
    buffer = np.arange(48.0)
    again = re(buffer[::2])
    assert np.array_equal(again["l1"]["w"], np.arange(0.0, 24, 2).reshape(3, 4))
    assert np.shares_memory(again["rest"][0], buffer)


def test_read_only_vectors_give_read_only_leaves():
    flat, re = opt.destructure(model_of("numpy"))
    flat.setflags(write=False)
    assert not re(flat)["l1"]["w"].flags.writeable


def test_models_of_two_libraries_are_refused():
    with pytest.raises(TypeError, match="both"):
        opt.destructure([np.ones(1), torch.ones(1)])


def test_model_without_leaves_is_an_empty_vector():
    flat, re = opt.destructure({"a": 3})
    assert flat.shape == (0,) and re(flat) == {"a": 3}


def test_autograd_goes_through_both_ways():
    model = {"w": torch.ones(2, 2, requires_grad=True), "b": torch.ones(2, requires_grad=True)}
    flat, re = opt.destructure(model)
    assert flat.requires_grad
    v = flat.detach().clone().requires_grad_()
    again = re(v)
    (again["w"].sum() * 2 + (again["b"] ** 2).sum()).backward()
    assert v.grad.tolist() == [2, 2, 2, 2, 2, 2]
    (2 * flat).sum().backward()
    assert model["w"].grad.tolist() == [[2, 2], [2, 2]]


@dataclass(frozen=True)
class Net:
    w: Any
    n: int


def test_rebuild_makes_the_same_classes():
    flat, re = opt.destructure(Net(np.ones(2), 5))
    assert re(flat * 2) == Net(pytest.approx([2, 2]), 5)


# ------------------------------------------------------------------------------------------------- layouts


@KINDS
def test_layout_updates_the_vector_and_so_the_rebuilt_model(kind):
    model, twin = model_of(kind), model_of(kind)
    flat, re = opt.destructure(model)
    live = re(flat)
    rule = opt.OptimiserChain(opt.ClipNorm(0.5), opt.Adam())
    state, twin_state = opt.setup(rule, flat, layout=re), opt.setup(rule, twin)
    for i in range(3):
        grads = model_of(kind)
        grads["l1"]["b"] = None if i == 1 else grads["l1"]["b"]
        opt.update_(state, flat, grads)
        opt.update_(twin_state, twin, grads)
    for a, b in zip(opt.trainables(live), opt.trainables(twin), strict=True):
        assert numbers(a).tobytes() == numbers(b).tobytes()
    assert state["l1"]["w"].state[1].m.shape == (3, 4)


def test_layout_takes_a_flat_gradient_or_a_tree():
    flat, re = opt.destructure(model_of("numpy"))
    a, b = flat.copy(), flat.copy()
    states = [opt.setup(opt.Momentum(), x, layout=re) for x in (a, b)]
    g = model_of("numpy")
    opt.update_(states[0], a, g)
    opt.update_(states[1], b, re.flatten(g))
    assert a.tobytes() == b.tobytes()
    with pytest.raises(ValueError, match=r"\(23,\).*\(24,\)"):
        opt.update_(states[0], a, re.flatten(g)[1:])
    with pytest.raises(ValueError, match=r"\(23,\).*\(24,\)"):
        opt.update_(states[0], a[1:], g)
    with pytest.raises(ValueError, match=r"\(23,\).*\(24,\)"):
        opt.setup(opt.Adam(), a[1:], layout=re)


def test_layout_has_the_leaves_of_the_model():
    flat, re = opt.destructure(model_of("numpy"))
    state = opt.setup({"l1": opt.Adam(), "rest": [opt.Descent(1.0)]}, flat, layout=re)
    opt.freeze_(state["l1"])
    opt.adjust_(state["rest"], 0.5)
    before = flat.copy()
    opt.update_(state, flat, np.ones(24))
    assert np.array_equal(flat[:16], before[:16]) and np.allclose(flat[16:], before[16:] - 0.5)
    opt.update_(state["rest"], flat, {0: None} if False else [np.ones((2, 2, 2)), None, None])
    assert np.allclose(flat[16:], before[16:] - 1)


def test_layout_works_on_a_strided_vector_and_with_ties():
    w = np.arange(6.0).reshape(2, 3)
    model = {"enc": w, "dec": w.T}
    flat, re = opt.destructure(model)
    strided = np.zeros(12)[::2]
    strided[:] = flat
    state = opt.setup(opt.Descent(1.0), strided, layout=re)
    opt.update_(state, strided, {"enc": np.ones((2, 3)), "dec": np.ones((3, 2))})
    assert np.array_equal(strided, flat - 2)
    _, new = opt.update(state, strided, np.ones(6))
    assert np.array_equal(new, flat - 3) and np.array_equal(strided, flat - 2)


def test_layout_of_one_array():
    flat, re = opt.destructure(np.zeros((2, 3)))
    state = opt.setup(opt.Descent(1.0), flat, layout=re)
    assert isinstance(state, opt.Leaf)
    opt.update_(state, flat, np.ones((2, 3)))
    opt.update_(state, flat, np.ones(6))
    assert (flat == -2).all()


def test_read_only_vector_is_refused_naming_the_pure_form():
    flat, re = opt.destructure(model_of("numpy"))
    state = opt.setup(opt.Descent(1.0), flat, layout=re)
    flat.setflags(write=False)
    with pytest.raises(ValueError, match="use update,"):
        opt.update_(state, flat, np.ones(24))
    assert np.allclose(opt.update(state, flat, np.ones(24))[1], flat - 1)


def test_layout_must_come_from_destructure():
    with pytest.raises(TypeError, match="destructure"):
        opt.setup(opt.Adam(), np.ones(3), layout=[3])


def test_layout_bumps_the_version_of_a_tensor():
    flat, re = opt.destructure(model_of("torch"))
    state = opt.setup(opt.Adam(), flat, layout=re)
    version = flat._version
    opt.update_(state, flat, torch.ones(24))
    assert flat._version > version and isinstance(state["l1"]["w"].state.m, torch.Tensor)


# ----------------------------------------------------------------------------------------------- trainables


def test_trainables_are_the_arrays_themselves_in_walk_order():
    model = model_of("numpy") | {"count": np.arange(3), "text": np.array(["a"])}
    found = opt.trainables(model, path=True)
    assert [str(p) for p, _ in found] == ["l1.w", "l1.b", "rest.0"]
    assert [x is y for (_, x), y in zip(found, opt.trainables(model), strict=True)] == [True] * 3
    assert found[2][0] == ("rest", 0) and found[0][1] is model["l1"]["w"]


def test_trainables_of_one_array_have_an_empty_path():
    ((path, _),) = opt.trainables(np.ones(2), path=True)
    assert path == () and str(path) == "" and repr(opt.KeyPath("a", 0)) == "KeyPath('a', 0)"


def test_a_model_that_holds_its_own_re_is_collected():
    class Net(dict):
        pass

    model = Net(w=np.ones(2))
    model["re"] = opt.destructure(model)[1]
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None
