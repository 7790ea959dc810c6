"""What save writes and load takes: by name, strict, nothing changed by a call that fails."""

import copy
import os
import stat
import warnings
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import support
import torch

import optimisers as opt


def trained(rule=None, dtype=np.float32):
    model = {"enc": {"w": np.ones((2, 3), dtype), "b": np.zeros(3, dtype)}, "head": np.ones(4, dtype)}
    state = opt.setup(rule or opt.Adam(0.1), model)
    gradients = {"enc": {"w": np.full((2, 3), 0.5), "b": np.ones(3)}, "head": np.arange(4.0)}
    opt.update_(state, model, gradients)
    return state, model


def bits(state, model):
    return [np.array(a).tobytes() for leaf in support.handles(model, state) for a in leaf.state] + [
        repr((leaf.clock, leaf.rule, leaf.frozen)) for leaf in support.handles(model, state)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.safetensors"


def test_hyperparameters_frozen_marks_and_counts_come_back(path):
    state, model = trained()
    opt.adjust_(state["enc"], 0.25, beta=(0.5, 0.75))
    opt.freeze_(state["head"])
    opt.update_(state, model, {"head": np.full(4, np.nan), "enc": {"w": np.full((2, 3), np.inf)}}, non_finite="skip")
    opt.save(path, state, model)
    other, _ = trained()
    loaded = opt.load(path, other)
    assert loaded.state is other and other.skipped == 1 and other["head"].frozen
    assert other["enc"]["w"].rule == opt.Adam(0.25, (0.5, 0.75)) and other["head"].rule == opt.Adam(0.1)
    assert bits(other, model) == bits(state, model)


def test_a_state_of_the_file_alone_has_its_rules_and_its_nesting(path):
    model = {"w": np.ones(3, np.float32), "b": np.ones(2)}
    chain = opt.OptimiserChain(opt.ClipGrad(2), opt.OptimiserChain(opt.AccumGrad(3), opt.AdamW(lambda_=0.1)))
    state = opt.setup({"w": opt.MixedPrecision(chain, "float64"), "b": None}, model)
    opt.save(path, state, model)
    again = opt.load(path, None, model)
    assert again.state["w"].rule == state["w"].rule and again.state["b"] is None and again.model is model


def test_mismatches_are_listed_and_change_nothing(path):
    state, model = trained()
    opt.save(path, state, model)
    other_model = {"enc": {"w": np.ones((3, 2), np.float32)}, "tail": np.ones(4, np.float32)}
    other = opt.setup(opt.Adam(), other_model)
    before = bits(other, other_model)
    with pytest.raises(opt.InvalidValueError) as error:
        opt.load(path, other)
    for part in ('missing in the file: "tail"', 'unexpected in the file: "enc.b", "head"', "shape (2, 3) in the file"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="rule Adam in the file, Momentum here"):
        opt.load(path, opt.setup(opt.Momentum(), model))
    with pytest.raises(ValueError, match=r"rule Adam in the file, RMSProp here"):
        opt.load(path, opt.setup(opt.RMSProp(centred=True), model))
    with pytest.raises(ValueError, match="MixedPrecision none in the file, float64 here"):
        opt.load(path, opt.setup(opt.MixedPrecision(opt.Adam(), "float64"), model))
    assert bits(other, other_model) == before


def test_a_model_that_does_not_fit_leaves_state_and_model_alone(path):
    state, model = trained()
    opt.save(path, state, model)
    other, same = trained(opt.Adam(0.5))
    changed = {"enc": same["enc"], "head": same["head"], "new": np.ones(2)}
    before = bits(other, same)
    with pytest.raises(ValueError, match='missing in the file: "new"'):
        opt.load(path, other, changed)
    with pytest.raises(ValueError, match="is it another model"):
        opt.load(path, other, {"x": np.ones(2)})
    same["head"].flags.writeable = False
    with pytest.raises(ValueError, match='"head" is read-only'):
        opt.load(path, other, same)
    opt.save(path, state)
    with pytest.raises(ValueError, match="saved without a model"):
        opt.load(path, other, same)
    assert bits(other, same) == before


def test_leaves_are_renamed_and_left_out_only_where_asked(path):
    state, model = trained()
    opt.save(path, state, model)
    new = {"body": {"w": np.zeros((2, 3), np.float32), "b": np.ones(3, np.float32)}, "tail": np.ones(1, np.float32)}
    other = opt.setup(opt.Adam(), new)
    loaded = opt.load(path, other, new, rename={"enc": "body"}, partial=True)
    assert (loaded.fresh, loaded.unused) == (["tail"], ["head"])
    assert np.array_equal(new["body"]["w"], model["enc"]["w"]) and new["tail"][0] == 1
    assert other["body"]["w"].clock == state["enc"]["w"].clock and other["tail"].clock.beta1_t == 1
    with pytest.raises(ValueError, match='begins with "dec"'):
        opt.load(path, other, rename={"dec": "body"}, partial=True)
    with pytest.raises(ValueError, match="both called"):
        opt.load(path, other, rename={"enc.w": "x", "enc.b": "x"}, partial=True)
    with pytest.raises(TypeError, match="rename"):
        opt.load(path, other, rename=[("enc", "body")])


def test_cast_converts_and_nothing_else_does(path):
    state, model = trained()
    opt.save(path, state, model)
    wide_state, wide = trained(dtype=np.float64)
    with pytest.raises(ValueError, match=r"float32 in the file, float64 here \(cast= converts\)"):
        opt.load(path, wide_state)
    opt.load(path, wide_state, wide, cast=True)
    assert wide["head"].dtype == np.float64 and np.array_equal(wide["head"], model["head"])
    assert np.array_equal(wide_state["head"].state.v, state["head"].state.v)
    complex_state, _ = trained(dtype=np.complex64)
    with pytest.raises(ValueError, match="dtype float32 in the file, complex64 here"):
        opt.load(path, complex_state, cast=True)


Point = namedtuple("Point", "x y")


@dataclass
class Counter:
    count: int = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, data):
        self.count = data["count"]


class Seen:
    """Plain data and nothing else, offered the way torch's objects do."""

    def __init__(self, count):
        self.count = count

    def state_dict(self):
        return {"count": self.count}


EXTRA = {
    "epoch": 3, "rate": 0.1, "none": None, "flag": True, "text": "é\n\u2028", "big": 1 << 200, "z": 1 + 2j,
    "list": [1, (2, "x"), {"a": {3: -0.0}}], "bytes": b"\0\xff", "$odd": {"$float": 1}, "empty": {},
    "inf": float("-inf"),
}  # fmt: skip


def test_what_a_user_keeps_beside_comes_back(path):
    state, _ = trained()
    arrays = {
        "numpy": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
        "torch": torch.arange(4, dtype=torch.bfloat16)[::2],
        "scalar": np.float32(0.25),
        "flags": np.array([True, False]),
        "deep": [np.arange(3.0), {"x": np.ones((0, 2), np.complex128)}],
    }
    opt.save(path, state, **EXTRA, **arrays, seen=Seen(5), rng=np.random.default_rng(1).bit_generator.state)
    extra = opt.load(path, state).extra
    assert {key: extra[key] for key in EXTRA} == EXTRA and extra["seen"] == {"count": 5}
    assert str(extra["list"][2]["a"][3]) == "-0.0"
    assert np.array_equal(extra["numpy"], arrays["numpy"]) and extra["numpy"].dtype == np.int16
    assert torch.equal(extra["torch"], arrays["torch"]) and extra["torch"].dtype == torch.bfloat16
    assert extra["scalar"] == np.float32(0.25) and type(extra["scalar"]) is np.float32
    assert extra["deep"][1]["x"].shape == (0, 2) and extra["deep"][1]["x"].dtype == np.complex128
    generator = np.random.default_rng(0)
    generator.bit_generator.state = extra["rng"]
    assert generator.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1,
        object(),
        {1: {2: object()}},
        np.array([object()]),
        np.array(["x"]),
        "\ud800",
        open,
        np.ma.array([1, 2], mask=[0, 1]),
    ],
)
def test_what_is_no_data_is_refused_by_its_name_and_the_old_file_stands(path, value):
    state, _ = trained()
    opt.save(path, state)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError), match="extra/thing"):
        opt.save(path, state, thing=value)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_data_that_contains_itself_is_refused(path):
    state, _ = trained()
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        opt.save(path, state, loop=loop)


@dataclass(frozen=True)
class Own(opt.Rule):
    eta: float = 0.5
    inner: opt.Rule = opt.Descent(0.1)  # noqa: RUF009
    shape: object = np.tanh

    def init(self, x):
        return {"seen": 0, "mean": np.zeros_like(x), "point": Point(1, 2.0), "counter": Counter(3)}

    def apply(self, state, x, dx, *higher):
        state["seen"] += 1
        state["mean"] += dx
        state["counter"].count += 1
        return state, self.eta * dx


def test_rules_written_in_python_keep_arrays_and_hyperparameters(path):
    rule = opt.OptimiserChain(opt.Momentum(0.1), Own(), opt.Adam())
    state, model = trained(rule)
    opt.adjust_(state, {Own: {"eta": 0.25}})
    opt.adjust_(state["head"], {opt.Descent: {"eta": 0.75}})
    opt.save(path, state, model)
    other, same = trained(rule)
    opt.update_(other, same, copy.deepcopy(same))
    opt.load(path, other, same)
    assert other["head"].rule == state["head"].rule and other["head"].rule[1].inner.eta == 0.75
    mine, its = other["head"].state[1], state["head"].state[1]
    assert (mine["seen"], mine["point"], mine["counter"].count) == (1, Point(1, 2.0), 4)
    assert type(mine["point"]) is Point and type(mine["counter"]) is Counter
    assert np.array_equal(mine["mean"], its["mean"])
    gradients = copy.deepcopy(model)
    opt.update_(state, model, gradients)
    opt.update_(other, same, gradients)
    assert all(np.array_equal(a, b) for a, b in zip(support.arrays(model), support.arrays(same), strict=True))


def test_no_code_comes_from_a_file(path):
    state, model = trained(Own())
    opt.save(path, state, model)
    with pytest.raises(TypeError, match="rule Own, which is not of this library"):
        opt.load(path, None, model)
    with pytest.raises(ValueError, match="Own"):
        opt.load(path, opt.setup(opt.Adam(), model))


class Opaque(opt.Rule):
    def init(self, x):
        return object()

    def apply(self, state, x, dx, *higher):
        return state, dx


def test_state_of_a_rule_that_is_no_data_is_refused_by_name(path):
    state = opt.setup(Opaque(), {"w": np.ones(2)})
    with pytest.raises(TypeError, match=r"rule/w/0 is a builtins\.object"):
        opt.save(path, state)


def test_flat_vectors_and_trees_read_each_others_files(path):
    model = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    flat, re = opt.destructure(model)
    state = opt.setup(opt.Adam(), flat, layout=re)
    opt.update_(state, flat, np.arange(8, dtype=np.float32))
    opt.save(path, state, flat)
    tree = opt.setup(opt.Adam(), model)
    opt.load(path, tree, model)
    assert np.array_equal(model["w"], re(flat)["w"]) and np.array_equal(tree["b"].state.m, state["b"].state.m)
    opt.save(path, tree, model)
    other = np.zeros_like(flat)
    opt.load(path, opt.setup(opt.Adam(), other, layout=re), other)
    assert np.array_equal(other, flat)


def test_torch_modules_and_jax_models(path):
    import jax.numpy as jnp

    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1).to(torch.bfloat16))
    state = opt.setup(opt.Adam(), module)
    opt.save(path, state, module)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other[0].weight.zero_()
    parameter = other[0].weight
    opt.load(path, opt.setup(opt.Adam(), other), other)
    assert other[0].weight is parameter and torch.equal(parameter, module[0].weight)
    model = {"b": jnp.ones(2), "w": jnp.arange(3.0)}
    opt.save(path, opt.setup(opt.Adam(), model), model)
    zeros = {"b": jnp.zeros(2), "w": jnp.zeros(3)}
    loaded = opt.load(path, None, zeros)
    assert float(loaded.model["w"][2]) == 2 and float(zeros["w"][2]) == 0


def test_tied_arrays_are_kept_once_and_loaded_into_tied_ones(path):
    w = np.arange(6.0).reshape(2, 3)
    model = {"a": w, "b": w.T}
    opt.save(path, opt.setup(opt.Adam(), model), model)
    assert (
        opt.inspect(path).ties == (("a", "b"),) and sum(n.startswith("model/") for n in opt.inspect(path).arrays) == 1
    )
    with pytest.raises(ValueError, match='missing in the file: "b"'):
        opt.load(path, opt.setup(opt.Adam(), {"a": w, "b": w.T.copy()}))


def test_names_that_are_not_apart_are_refused(path):
    state = opt.setup(opt.Adam(), {"a.b": np.ones(2), "a": {"b": np.ones(2)}})
    with pytest.raises(ValueError, match=r'two leaves are called "a\.b"'):
        opt.save(path, state)
    with pytest.raises(ValueError, match="not Unicode"):
        opt.save(path, opt.setup(opt.Adam(), {"\udc80": np.ones(2)}))
    whole, _ = trained()
    with pytest.raises(ValueError, match="part of a state"):
        opt.save(path, whole["enc"])
    with pytest.raises(ValueError, match="expected the state"):
        opt.save(path, {"w": 1})
    with pytest.raises(ValueError, match="load\\(path, None, model\\)"):
        opt.load(path)


def test_system_errors_are_those_of_python(tmp_path, path):
    state, _ = trained()
    with pytest.raises(FileNotFoundError, match="cannot open") as error:
        opt.load(path, state)
    assert error.value.filename == str(path)
    with pytest.raises(FileNotFoundError):
        opt.save(tmp_path / "no" / "state", state)
    with pytest.raises(IsADirectoryError):
        opt.save(tmp_path, state)
    with pytest.raises(IsADirectoryError):
        opt.load(tmp_path, state)
    with pytest.raises(OSError, match="no regular file"):
        opt.save("/dev/null", state)
    with pytest.raises(ValueError, match="null character"):
        opt.save("a\0b", state)
    with pytest.raises(TypeError, match="path must be"):
        opt.save(3, state)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_mode_is_that_of_the_old_file_or_the_umask(path):
    state, _ = trained()
    before = os.umask(0o027)
    try:
        opt.save(path, state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        opt.save(path, state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_older_files_of_the_series_go_and_nothing_else(tmp_path):
    state, _ = trained()
    for name in ("best.safetensors", "other-3.safetensors", "step2.txt"):
        (tmp_path / name).write_text("a user's own")
    (tmp_path / "step1.safetensors").write_text("not ours")
    for step in (2, 9, 10, 11):
        opt.save(tmp_path / f"step{step}.safetensors", state, keep=2)
    (tmp_path / "step3.safetensors.part").write_text("left by a killed process")
    opt.save(tmp_path / "step12.safetensors", state, keep=2)
    names = {"best", "other-3", "step1", "step11", "step12"}
    assert {p.name for p in tmp_path.iterdir()} == {f"{n}.safetensors" for n in names} | {"step2.txt"}
    with pytest.raises(ValueError, match="several series"):
        opt.latest(tmp_path)
    assert opt.latest(tmp_path, "step*.safetensors") == str(tmp_path / "step12.safetensors")
    (tmp_path / "step12.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="passed over"):
        assert opt.latest(tmp_path, "step*.safetensors") == str(tmp_path / "step11.safetensors")
    assert opt.latest(tmp_path / "nowhere") is None and opt.latest(tmp_path, "x*") is None
    with pytest.raises(ValueError, match="number in the name"):
        opt.save(tmp_path / "state.safetensors", state, keep=2)
    with pytest.raises(ValueError, match="at least 1"):
        opt.save(tmp_path / "step1.safetensors", state, keep=0)


def test_a_save_in_the_background_is_of_the_moment_it_was_asked_for(tmp_path, path):
    state, model = trained()
    opt.save(path, state, model)
    expected = path.read_bytes()
    saving = opt.save(tmp_path / "b.safetensors", state, model, background=True)
    opt.update_(state, model, copy.deepcopy(model))
    assert saving.wait() == str(tmp_path / "b.safetensors") and saving.done
    assert (tmp_path / "b.safetensors").read_bytes() == expected
    saving = opt.save(tmp_path / "no" / "b", state, background=True)
    with pytest.raises(FileNotFoundError):
        saving.wait()


def test_saving_and_loading_warn_of_nothing(path):
    state, model = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.save(path, state, model, x=np.ones(2), t=torch.ones(2))
        opt.load(path, state, model)
